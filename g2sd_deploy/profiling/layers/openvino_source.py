"""Layers by OpenVINO's counters: a mean over all calls for each primitive of the compiled graph, which says what it was fused from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from g2sd_deploy.profiling.layers.executed import ExecutedLayer

_PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}
_NO_WORK = ("Input", "Output")
_MB = 1e6


def layers_of_request(compiled: Any, request: Any) -> list[ExecutedLayer]:
    """Layers of a model that was compiled with counters.

    Args:
        compiled: The model.
        request: Its request, whose calls are done.

    Returns:
        In the order of execution; what was optimised away or took less than a microsecond has 0 ms. OpenVINO tells the mean over all calls
        since the model was compiled, the first one among them, rounded down to whole microseconds.
    """
    times = {one.node_name: one.real_time.total_seconds() * 1e3 for one in request.get_profiling_info()}
    found: list[ExecutedLayer] = []
    constant: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        told, makers = _told(node), [port.get_source_output().get_node().get_friendly_name() for port in node.inputs()]
        if told["layerType"] == "Const" or (makers and constant.issuperset(makers)):
            constant.add(node.get_friendly_name())  # weights on their way to a layer, which were prepared once
        elif told["layerType"] not in _NO_WORK:
            found.append(_layer(node, told, times.get(node.get_friendly_name(), 0.0)))
    return found


def _layer(node: Any, told: Mapping[str, str], ms: float) -> ExecutedLayer:
    original = tuple(name for name in told["originalLayersNames"].split(",") if name)
    return ExecutedLayer(
        name=node.get_friendly_name(),
        op=told["layerType"],
        precision=_PRECISIONS.get(told["runtimePrecision"], told["runtimePrecision"]),
        ms=ms,
        mbyte=sum(_bytes_of(item) for item in (*node.inputs(), *node.outputs())) / _MB,
        nodes=original,
        makes=original,  # a node without a name goes by that of its output
        feeds=tuple(dict.fromkeys(item.get_node().get_friendly_name() for port in node.outputs() for item in port.get_target_inputs())),
    )


def _told(node: Any) -> dict[str, str]:
    info = node.get_rt_info()
    return {key: info[key].astype(str) for key in ("layerType", "runtimePrecision", "originalLayersNames")}


def _bytes_of(port: Any) -> int:
    """Of a tensor; none where its size or type is not settled, as of an input that was left out."""
    shape, kind = port.get_partial_shape(), port.get_element_type()
    if shape.is_dynamic or kind.is_dynamic():
        return 0
    count = 1
    for size in shape.to_shape():
        count *= size
    return count * int(kind.bitwidth) // 8
