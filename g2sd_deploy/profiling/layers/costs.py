"""Arithmetic of each node of an ONNX graph, by the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from g2sd_deploy.profiling.layers.graph import Network, Node
from g2sd_deploy.profiling.layers.operators import ATTENTIONS, PRODUCTS

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_ORT_LOG_FATAL = 4  # ONNX Runtime's scale: 0 verbose, 4 fatal


def shapes_of(model: onnx.ModelProto, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes of all tensors whose sizes follow from those of the inputs.

    Args:
        model: The graph; not changed.
        inputs: Shape of each input, the batch among them.
    """
    import onnx

    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    del sized.graph.value_info[:]  # they may speak of another batch
    for item in sized.graph.input:
        if item.name in inputs:
            del item.type.tensor_type.shape.dim[:]
            for size in inputs[item.name]:
                item.type.tensor_type.shape.dim.add().dim_value = size
    inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True)
    found = {item.name: tuple(item.dims) for item in inferred.graph.initializer}
    for item in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = item.type.tensor_type.shape.dim
        if item.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found.setdefault(item.name, tuple(dim.dim_value for dim in dims))
    return found | dict(inputs)


def observed_shapes(model: onnx.ModelProto, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> dict[str, Shape]:
    """Shapes of tensors in one run on ONNX Runtime, for graphs whose sizes are computed on the way, as those that merge tokens.

    Args:
        model: The graph; not changed.
        feeds: Its inputs, by name.
        names: Tensors to look at.

    Returns:
        Those that could be seen: none where ONNX Runtime does not run the graph.
    """
    import onnxruntime

    looked_at = type(model)()
    looked_at.CopyFrom(model)
    del looked_at.graph.output[:]
    for name in names:
        looked_at.graph.output.add().name = name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ORT_LOG_FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(looked_at.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = session.run(list(names), dict(feeds))
    except Exception:  # the runtime's own exception types share no public base class; without shapes the arithmetic is told as unknown
        return {}
    return {name: tuple(value.shape) for name, value in zip(names, values, strict=True)}


def unknown_operands(network: Network, shapes: Shapes) -> list[str]:
    """Computed tensors that a product reads or makes and whose shape is not known."""
    products = [node for node in network.nodes if node.op in PRODUCTS | ATTENTIONS]
    names = [name for node in products for name in (*node.operands, *node.outputs) if name not in shapes and name in network.makers]
    return list(dict.fromkeys(names))


def flops_of(network: Network, shapes: Shapes) -> list[float | None]:
    """Floating-point (or integer) operations of each node's products.

    Args:
        network: The graph.
        shapes: As ``shapes_of`` gives them.

    Returns:
        For each node two operations for each multiplication with its addition; 0 for operators that are no products, whose work is told
        in bytes; None for a product whose shapes are not known.
    """
    return [_flops(node, shapes) for node in network.nodes]


def _flops(node: Node, shapes: Shapes) -> float | None:
    match node.op:
        case "MatMul" | "FusedMatMul" | "MatMulInteger" | "QLinearMatMul":
            return _of_matmul(node, shapes)
        case "Gemm":
            return _of_gemm(node, shapes)
        case "Conv" | "ConvInteger" | "QLinearConv" | "ConvTranspose":
            return _of_convolution(node, shapes)
        case "Attention" | "MultiHeadAttention":
            return _of_attention(node, shapes)
        case "Einsum" | "GroupQueryAttention" | "QAttention" | "PackedMultiHeadAttention":
            return None
        case _:
            return 0.0


def _of_matmul(node: Node, shapes: Shapes) -> float | None:
    left, right, out = shapes.get(node.operands[0]), shapes.get(node.operands[1]), shapes.get(node.outputs[0])
    if not left or not right or out is None:
        return None
    depth = left[-2] if node.attributes.get("transA") else left[-1]
    return 2.0 * math.prod(out) * depth


def _of_gemm(node: Node, shapes: Shapes) -> float | None:
    left, out = shapes.get(node.operands[0]), shapes.get(node.outputs[0])
    if left is None or out is None:
        return None
    return 2.0 * math.prod(out) * left[0 if node.attributes.get("transA") else 1]


def _of_convolution(node: Node, shapes: Shapes) -> float | None:
    """Each output is a sum over the kernel of its group's channels; turned round, each input is spread over one."""
    images, kernel, out = shapes.get(node.operands[0]), shapes.get(node.operands[1]), shapes.get(node.outputs[0])
    if images is None or kernel is None or out is None:
        return None
    return 2.0 * math.prod(images if node.op == "ConvTranspose" else out) * math.prod(kernel[1:])


def _of_attention(node: Node, shapes: Shapes) -> float | None:
    """Scores and weighted values of ONNX's own operator: queries [B, H, T, D], or [B, T, H D] as ONNX Runtime's has them."""
    queries, keys, values = (shapes.get(name) for name in (*node.inputs[:3], "", "", "")[:3])
    if not queries or not keys or not values or not len(queries) == len(keys) == len(values):
        return None
    tokens = keys[-2]
    return 2.0 * math.prod(queries) * tokens + 2.0 * math.prod(queries[:-1]) * tokens * values[-1]
