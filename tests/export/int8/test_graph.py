"""What the quantisers are given: the same function in a form that they all take."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.int8.graph import fed_by_concat, no_layers, prepared, products

Answers = Callable[..., list[npt.NDArray[Any]]]


def test_the_prepared_graph_is_the_same_function(pixel_path: Path, photos: npt.NDArray[np.uint8], answers: Answers) -> None:
    name = onnx.load_model(pixel_path).graph.input[0].name
    (wanted,), (got,) = (answers(model, {name: photos[:3]}) for model in (onnx.load_model(pixel_path), prepared(pixel_path)))
    np.testing.assert_array_equal(got, wanted)


def test_every_weight_is_an_initialiser_of_its_own(float_path: Path) -> None:
    graph = prepared(float_path).graph
    read = [name for node in graph.node if node.op_type in ("MatMul", "Gemm", "LayerNormalization") for name in node.input]
    constants = {item.name for item in graph.initializer}
    used = [name for name in read if name in constants]
    assert len(used) == len(set(used)) >= 9 + 2 * 5
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_products_are_told_apart_by_what_they_multiply(float_path: Path) -> None:
    found = products(prepared(float_path).graph)
    weighted = [product for product in found if product.weight]
    attention = [product for product in found if not product.weight]
    assert len(weighted) == 1 + 2 * 4 + 1 and len(attention) == 4
    assert [product.group for product in attention[:2]] == [attention[0].group] * 2 != [product.group for product in attention[2:]]
    assert any("head" in product.group for product in weighted) and len({product.group for product in weighted}) == len(weighted)


def test_a_channel_axis_is_that_of_the_output(float_path: Path) -> None:
    graph = prepared(float_path).graph
    shapes = {item.name: item.dims for item in graph.initializer}
    head = products(graph)[-1]
    assert head.weight and shapes[head.weight[1]][head.channel_axis] == 6


def test_a_constant_behind_reshape_and_transpose_is_folded() -> None:
    weight = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [None, 4])],
        [helper.make_tensor_value_info("y", 1, [None, 3])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([3, 4]), "shape")],
    )
    model = prepared(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())
    (product,) = products(model.graph)
    assert product.weight == (1, "turned") and [node.op_type for node in model.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), weight.reshape(3, 4).T)


def test_a_quantised_file_is_not_quantised_again(damaged: Callable[[Callable[[onnx.ModelProto], None]], Path]) -> None:
    path = damaged(lambda model: model.graph.node.append(helper.make_node("DequantizeLinear", ["a", "b"], ["c"])))
    with pytest.raises(UserError, match="holds DequantizeLinear: it is quantised already"):
        prepared(path)


def test_a_file_without_products_is_refused() -> None:
    inputs, outputs = ([helper.make_tensor_value_info(name, 1, [None])] for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", inputs, outputs)
    with pytest.raises(UserError, match="no MatMul, Gemm or Conv with constant weights"):
        prepared(helper.make_model(graph).SerializeToString())


def graph_of(nodes: list[onnx.NodeProto], inputs: dict[str, list[int]], **constants: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """The last node's output is the graph's."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return prepared(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString())


def test_means_and_tables_are_no_layers_and_a_linear_layer_is_one() -> None:
    """Means over the halves of a map, as a pyramid pools them; a table of positions, a matrix for each query's place; and a layer."""
    half = np.kron(np.eye(2), np.full((1, 4), 0.25)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["half", "map"], ["rows"], "rows"),
        helper.make_node("MatMul", ["rows", "turned"], ["both"], "columns"),
        helper.make_node("MatMul", ["map", "table"], ["placed"], "table"),
        helper.make_node("MatMul", ["map", "layer"], ["made"], "layer"),
        helper.make_node("MatMul", ["made", "next"], ["last"], "next"),
        helper.make_node("Concat", ["both", "placed", "last"], ["all"], axis=-1),
    ]
    weights = {"half": half, "turned": half.T.copy(), "table": np.ones((3, 8, 2), np.float32), "layer": np.ones((8, 8), np.float32)}
    model = graph_of(nodes, {"map": [1, 3, 8, 8]}, **weights, next=np.ones((8, 5), np.float32))
    assert no_layers(model.graph) == ["rows", "columns", "table"]
    assert [product.group for product in products(model.graph)] == ["rows", "columns", "table", "layer", "next"]


def test_joined_tokens_stay_float_before_a_matrix_and_not_before_a_convolution() -> None:
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "kernel"], ["seen"], "conv"),
        helper.make_node("MatMul", ["joined", "matrix"], ["made"], "matmul"),
        helper.make_node("Concat", ["seen", "made"], ["all"], axis=1),
    ]
    kernel, matrix = np.ones((2, 4, 1, 1), np.float32), np.ones((6, 6), np.float32)
    model = graph_of(nodes, {"a": [1, 2, 6, 6], "b": [1, 2, 6, 6]}, kernel=kernel, matrix=matrix)
    assert fed_by_concat(model.graph) == ["matmul"]
