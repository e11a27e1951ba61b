"""An ONNX graph as a quantiser sees it: its matrix products, what feeds them, and constants within reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..edge.errors import UserError
from ..onnx_graph import Graph, attributes, fold_constants

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("MatMul", "Gemm", "Conv")
"""What is quantised: matrix products, and the convolution that cuts an image into patches."""


@dataclass(frozen=True)
class Product:
    """A matrix product.

    Attributes:
        name: Of its node.
        group: What is quantised or left in float together: products of the same activations, and the two of one attention.
        activations: Its operands that depend on the images, by position.
        weight: Its constant operand: position and name of the initialiser; None for a product of two activations.
        channel_axis: The axis of the weight along which its output channels lie.
    """

    name: str
    group: str
    activations: dict[int, str]
    weight: tuple[int, str] | None
    channel_axis: int


def prepared(source: Path | bytes) -> onnx.ModelProto:
    """A graph in the form that every quantiser takes: named nodes, constants folded, no initialiser read in two places.

    Args:
        source: An ONNX file, or its content.

    Raises:
        UserError: The file holds no matrix product with a constant operand, or is quantised already.
    """
    import onnx

    model = onnx.load_model_from_string(source if isinstance(source, bytes) else source.read_bytes())
    kinds = {node.op_type for node in model.graph.node}
    if found := kinds & {"QuantizeLinear", "DequantizeLinear", "QLinearMatMul", "MatMulInteger"}:
        raise UserError(f"the file to quantise holds {', '.join(sorted(found))}: it is quantised already; wanted the float file")
    _name_nodes(model.graph)
    fold_constants(model)
    _share_nothing(model.graph)
    if not any(product.weight for product in products(model.graph)):
        raise UserError("the file to quantise has no MatMul, Gemm or Conv with constant weights; wanted a vision transformer in float")
    return model


def products(graph: onnx.GraphProto) -> list[Product]:
    """Its matrix products, in the graph's order."""
    constants = {item.name: item for item in graph.initializer}
    labels = _labels(graph, set(constants))
    nodes = [node for node in graph.node if node.op_type in PRODUCTS]
    origin = attention_of(graph)
    found = []
    for node in nodes:
        operands = dict(enumerate(node.input[:2]))
        weights = [(at, name) for at, name in operands.items() if name in constants]
        activations = {at: name for at, name in operands.items() if name not in constants}
        weight = weights[0] if weights else None
        group = origin.get(node.name, node.name) if weight is None else labels[node.name]
        axis = _channel_axis(node, weight[0]) if weight else 0
        found.append(Product(node.name, group, activations, weight, axis))
    return found


def attention_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Products of two activations to the name of the Softmax that they belong to: the one above or the one below it."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {item.name for item in graph.initializer}
    found: dict[str, str] = {}
    for softmax in (node for node in graph.node if node.op_type == "Softmax"):
        for node in _above(softmax, makers):
            if node.op_type in PRODUCTS and not constants & set(node.input[:2]):
                found[node.name] = softmax.name
                break
        for node in graph.node:
            if node.op_type in PRODUCTS and set(softmax.output) & set(node.input) and not constants & set(node.input[:2]):
                found[node.name] = softmax.name
    return found


def fed_by_concat(graph: onnx.GraphProto) -> list[str]:
    """Groups of matrices whose activations are joined right before, such as the queries of a few chosen tokens; a Conv of joined maps is
    none of them."""
    joined = {output for node in graph.node if node.op_type == "Concat" for output in node.output}
    found = [layer for layer in _layers(graph, "MatMul", "Gemm") if joined & set(layer.activations.values())]
    return list(dict.fromkeys(layer.group for layer in found))


