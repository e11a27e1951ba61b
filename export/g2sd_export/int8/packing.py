"""What every quantiser's graph is brought to: weights stored in eight bits, and only what the target's runtime takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..edge.errors import UserError
from ..onnx_graph import Graph, attributes
from .graph import PRODUCTS, drop_unused
from .qdq import E4M3_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

Scheme = Literal["cpu", "tensorrt"]
"""Who computes: ONNX Runtime and OpenVINO on a CPU, which take zero points, or TensorRT, which takes none."""

_SHIFT = 128
_MOVES = frozenset({"Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store constants as they are after their QuantizeLinear, whose work the device would do at each start; changes ``model``."""
    from onnx import numpy_helper

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            value, scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input)
            axis = attributes(node).get("axis", 1)
            graph.initializer.append(numpy_helper.from_array(_quantised(value, scale, zero, axis), node.output[0]))
            node.output[0] = f"{node.output[0]}.unused"
    drop_unused(graph)
    del graph.value_info[:]  # notes of types and shapes, which change with a zero point and are inferred again
    return model


def unsigned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Count the steps of each activation from 0 in place of -128; changes ``model``.

    The numbers that the graph computes are the same to the last bit; x86 processors multiply uint8 by int8 in one instruction.
    """
    for pair, zero, _ in _activations(model.graph):
        if zero.dtype == np.int8:
            _set_constant(model.graph, pair, 2, (zero.astype(np.int16) + _SHIFT).astype(np.uint8))
    drop_unused(model.graph)
    return model


def signed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Represent what is never negative in the upper half of int8, at half the resolution; changes ``model``.

    TensorRT knows no unsigned activations.
    """
    for pair, zero, scale in _activations(model.graph):
        if zero.dtype == np.uint8 and not zero.any():
            _set_constant(model.graph, pair, 1, (scale.astype(np.float64) * 255 / 127).astype(scale.dtype))
            _set_constant(model.graph, pair, 2, zero.astype(np.int8))
    drop_unused(model.graph)
    return model


def _activations(
    graph: onnx.GraphProto,
) -> Iterator[tuple[list[onnx.NodeProto], npt.NDArray[np.generic], npt.NDArray[np.floating]]]:
    """Each QuantizeLinear of one scale with the DequantizeLinears that read it, its zero point and its scale."""
    from onnx import numpy_helper

    constants = {item.name: item for item in graph.initializer}
    consumers = Graph(graph).consumers
    for node in list(graph.node):
        if node.op_type == "QuantizeLinear":
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
            reading = consumers.get(node.output[0], [])
            if zero.size == 1 and all(reader.op_type == "DequantizeLinear" for reader in reading):
                yield [node, *reading], zero, scale


def _set_constant(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], at: int, value: npt.NDArray[np.generic]) -> None:
    from onnx import numpy_helper

    name = f"{nodes[0].output[0]}.{'scale' if at == 1 else 'zero_point'}.of"
    graph.initializer.append(numpy_helper.from_array(value, name))
    for node in nodes:
        node.input[at] = name


def check_scheme(model: onnx.ModelProto, scheme: Scheme) -> None:
    """Refuse a graph that the target's runtime would refuse.

    Raises:
        UserError: A weight is stored in float, or with a zero point, or with one scale for the layer; nothing is quantised; for "tensorrt"
            also: an activation has a zero point or is unsigned.
    """
    from onnx import numpy_helper

    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    found = False
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            raise UserError(f"the quantised graph stores {node.input[0]!r} in float; wanted eight bits")
        if node.op_type != "DequantizeLinear":
            continue
        found = True
        stored = constants.get(node.input[0])
        zero = constants[node.input[2]] if len(node.input) > 2 else np.zeros(1, np.int8)
        shifted = bool(np.any(zero.astype(np.float32)))
        if stored is not None and (shifted or (stored.ndim > 1 and constants[node.input[1]].ndim != 1)):
            raise UserError(f"the quantised graph stores {node.input[0]!r} with a zero point or one scale; wanted one scale per channel")
        if scheme == "tensorrt" and (shifted or zero.dtype == np.uint8):
            raise UserError(f"the quantised graph gives {node.input[0]!r} a zero point, which TensorRT refuses; choose another method")
    if not found:
        raise UserError("the quantiser left every layer in float; keep fewer layers or choose another method")


def num_quantised(graph: onnx.GraphProto) -> int:
    """Matrix products whose both operands come out of a DequantizeLinear, if need be through operators that only move numbers."""
    makers = {output: node for node in graph.node for output in node.output}

    def dequantised(name: str) -> bool:
        while name in makers and makers[name].op_type in _MOVES:
            name = makers[name].input[0]
        return name in makers and makers[name].op_type == "DequantizeLinear"

    return sum(node.op_type in PRODUCTS and all(map(dequantised, node.input[:2])) for node in graph.node)


def _quantised(
    value: npt.NDArray[np.floating], scale: npt.NDArray[np.floating], zero: npt.NDArray[np.generic], axis: int
) -> npt.NDArray[np.generic]:
    shape = [1] * value.ndim
    if scale.size > 1:
        shape[axis] = -1
    steps = value.astype(np.float32) / scale.reshape(shape)
    if zero.dtype in (np.int8, np.uint8):
        low, high = (-128, 127) if zero.dtype == np.int8 else (0, 255)
        return np.clip(np.rint(steps) + zero.astype(np.float32).reshape(shape), low, high).astype(zero.dtype)
    return np.clip(steps, -E4M3_MAX, E4M3_MAX).astype(zero.dtype)
