"""Rooflines: what bounds a layer, and peaks that were reached in the number format that they claim."""

from __future__ import annotations

import time

import pytest

from g2sd_deploy.profiling.layers.executed import Attribution, ExecutedLayer
from g2sd_deploy.profiling.layers.folding import BETWEEN, Folded, Roofline, attributed_share, block_rows, group_rows, placed
from g2sd_deploy.profiling.layers.labels import Label
from g2sd_deploy.profiling.layers.roofline import Machine, memory_bandwidth

ROOF = Roofline({"fp32": 100.0, "int8": 400.0}, 10.0)  # 10^9 operations and 10^9 bytes a second: 1 GFLOP takes 10 ms, 1 MB 0.1 ms
NORM, QKV, FC1 = Label("attention", "norm", 0), Label("attention", "qkv", 0), Label("mlp", "fc1", 1)


def folded(label: Label, ms: float, *, gflop: float | None = 0.0, mbyte: float | None = 0.0, precision: str = "fp32") -> Folded:
    layer = ExecutedLayer("one", "MatMul", precision, ms, mbyte)
    return Folded(layer, label, None if gflop is None else gflop * 1e9, (), ms)


def row(*members: Folded, roofline: Roofline | None = ROOF) -> dict[str, object]:
    return group_rows(members, roofline, 100.0)[0]


def test_a_layer_is_bound_by_the_larger_of_arithmetic_and_traffic() -> None:
    compute = row(folded(QKV, 40.0, gflop=2.0, mbyte=10.0))  # 20 ms of arithmetic, 1 ms of traffic
    assert (compute["bound"], compute["roofline_share"]) == ("compute", 0.5)
    memory = row(folded(QKV, 40.0, gflop=0.1, mbyte=100.0))  # 1 ms and 10 ms
    assert (memory["bound"], memory["roofline_share"]) == ("memory", 0.25)
    assert row(folded(QKV, 40.0, gflop=2.0, mbyte=10.0, precision="int8"))["roofline_share"] == 0.125


def test_what_is_faster_than_the_memory_is_told_and_not_clipped() -> None:
    found = row(folded(QKV, 4.0, gflop=0.1, mbyte=100.0))
    assert (found["bound"], found["roofline_share"]) == ("caches", 2.5)


def test_the_layers_of_a_group_need_the_time_of_each() -> None:
    """One is bound by arithmetic and one by traffic: together they need the sum, not the larger one."""
    found = row(folded(QKV, 20.0, gflop=1.0), folded(QKV, 20.0, mbyte=100.0))
    assert found["roofline_share"] == 0.5


@pytest.mark.parametrize(
    "member", [folded(QKV, 1.0, gflop=None), folded(QKV, 1.0, mbyte=None), folded(QKV, 1.0, gflop=1.0, precision="fp8")]
)
def test_what_is_not_known_gives_no_share(member: Folded) -> None:
    found = row(folded(QKV, 1.0, gflop=1.0), member)
    assert (found["roofline_share"], found["bound"]) == (None, None)
    assert row(member, roofline=None)["roofline_share"] is None


def test_layers_that_take_longer_under_the_profiler_than_a_call_without_it_are_scaled() -> None:
    layers = [ExecutedLayer("a", "MatMul", "fp32", 30.0, 1.0), ExecutedLayer("b", "MatMul", "fp32", 10.0, 1.0)]
    found = Attribution([QKV, FC1], [1.0, 1.0], [(), ()])
    assert [one.ms for one in placed(layers, found, 20.0, 60.0)] == [15.0, 5.0]
    assert [one.ms for one in placed(layers, found, 50.0, 60.0)] == [30.0, 10.0]
    assert [one.ms for one in placed(layers, found, 60.0, 50.0)] == [36.0, 12.0]  # slowed by other work
    rest = group_rows(placed(layers, found, 50.0, 60.0), ROOF, 50.0)[-1]
    assert (rest["group"], rest["ms"], rest["share"]) == (BETWEEN, 10.0, 0.2)


def test_what_was_optimised_away_is_left_out_unless_it_computes() -> None:
    layers = [ExecutedLayer("gone", "Reshape", "fp32", 0.0, 1.0), ExecutedLayer("too fast to see", "MatMul", "fp32", 0.0, 1.0)]
    assert [one.layer.name for one in placed(layers, Attribution([NORM, QKV], [0.0, 1.0], [(), ()]), 1.0, 1.0)] == ["too fast to see"]


def test_blocks_hold_what_lies_in_them_and_shares_say_what_is_unknown() -> None:
    members = [
        folded(NORM, 1.0),
        folded(QKV, 2.0),
        folded(FC1, 3.0),
        folded(Label("", "reshape"), 4.0),
        folded(Label("mlp", "quantise", 1), 5.0),
    ]
    first, second = block_rows("blocks", members)
    assert (first["ms"], first["attention_ms"], first["norm_ms"]) == (3.0, 2.0, 1.0)
    assert (second["ms"], second["mlp_ms"], second["other_ms"]) == (8.0, 3.0, 5.0)
    assert attributed_share("blocks", members) == pytest.approx(11 / 15, abs=1e-5)
    assert attributed_share("operators", members) == 0 and block_rows("operators", members) == []
    order = [found["group"] for found in group_rows(members, None, 15.0)]
    assert order == ["norm", "attention", "mlp", "quantise", "other", BETWEEN]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_peak_is_reached_in_the_format_that_it_claims(runtime: str, precision: str) -> None:
    pytest.importorskip(runtime)
    peak = Machine(1, sizes=((64, 128, 128),)).peak_gflops(runtime, precision)
    assert peak is not None and peak > 0.01


def test_a_format_that_a_runtime_does_not_multiply_in_has_no_peak() -> None:
    machine = Machine(1, sizes=((32, 32, 32),))
    assert machine.peak_gflops("onnxruntime", "bf16") is None  # the product ran, in float32
    assert machine.peak_gflops("onnxruntime", "fp8") is None
    assert machine.peak_gflops("tensorrt", "fp16") is None


def test_peaks_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(1, sizes=((32, 32, 32),), working_set_bytes=1 << 20)
    first = machine.peak_gflops("onnxruntime", "fp32"), machine.bandwidth_gb_s()
    monkeypatch.setattr(time, "perf_counter", None)
    assert (machine.peak_gflops("onnxruntime", "fp32"), machine.bandwidth_gb_s()) == first


@pytest.mark.parametrize("threads", [1, 2])
def test_bandwidth_counts_two_arrays_read_and_one_written(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("g2sd_deploy.profiling.layers.roofline.time.perf_counter", lambda: next(ticks))  # a second between any two looks
    assert memory_bandwidth(threads, 48_000_000) == pytest.approx(0.048)
