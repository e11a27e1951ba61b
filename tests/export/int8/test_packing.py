"""The forms that the runtimes take, each computing what the form before it did."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.int8.packing import check_scheme, num_quantised, packed, signed, unsigned

Make = Callable[..., onnx.ModelProto]
X = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture
def make() -> Make:
    """One product with Q and DQ on both operands, the weight still in float."""

    def make(zero: np.ndarray, scale: float = 0.02, weight_zero: int = 0, *, per_channel: bool = True) -> onnx.ModelProto:
        weight = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
        shape = (2,) if per_channel else ()
        constants = {
            "scale": np.array(scale, np.float32),
            "zero": zero,
            "w": weight,
            "w_scale": np.full(shape, 0.03, np.float32),
            "w_zero": np.full(shape, weight_zero, np.int8),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
            helper.make_node("QuantizeLinear", ["w", "w_scale", "w_zero"], ["wq"], axis=1),
            helper.make_node("DequantizeLinear", ["wq", "w_scale", "w_zero"], ["wd"], axis=1),
            helper.make_node("MatMul", ["xd", "wd"], ["y"]),
        ]
        initialisers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        inputs, outputs = ([helper.make_tensor_value_info(name, 1, [None, width])] for name, width in (("x", 3), ("y", 2)))
        graph = helper.make_graph(nodes, "g", inputs, outputs, initialisers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])

    return make


def test_packing_stores_the_weight_in_eight_bits_and_changes_no_number(make: Make, answers: Callable[..., list[np.ndarray]]) -> None:
    wanted = answers(make(np.array(3, np.int8)), {"x": X})[0]
    model = packed(make(np.array(3, np.int8)))
    np.testing.assert_array_equal(answers(model, {"x": X})[0], wanted)
    stored = {item.name: item.data_type for item in model.graph.initializer}
    assert stored["wq"] == onnx.TensorProto.INT8 and "w" not in stored


def test_counting_from_zero_changes_no_number(make: Make, answers: Callable[..., list[np.ndarray]]) -> None:
    wanted = answers(make(np.array(-7, np.int8)), {"x": X * 10})[0]
    model = unsigned(packed(make(np.array(-7, np.int8))))
    np.testing.assert_array_equal(answers(model, {"x": X * 10})[0], wanted)
    zeros = [numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == onnx.TensorProto.UINT8]
    assert [int(zero) for zero in zeros] == [121]
    check_scheme(model, "cpu")


def test_what_is_never_negative_becomes_signed_with_the_same_range(make: Make) -> None:
    model = signed(packed(make(np.array(0, np.uint8))))
    check_scheme(model, "tensorrt")
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    scale, zero = (numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name)) for name in node.input[1:])
    assert zero.dtype == np.int8 and scale * 127 == pytest.approx(0.02 * 255, rel=1e-6)


@pytest.mark.parametrize(
    ("zero", "arguments", "scheme", "pack", "message"),
    [
        (np.array(3, np.uint8), {}, "tensorrt", True, "'xq' a zero point, which TensorRT refuses"),
        (np.array(0, np.uint8), {}, "tensorrt", True, "'xq' a zero point, which TensorRT refuses"),
        (np.array(0, np.int8), {"weight_zero": 2}, "cpu", True, "'wq' with a zero point"),
        (np.array(0, np.int8), {"per_channel": False}, "cpu", True, "one scale; wanted one scale per channel"),
        (np.array(0, np.int8), {}, "cpu", False, "stores 'w' in float; wanted eight bits"),
    ],
)
def test_what_the_target_would_refuse_is_refused(
    make: Make, zero: np.ndarray, arguments: dict[str, object], scheme: str, pack: bool, message: str
) -> None:
    model = make(zero, **arguments)
    with pytest.raises(UserError, match=message):
        check_scheme(packed(model) if pack else model, scheme)  # type: ignore[arg-type]


def test_a_graph_with_nothing_quantised_is_refused(float_path: object) -> None:
    with pytest.raises(UserError, match="left every layer in float"):
        check_scheme(onnx.load_model(float_path), "cpu")


def test_products_are_counted_through_what_only_moves_numbers(make: Make) -> None:
    model = packed(make(np.array(0, np.int8)))
    assert num_quantised(model.graph) == 1
    product = model.graph.node[-1]
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Transpose", ["xd"], ["moved"], perm=[0, 1]))
    model.graph.node[-1].input[0] = "moved"
    assert num_quantised(model.graph) == 1
    model.graph.node[-2].op_type = "Relu"
    assert num_quantised(model.graph) == 0 and product.op_type == "MatMul"
