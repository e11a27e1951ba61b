"""Q and DQ where they belong, and the numbers that they stand for."""

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from g2sd_export.int8.qdq import Activations, Grid, quantised_weight, with_qdq
from g2sd_export.int8.quantise import Source
from g2sd_export.int8.sensitivity import logits_of

FINITE = st.floats(-1e4, 1e4, width=32)


def value_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(item for item in model.graph.initializer if item.name == name))


@given(FINITE, FINITE)
def test_a_grid_holds_zero_exactly_and_both_ends_within_half_a_step(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for kind, least, most in (("uint8", 0, 255), ("int8", -127, 127)):
        grid = Grid.of(low, high, kind)  # type: ignore[arg-type]
        assert grid.scale > 0 and least <= grid.zero_point <= most and (kind == "uint8" or grid.zero_point == 0)
        for end in (low, high):
            step = np.clip(round(end / grid.scale) + grid.zero_point, least, most)
            assert abs((step - grid.zero_point) * grid.scale - end) <= grid.scale * 0.5001 + 1e-9


def test_pixels_are_represented_exactly() -> None:
    assert Grid.of(0.0, 255.0, "uint8") == Grid(1.0, 0)


@pytest.mark.parametrize("largest", [127, 63])
def test_a_weight_is_rounded_channel_by_channel(largest: int) -> None:
    weight = np.random.default_rng(0).normal(size=(7, 5)) * np.array([1e-3, 1, 10, 0, 5])
    got, scale = quantised_weight(weight, axis=1, largest=largest)
    for channel in range(5):
        column = weight[:, channel]
        step = max(np.abs(column).max() / largest, 1e-10)
        assert scale[channel] == pytest.approx(step, rel=1e-6)
        assert np.abs(got[:, channel].astype(np.float64) * step - column).max() <= step * 0.50001
    assert got.dtype == np.int8 and np.abs(got).max() == largest


@pytest.mark.parametrize(("activations", "kind"), [("uint8", np.uint8), ("int8", np.int8), ("fp8", ml_dtypes.float8_e4m3fn)])
def test_every_product_reads_eight_bits_except_those_to_keep(source: Source, activations: Activations, kind: type) -> None:
    kept = {source.groups[1], *source.always_float}
    model = with_qdq(source.model, source.ranges("minmax")["minmax"], activations=activations, keep=kept)
    onnx.checker.check_model(model, full_check=True)
    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {item.name for item in model.graph.initializer}
    for product in source.products:
        node = next(node for node in model.graph.node if node.name == product.name)
        operands = [makers[name].op_type if name in makers else "float" for name in node.input[:2]]
        assert (operands == ["DequantizeLinear"] * 2) == (product.group not in kept)
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert all(value_of(model, node.input[2]).dtype == kind for node in pairs)
    assert len({node.input[0] for node in pairs}) == len(pairs)
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    assert len(weights) == len(source.groups) - 1
    for node in weights:
        stored, scale = value_of(model, node.input[0]), value_of(model, node.input[1])
        assert stored.dtype == (kind if activations == "fp8" else np.int8)
        assert scale.shape == (stored.shape[node.attribute[0].i],)


def test_the_float_weights_are_gone(source: Source) -> None:
    model = with_qdq(source.model, source.ranges("minmax")["minmax"], activations="uint8", keep=source.always_float)
    matrices = [item for item in model.graph.initializer if len(item.dims) == 2 and item.data_type == onnx.TensorProto.FLOAT]
    assert matrices == []


@pytest.mark.parametrize("activations", ["uint8", "int8", "fp8"])
def test_the_answers_stay_near_those_of_float(source: Source, activations: Activations) -> None:
    model = with_qdq(source.model, source.ranges("minmax")["minmax"], activations=activations, keep=source.always_float)
    wanted, got = (logits_of(each, source.images) for each in (source.model, model))
    correlation = np.corrcoef(wanted.ravel(), got.ravel())[0, 1]
    assert 0.97 < correlation < 1 and not np.array_equal(wanted, got)


def test_the_given_graph_is_left_alone(source: Source) -> None:
    before = source.model.SerializeToString(deterministic=True)
    with_qdq(source.model, source.ranges("minmax")["minmax"], activations="uint8")
    assert source.model.SerializeToString(deterministic=True) == before


def test_an_activation_that_several_products_read_is_quantised_once(source: Source) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    twin = model.graph.node.add()
    qkv = next(node for node in model.graph.node if node.name == source.products[1].name)
    twin.CopyFrom(qkv)
    twin.name, twin.output[0] = "twin", "twin"
    model.graph.output.add(name="twin")
    result = with_qdq(model, source.ranges("minmax")["minmax"], activations="uint8", keep=source.always_float)
    counts = Counter(node.input[0] for node in result.graph.node if node.op_type == "QuantizeLinear")
    assert counts[source.products[1].activations[0]] == 1
