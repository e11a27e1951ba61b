"""Passes read a graph through one view, and constants are computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.onnx_graph import Graph, fold_constants, read_onnx, replace_nodes

HEADER = '<ir_version: 10, opset_import: ["": 20]> g (float[batch, 768] x) => (float[batch, 192] y) '


def parsed(body: str, **constants: np.ndarray) -> onnx.ModelProto:  # type: ignore[type-arg]
    model = onnx.parser.parse_model(HEADER + body)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def test_what_depends_on_constants_alone_is_stored_however_large() -> None:
    weight = np.random.default_rng(0).normal(size=(192, 768)).astype(np.float32)
    model = parsed("{ turned = Transpose <perm = [1, 0]> (w) doubled = Add(turned, turned) y = MatMul(x, doubled) }", w=weight)
    fold_constants(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    (stored,) = model.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored), 2 * weight.T)
    onnx.checker.check_model(model, full_check=True)


def test_weights_in_int8_stay_int8() -> None:
    weight = np.ones((768, 192), dtype=np.int8)
    model = parsed("{ w = DequantizeLinear(q, s) y = MatMul(x, w) }", q=weight, s=np.array(0.5, dtype=np.float32))
    before = model.SerializeToString(deterministic=True)
    fold_constants(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_constant_node_and_an_initialiser_are_constants_and_a_computed_tensor_is_not() -> None:
    model = parsed("{ two = Constant <value = float {2.0}> () w2 = Mul(w, two) y = MatMul(x, w2) }", w=np.ones((768, 192), np.float32))
    graph = Graph(model.graph)
    two, weight = graph.constant("two"), graph.constant("w")
    assert two is not None and two == 2 and weight is not None and weight.shape == (768, 192)
    assert graph.constant("w2") is None and graph.constant("x") is None


def test_a_tensor_that_leaves_the_graph_has_no_only_consumer() -> None:
    model = parsed("{ y = MatMul(x, w) z = Relu(y) }", w=np.ones((768, 192), np.float32))
    graph = Graph(model.graph)
    assert graph.only_consumer("y") is None
    reader = graph.only_consumer("x")
    assert reader is not None and reader.op_type == "MatMul"


def test_new_names_are_new() -> None:
    graph = Graph(parsed("{ y = MatMul(x, w) }", w=np.ones((768, 192), np.float32)).graph)
    assert [graph.new_name(name) for name in ("x", "y", "w", "v")] == ["x_1", "y_1", "w_1", "v"]


def test_constants_that_nobody_reads_any_longer_go() -> None:
    model = parsed("{ t = Mul(x, s) y = MatMul(t, w) }", w=np.ones((768, 192), np.float32), s=np.ones(1, np.float32))
    product = model.graph.node[1]
    product.input[0] = "x"
    replace_nodes(model.graph, [product])
    assert [item.name for item in model.graph.initializer] == ["w"]
    onnx.checker.check_model(model, full_check=True)


def test_a_file_that_is_not_there_or_not_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.onnx: cannot be read as an ONNX file \(.*No such file.*\); export the model again"):
        read_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match=r"bad.onnx: cannot be read as an ONNX file"):
        read_onnx(tmp_path / "bad.onnx")
