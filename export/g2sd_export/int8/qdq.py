"""Explicit quantisation: QuantizeLinear and DequantizeLinear before each matrix product, weights stored in the bits they are used in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from .graph import Product, array_of, drop_unused, products

if TYPE_CHECKING:
    import onnx

Activations = Literal["uint8", "int8", "fp8"]
"""Of activations: "uint8" has a zero point; "int8" is symmetric; "fp8" is E4M3. Weights are int8, or E4M3 beside "fp8" activations."""

E4M3_MAX = 448.0
_SMALLEST_SCALE = 1e-10


@dataclass(frozen=True)
class Grid:
    """The numbers that a quantised tensor can take: ``scale * (q - zero_point)``."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, low: float, high: float, activations: Activations) -> Grid:
        """The finest grid that holds ``low``, ``high`` and 0."""
        low, high = min(low, 0.0), max(high, 0.0)
        if activations == "uint8":
            scale = max((high - low) / 255, _SMALLEST_SCALE)
            return cls(scale, int(np.clip(round(-low / scale), 0, 255)))
        largest = max(-low, high)
        return cls(max(largest / (127 if activations == "int8" else E4M3_MAX), _SMALLEST_SCALE), 0)


def with_qdq(
    model: onnx.ModelProto,
    ranges: Mapping[str, tuple[float, float]],
    *,
    activations: Activations,
    keep: Collection[str] = (),
    largest_weight: int = 127,
) -> onnx.ModelProto:
    """Quantise the matrix products of a prepared float graph.

    Args:
        model: A prepared float graph; not changed.
        ranges: Low and high of each activation that a product reads.
        activations: Their type.
        keep: Groups that stay float.
        largest_weight: 127, or 63 for x86 processors without VNNI, whose 16-bit sums of two products saturate otherwise.

    Returns:
        A graph in which each activation has one pair of Q and DQ, however many products read it, and each weight one DQ
        with a scale per output channel.
    """
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    nodes = {node.name: node for node in graph.node}
    done: dict[str, str] = {}
    for product in products(graph):
        if product.group in keep:
            continue
        node = nodes[product.name]
        for at, name in product.activations.items():
            if name not in done:
                done[name] = _insert_activation(graph, name, Grid.of(*ranges[name], activations), activations)
            node.input[at] = done[name]
        if product.weight:
            node.input[product.weight[0]] = _insert_weight(graph, product, activations, largest_weight)
    _order(graph)
    drop_unused(graph)
    return result


def quantised_weight(
    weight: npt.NDArray[np.floating], *, axis: int, largest: int = 127
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round a weight to int8, symmetric, with one scale per index of ``axis``.

    Returns:
        The int8 weight in [-largest, largest] and the float32 scales.
    """
    scale = np.maximum(_largest(weight, axis) / largest, _SMALLEST_SCALE).astype(np.float32)
    rounded = np.rint(weight / _along(scale, weight.ndim, axis))
    return np.clip(rounded, -largest, largest).astype(np.int8), scale


def _insert_activation(graph: onnx.GraphProto, name: str, grid: Grid, kind: Activations) -> str:
    from onnx import helper, numpy_helper

    scale, zero = f"{name}.scale", f"{name}.zero_point"
    graph.initializer.append(numpy_helper.from_array(np.array(grid.scale, np.float32), scale))
    if kind == "fp8":
        graph.initializer.append(_fp8_tensor(zero, np.zeros((), np.float32)))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(grid.zero_point, dtype=kind), zero))
    graph.node.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}.q"], f"{name}.Quantize"))
    graph.node.append(helper.make_node("DequantizeLinear", [f"{name}.q", scale, zero], [f"{name}.dq"], f"{name}.Dequantize"))
    return f"{name}.dq"


def _insert_weight(graph: onnx.GraphProto, product: Product, kind: Activations, largest: int) -> str:
    from onnx import helper, numpy_helper

    assert product.weight is not None
    name, axis = product.weight[1], product.channel_axis
    weight = array_of(graph, name).astype(np.float32)
    quantised, scale, zero, out = (f"{name}.{part}" for part in ("q", "scale", "zero_point", "dq"))
    if kind == "fp8":
        scales = np.maximum(_largest(weight, axis) / E4M3_MAX, _SMALLEST_SCALE).astype(np.float32)
        graph.initializer.append(_fp8_tensor(quantised, weight / _along(scales, weight.ndim, axis)))
        graph.initializer.append(_fp8_tensor(zero, np.zeros(len(scales), np.float32)))
    else:
        values, scales = quantised_weight(weight, axis=axis, largest=largest)
        graph.initializer.append(numpy_helper.from_array(values, quantised))
        graph.initializer.append(numpy_helper.from_array(np.zeros(len(scales), np.int8), zero))
    graph.initializer.append(numpy_helper.from_array(scales, scale))
    graph.node.append(helper.make_node("DequantizeLinear", [quantised, scale, zero], [out], f"{name}.Dequantize", axis=axis))
    return out


def _fp8_tensor(name: str, value: npt.NDArray[np.float32]) -> onnx.TensorProto:
    """Float32 to E4M3, rounded to the nearest and never beyond its largest number."""
    import ml_dtypes
    from onnx import TensorProto, helper

    content = np.clip(value, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    return helper.make_tensor(name, TensorProto.FLOAT8E4M3FN, value.shape, content.tobytes(), raw=True)


def _largest(weight: npt.NDArray[np.floating], axis: int) -> npt.NDArray[np.floating]:
    largest: npt.NDArray[np.floating] = np.abs(weight).max(axis=tuple(other for other in range(weight.ndim) if other != axis))
    return largest


def _along(scale: npt.NDArray[np.float32], ndim: int, axis: int) -> npt.NDArray[np.float32]:
    shape = [1] * ndim
    shape[axis] = -1
    return scale.reshape(shape)


def _order(graph: onnx.GraphProto) -> None:
    """Put each new node right before the first that reads it: operands have to be made above their readers."""
    added = {node.output[0]: node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    ordered: list[onnx.NodeProto] = []

    def place(node: onnx.NodeProto) -> None:
        for name in node.input:
            if name in added:
                place(added.pop(name))
        ordered.append(node)

    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            place(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
