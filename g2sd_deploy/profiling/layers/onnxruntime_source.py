"""Layers by ONNX Runtime's profiler: an event for every kernel of every run, and the graph as it was optimised."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from g2sd_deploy.profiling.layers.executed import ExecutedLayer

if TYPE_CHECKING:
    import onnx

_KERNEL = "_kernel_time"
_US_PER_MS = 1e3
_MB = 1e6
_INT8 = frozenset(
    ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QLinearConv", "ConvInteger", "QAttention")
)
_IN_PLACE = frozenset(["Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"])  # they copy nothing
_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64", "int8": "int8", "uint8": "int8"}
_BITS = {"float": 32, "float16": 16, "bfloat16": 16, "double": 64, "int64": 64, "uint64": 64, "int32": 32, "uint32": 32, "int16": 16}


def layers_of_profile(profile: Path, optimised: Path, *, skip: int = 1) -> list[ExecutedLayer]:
    """Layers of a traced session.

    Args:
        profile: What the session wrote when its profiling ended.
        optimised: The graph that it ran.
        skip: Runs at the beginning that do not count.

    Returns:
        In the order of execution. The profiler counts whole microseconds, and other work on the machine stretches some kernels of some
        runs: a layer's share is the mean of the middle half of its times, and together they take what the kernels of a typical run take.
    """
    import onnx

    events = json.loads(profile.read_bytes())
    graph = onnx.load(optimised, load_external_data=False).graph
    stored = {item.name: _bytes_of_tensor(item) for item in graph.initializer}
    made = {node.name: node for node in graph.node if node.name}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    times, first = _times_by_kernel(events, skip)
    middle = {name: middle_mean(durations) for name, durations in times.items()}
    typical = float(np.median(np.sum(list(times.values()), axis=0)))
    scale = typical / total if (total := sum(middle.values())) else 1.0
    return [_layer(name, first[name], scale * middle[name], made.get(name), stored, readers) for name in times]


def _times_by_kernel(events: Sequence[Mapping[str, Any]], skip: int) -> tuple[dict[str, list[float]], dict[str, Mapping[str, Any]]]:
    """For each kernel its time in every run that counts, in us, and one of its events."""
    runs = sorted((event["ts"], event["dur"]) for event in events if event["name"] == "model_run")
    starts = [start for start, _ in runs]
    times: dict[str, list[float]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for event in sorted((one for one in events if one["name"].endswith(_KERNEL)), key=lambda one: one["ts"]):
        run = bisect_right(starts, event["ts"]) - 1
        if run < skip:
            continue
        name = event["name"].removesuffix(_KERNEL)
        series = times.setdefault(name, [0.0] * (len(runs) - skip))
        series[run - skip] += event["dur"]
        first.setdefault(name, event["args"])
    return times, first


def _layer(
    name: str,
    told: Mapping[str, Any],
    us: float,
    node: onnx.NodeProto | None,
    stored: Mapping[str, int],
    readers: Mapping[str, Sequence[str]],
) -> ExecutedLayer:
    weights = sum(stored.get(item, 0) for item in node.input) if node is not None else int(told.get("parameter_size", 0))
    makes = tuple(node.output) if node is not None else ()
    return ExecutedLayer(
        name=name,
        op=told["op_name"],
        precision=_precision(told),
        ms=us / _US_PER_MS,
        mbyte=0.0 if told["op_name"] in _IN_PLACE else (int(told["activation_size"]) + int(told["output_size"]) + weights) / _MB,
        nodes=(name,),
        makes=makes,
        feeds=tuple(dict.fromkeys(reader for item in makes for reader in readers.get(item, ()))),
    )


def middle_mean(values: Sequence[float]) -> float:
    """Mean of the middle half, between the lowest and the highest quarter."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def _precision(told: Mapping[str, Any]) -> str:
    if told["op_name"] in _INT8:
        return "int8"
    kinds = [kind for item in told.get("input_type_shape", []) for kind in item]
    return _PRECISIONS.get(kinds[0], kinds[0]) if kinds else ""


def _bytes_of_tensor(item: onnx.TensorProto) -> int:
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(item.data_type).lower()
    return int(np.prod(item.dims, dtype=np.int64)) * _BITS.get(kind, 8) // 8
