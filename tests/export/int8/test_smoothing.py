"""Outliers move into the weights, and the function stays what it was."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from g2sd_export.int8.observing import channel_maxima
from g2sd_export.int8.quantise import Source
from g2sd_export.int8.sensitivity import logits_of
from g2sd_export.int8.smoothing import smoothed, smoothing_factors


def first_norm(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "LayerNormalization")


def test_the_smoothed_model_gives_the_same_answers(source: Source) -> None:
    wanted = logits_of(source.model, source.images)
    np.testing.assert_allclose(logits_of(smoothed(source.model, source.images), source.images), wanted, rtol=1e-3, atol=2e-4)


def test_no_operator_is_added(source: Source) -> None:
    kinds = [[node.op_type for node in model.graph.node] for model in (source.model, smoothed(source.model, source.images))]
    assert kinds[0] == kinds[1]


def test_an_outlier_is_made_smaller(source: Source) -> None:
    after = smoothed(source.model, source.images)
    spread = []
    for model in (source.model, after):
        name = first_norm(model).output[0]
        largest = channel_maxima(model, [name], source.images)[name]
        assert largest.argmax() == 3
        spread.append(largest.max() / np.median(largest))
    assert spread[1] < spread[0] / 2


def test_factors_are_those_of_the_paper_up_to_one_number_for_all_channels() -> None:
    rng = np.random.default_rng(0)
    seen, read = rng.uniform(0.5, 2, 9), rng.uniform(0.5, 2, 9)
    wanted = np.array([x**0.7 / w**0.3 for x, w in zip(seen, read, strict=True)])
    got = smoothing_factors(seen, read, 0.7)
    np.testing.assert_allclose(got / got[0], wanted / wanted[0], rtol=1e-12)
    assert np.prod(got) == pytest.approx(1)


def test_a_dead_channel_is_left_alone() -> None:
    factor = smoothing_factors(np.array([0.0, 4.0, 1.0]), np.array([1.0, 1.0, 1.0]), 0.5)
    np.testing.assert_allclose(factor, [1, np.sqrt(2), 1 / np.sqrt(2)])


def test_a_norm_that_something_else_reads_too_is_left_alone(source: Source) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    norm = first_norm(model)
    model.graph.output.add(name=norm.output[0]).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    after = smoothed(model, source.images)
    values = [numpy_helper.to_array(next(item for item in each.graph.initializer if item.name == norm.input[1])) for each in (model, after)]
    np.testing.assert_array_equal(*values)


def test_a_strength_outside_its_range_is_refused(source: Source) -> None:
    with pytest.raises(ValueError, match=r"strength is 1\.5"):
        smoothed(source.model, source.images, strength=1.5)
