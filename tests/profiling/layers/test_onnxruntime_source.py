"""ONNX Runtime's profile, read from a file as it writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from g2sd_deploy.profiling.layers.onnxruntime_source import layers_of_profile, middle_mean

WEIGHTS = np.zeros((8, 16), np.int8)


@pytest.fixture
def optimised(tmp_path: Path) -> Path:
    """A quantised product and a reshape, as ONNX Runtime leaves them."""
    nodes = [
        helper.make_node("MatMulIntegerToFloat", ["x", "w", "s"], ["y"], "product", domain="com.microsoft"),
        helper.make_node("Reshape", ["y", "shape"], ["z"], "reshape"),
    ]
    stored = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(np.zeros(1, np.float32), "s")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, 8]), helper.make_tensor_value_info("shape", TensorProto.INT64, [1])]
    graph = helper.make_graph(nodes, "one", inputs, [helper.make_tensor_value_info("z", TensorProto.FLOAT, [64])], stored)
    path = tmp_path / "optimised.onnx"
    onnx.save(helper.make_model(graph), path)
    return path


def profile(path: Path, runs: list[dict[str, list[int]]]) -> Path:
    """A profile of runs, each with the durations of its kernels in us; every run begins at a whole second."""
    ops = {"product": ("MatMulIntegerToFloat", "uint8", 32, 256), "reshape": ("Reshape", "float", 256, 256)}
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization", "ts": 3, "dur": 9, "args": {}}]
    for number, kernels in enumerate(runs, 1):
        at = number * 1_000_000
        for name, durations in kernels.items():
            op, kind, reads, writes = ops[name]
            for duration in durations:
                at += 10
                told = {"op_name": op, "activation_size": str(reads), "output_size": str(writes), "input_type_shape": [{kind: [4, 8]}]}
                events.append({"cat": "Node", "name": f"{name}_kernel_time", "ts": at, "dur": duration, "args": told})
        events.append({"cat": "Session", "name": "model_run", "ts": number * 1_000_000, "dur": 900_000, "args": {}})
    path.write_text(json.dumps(events), encoding="utf-8")
    return path


def test_runs_at_the_beginning_do_not_count(optimised: Path, tmp_path: Path) -> None:
    runs = [{"product": [5000], "reshape": [5000]}, *[{"product": [300], "reshape": [100]}] * 3]
    found = layers_of_profile(profile(tmp_path / "p.json", runs), optimised, skip=1)
    assert [(layer.name, layer.ms) for layer in found] == [("product", pytest.approx(0.3)), ("reshape", pytest.approx(0.1))]


def test_a_kernel_that_other_work_stretched_once_keeps_its_share(optimised: Path, tmp_path: Path) -> None:
    runs = [{"product": [300 if number else 90_000], "reshape": [100]} for number in range(8)]
    product, reshape = layers_of_profile(profile(tmp_path / "p.json", runs), optimised, skip=0)
    assert product.ms / reshape.ms == pytest.approx(3)
    assert product.ms + reshape.ms == pytest.approx(0.4)  # a typical run


def test_together_layers_take_what_a_typical_run_takes(optimised: Path, tmp_path: Path) -> None:
    """Each kernel is slow in another run, so that most runs have a slow one although no kernel is slow at most times."""
    slow = [(1, 1), (1, 1), (5, 1), (5, 1), (5, 1), (1, 5), (1, 5), (1, 5)]
    runs = [{"product": [100 * one], "reshape": [100 * other]} for one, other in slow]
    assert sum(layer.ms for layer in layers_of_profile(profile(tmp_path / "p.json", runs), optimised, skip=0)) == pytest.approx(0.6)


def test_a_kernel_that_runs_twice_in_a_call_takes_both_times(optimised: Path, tmp_path: Path) -> None:
    runs = [{"product": [100, 200], "reshape": [50]}] * 4
    assert layers_of_profile(profile(tmp_path / "p.json", runs), optimised, skip=1)[0].ms == pytest.approx(0.3)


def test_bytes_are_what_is_read_and_written_and_weights_in_their_own_format(optimised: Path, tmp_path: Path) -> None:
    runs = [{"product": [100], "reshape": [50]}] * 2
    product, reshape = layers_of_profile(profile(tmp_path / "p.json", runs), optimised, skip=0)
    assert product.mbyte == pytest.approx(1e-6 * (32 + 256 + WEIGHTS.nbytes + 4))
    assert (product.precision, product.feeds, product.makes) == ("int8", ("reshape",), ("y",))
    assert reshape.mbyte == 0  # it copies nothing


def test_the_middle_half_forgets_a_quarter_on_each_side() -> None:
    assert middle_mean([1000.0, 3.0, 2.0, -1000.0]) == 2.5
    assert middle_mean([7.0]) == 7.0