def no_layers(graph: onnx.GraphProto) -> list[str]:
    """Groups of products with constants that are no layer: means over positions, and tables of relative positions.

    A layer's MatMul has one matrix, on the right. The mean over areas of a map has a matrix on the left and then one on the right, a table
    is a stack of matrices; neither has much to multiply.
    """
    ranks = {item.name: len(item.dims) for item in graph.initializer}
    outputs = {node.name: set(node.output) for node in graph.node}
    found, means = [], set[str]()
    for layer in _layers(graph, "MatMul"):
        assert layer.weight is not None
        on_the_left = layer.weight[0] == 0
        if on_the_left:
            means |= outputs[layer.name]
        if on_the_left or ranks[layer.weight[1]] != 2 or means & set(layer.activations.values()):
            found.append(layer.group)
    return list(dict.fromkeys(found))


def _layers(graph: onnx.GraphProto, *kinds: str) -> list[Product]:
    """Products of some kinds of nodes that have a constant operand, in the graph's order."""
    names = {node.name for node in graph.node if node.op_type in kinds}
    return [product for product in products(graph) if product.weight and product.name in names]


def array_of(graph: onnx.GraphProto, name: str) -> npt.NDArray[np.generic]:
    """Value of an initialiser."""
    from onnx import numpy_helper

    array: npt.NDArray[np.generic] = numpy_helper.to_array(next(item for item in graph.initializer if item.name == name))
    return array


def set_array(graph: onnx.GraphProto, name: str, value: npt.NDArray[np.generic]) -> None:
    """Replace the value of an initialiser."""
    from onnx import numpy_helper

    next(item for item in graph.initializer if item.name == name).CopyFrom(numpy_helper.from_array(value, name))


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initialisers that no output depends on, and what is noted of tensors that are gone."""
    wanted = {item.name for item in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    _replace(graph.node, kept[::-1])
    _replace(graph.initializer, [item for item in graph.initializer if item.name in wanted])
    made = {name for node in kept for name in node.output}
    _replace(graph.value_info, [item for item in graph.value_info if item.name in made])


def _replace(field: object, items: list[object]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]  # type: ignore[attr-defined]
    del field[:]  # type: ignore[attr-defined]
    field.extend(copies)  # type: ignore[attr-defined]


def _above(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """What a node was computed from, along first inputs: a mask or a scale is another operand."""
    while node.input and node.input[0] in makers:
        node = makers[node.input[0]]
        yield node


def _channel_axis(node: onnx.NodeProto, position: int) -> int:
    """MatMul takes [in, out] as its second operand, Conv [out, in, rows, columns]; Gemm may transpose either of its own."""
    if node.op_type == "Conv":
        return 0
    transposed = bool(attributes(node).get("transB" if position else "transA", 0))
    return int(transposed != bool(position))


def _labels(graph: onnx.GraphProto, constants: set[str]) -> dict[str, str]:
    """A name that says which layer a product is: of its weight, else of the bias added to it, else of its node."""
    readers = Graph(graph).consumers
    names = {}
    for node in graph.node:
        if node.op_type in PRODUCTS:
            added = [name for reader in readers.get(node.output[0], ()) if reader.op_type == "Add" for name in reader.input]
            told = [name for name in (*node.input, *added) if name in constants and name.rpartition(".")[2] in ("weight", "bias")]
            names[node.name] = told[0].rpartition(".")[0] if told else node.name
    shared = Counter(names.values())
    return {node: label if shared[label] == 1 else node for node, label in names.items()}


def _name_nodes(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}_{len(seen)}"
        seen.add(node.name)


def _share_nothing(graph: onnx.GraphProto) -> None:
    """Give each reader its own copy: the exporter stores equal tensors once, and a quantiser changes one layer at a time."""
    values = {item.name: item for item in graph.initializer}
    read: Counter[str] = Counter()
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name in values:
                read[name] += 1
                if read[name] > 1 and node.op_type in (*PRODUCTS, "LayerNormalization", "Add"):
                    copy = graph.initializer.add()
                    copy.CopyFrom(values[name])
                    copy.name = f"{name}.{read[name]}"
                    node.input[at] = copy.name
