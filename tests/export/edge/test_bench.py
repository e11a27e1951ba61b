"""The bench gives a profile: every variant that runs here with its numbers and its verdict, and of the others the reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.edge.bench import BenchSettings, run_bench
from g2sd_export.edge.bench_text import lines_of
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.manifest import open_bundle
from g2sd_export.edge.measuring import MeasureSettings

Reseal = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
BRIEF = MeasureSettings(percentile=50.0, seconds=0.2)
ONNX = ("fp32-onnxruntime", "fp32-onnxruntime-float")


def test_every_variant_is_timed_at_each_batch_and_number_of_threads(pristine_bundle: Path) -> None:
    pytest.importorskip("openvino")
    bundle = open_bundle(pristine_bundle)
    rounds: list[tuple[int, int]] = []
    found = run_bench(bundle, BenchSettings((1, 3), (1, 2), measuring=BRIEF), tick=lambda *now: rounds.append(now))
    assert json.loads(json.dumps(found)) == found and (found["format"], found["reference"], found["layers"]) == (1, None, [])
    cases = [(row["variant"], row["batch"], row["threads"]) for row in found["rows"]]
    assert cases == [(variant.name, batch, threads) for threads in (1, 2) for batch in (1, 3) for variant in bundle.variants]
    for row in found["rows"]:
        assert row["digest"] == bundle.digest and row["model"] == "tiny" and row["precision"] == "fp32" and row["file_bytes"] > 0
        assert row["verdict"] in ("valid", "invalid") and row["scenario"] == "single_stream"
        assert 0 < row["min_ms"] <= row["p50_ms"] and row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["mean_ms"])
        assert row["prepare_p50_ms"] >= 0 and row["version"] and row["warmup_calls"] > 0
    assert found["conditions"]["num_rounds"] >= 4 and found["machine"]["cpus"] >= 1 and len(rounds) == found["conditions"]["num_rounds"]


def test_ratios_refer_to_the_variant_that_is_named_in_the_same_session(pristine_bundle: Path) -> None:
    settings = BenchSettings((1, 2), (1,), measuring=MeasureSettings(50.0, 0.2, reference=ONNX[0]))
    found = run_bench(open_bundle(pristine_bundle), settings, variants=ONNX[1:])
    assert found["reference"] == ONNX[0]
    assert [(row["variant"], row["batch"]) for row in found["rows"]] == [(name, batch) for batch in (1, 2) for name in ONNX]
    for own, other in (found["rows"][:2], found["rows"][2:]):
        assert own["ratio"] is None and other["ratio"]["to"] == ONNX[0] and own["round_index"] == other["round_index"]
        assert other["ratio"]["interval"][0] <= other["ratio"]["value"] <= other["ratio"]["interval"][1]


@pytest.mark.parametrize(
    "more",
    [
        {"scenario": "offline", "streams": 2},
        {"scenario": "server", "rate_per_s": 60.0},
        {"scenario": "server", "rate_per_s": 60.0, "streams": 2},
    ],
)
def test_the_other_scenarios_time_one_variant_after_another(more: dict[str, Any], pristine_bundle: Path) -> None:
    found = run_bench(open_bundle(pristine_bundle), BenchSettings(threads=(1,), measuring=BRIEF, **more), variants=ONNX)
    assert [row["variant"] for row in found["rows"]] == list(ONNX)
    for row in found["rows"]:
        assert row["scenario"] == more["scenario"] and row["streams"] == more.get("streams", 1) and row["num_samples"] > 0
        assert ("server" in row) == (more["scenario"] == "server")


def test_a_variant_that_cannot_run_or_failed_its_proof_is_left_out_with_the_reason(
    bundle: Path, reseal: Reseal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    reseal(bundle, lambda facts: facts["variants"][2].update(verdict="failed", reason="7 decisions flip"))
    opened, quick = open_bundle(bundle), BenchSettings((2,), (1,), measuring=BRIEF)
    found = run_bench(opened, quick)
    first, second, third = found["rows"]
    assert "p50_ms" in first and second["verdict"] == third["verdict"] == "not_run" and "p50_ms" not in second
    assert "pip install openvino" in second["reasons"][0] and "7 decisions flip" in third["reasons"][0] and second["batch"] == 2
    text = lines_of(found)
    assert any(line.split()[:4] == ["fp32-openvino", "2", "1", "not"] for line in text)
    assert any("pip install openvino" in line for line in text)
    with pytest.raises(UserError, match="pip install openvino"):
        run_bench(opened, quick, variants=["fp32-openvino"])
    with pytest.raises(UserError, match="7 decisions flip"):
        run_bench(opened, BenchSettings(measuring=MeasureSettings(50.0, 0.2, reference="fp32-onnxruntime-float")))
    with pytest.raises(UserError, match="has no variant 'int8'"):
        run_bench(opened, quick, variants=["int8"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batches": (1, 0)}, "--batch is 0; it must be at least 1"),
        ({"threads": (-1,)}, "--threads is -1; it must be at least 1"),
        ({"streams": 0, "scenario": "offline"}, "--streams is 0; it must be at least 1"),
        ({"scenario": "online"}, "--scenario is 'online'; it must be one of single_stream, offline, server"),
        ({"scenario": "server"}, "--rate and --scenario server go together"),
        ({"rate_per_s": 5.0}, "--rate and --scenario server go together"),
        ({"streams": 2}, "--streams is for --scenario offline and server"),
        ({"scenario": "offline", "measuring": MeasureSettings(reference="a")}, "--reference is for --scenario single_stream"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BenchSettings(**values)


def test_the_table_shows_verdicts_ratios_and_why_a_row_is_not_to_be_believed(pristine_bundle: Path) -> None:
    settings = BenchSettings(threads=(1,), measuring=MeasureSettings(50.0, 0.2, reference=ONNX[0]))
    found = run_bench(open_bundle(pristine_bundle), settings, variants=ONNX)
    shared = "0 of 3 rounds were undisturbed"
    found["conditions"].update(verdict="invalid", reasons=[shared], voids={"other processes used 31 % of the processors": 3})
    found["rows"][0].update(verdict="invalid", reasons=[shared], p50_ms=1.23456, p99_ms=None, images_per_s=123456.0)
    found["rows"][1].update(verdict="invalid", reasons=[shared, "the latency drifted by +9 % over the rounds"])
    head, first, second, why, *rest = lines_of(found)
    assert head.split() == ["variant", "batch", "threads", "p50", "ms", "p90", "ms", "p99", "ms", "images/s", "ratio", "verdict"]
    words = first.split()
    assert words[0] == ONNX[0] and words[3] == "1.235" and words[5] == "-" and "123456" in words and "invalid," in words
    assert f"{found['rows'][1]['ratio']['value']:.3f}" in second and why.strip() == "the latency drifted by +9 % over the rounds"
    assert sum(shared in line for line in (head, first, second, why, *rest)) == 1  # what all rows share is said once
    assert any("3 void: other processes used 31 % of the processors" in line for line in rest)
