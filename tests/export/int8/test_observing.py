"""Ranges of activations, against what numpy says of the same tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing, normalise
from g2sd_export.int8.feeding import feed_of
from g2sd_export.int8.graph import prepared, products
from g2sd_export.int8.observing import activation_ranges, channel_maxima

Answers = Callable[..., list[npt.NDArray[Any]]]
Seen = tuple[onnx.ModelProto, list[str], dict[str, npt.NDArray[np.float64]]]


@pytest.fixture(scope="module")
def seen(float_path: Path, photos: npt.NDArray[np.uint8], answers: Answers, normalisation: Preprocessing) -> Seen:
    """Some tensors, computed by another evaluator."""
    model = prepared(float_path)
    names = [product.activations[0] for product in products(model.graph) if product.weight][1:5]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    values = answers(watched, {model.graph.input[0].name: normalise(photos, normalisation)}, *names)
    return model, names, {name: value.astype(np.float64) for name, value in zip(names, values, strict=True)}


def test_minmax_is_the_extremes_of_all_images(seen: Seen, photos: npt.NDArray[np.uint8]) -> None:
    model, names, values = seen
    found = activation_ranges(model, names, photos, ["minmax"])["minmax"]
    for name in names:
        np.testing.assert_allclose(found[name], (values[name].min(), values[name].max()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
def test_a_histogram_cuts_no_more_than_it_should(seen: Seen, photos: npt.NDArray[np.uint8], calibrator: str) -> None:
    model, names, values = seen
    found = activation_ranges(model, names, photos, [calibrator])[calibrator]  # type: ignore[list-item, index]
    for name in names:
        low, high = found[name]
        value = values[name]
        bin_width = 2 * np.abs(value).max() / 512
        outside = ((value < low - bin_width) | (value > high + bin_width)).mean()
        assert outside <= (1e-4 if calibrator == "percentile" else 0.1)
        assert value.min() - 1e-4 <= low < high <= value.max() + 1e-4


def test_the_largest_of_each_channel_is_found(seen: Seen, photos: npt.NDArray[np.uint8]) -> None:
    model, names, values = seen
    found = channel_maxima(model, names[:1], photos)[names[0]]
    np.testing.assert_allclose(found, np.abs(values[names[0]]).max(axis=(0, 1)), rtol=1e-4)


def test_an_input_of_pixels_is_fed_as_it_is(pixel_path: Path, photos: npt.NDArray[np.uint8]) -> None:
    feed = feed_of(prepared(pixel_path))
    (inputs,) = feed.of(photos).values()
    assert inputs is photos and feed.preprocessing is None


def test_nan_in_an_activation_is_told_with_its_name(float_path: Path, photos: npt.NDArray[np.uint8]) -> None:
    model = prepared(float_path)
    product = [product for product in products(model.graph) if product.weight][1]
    assert product.weight
    item = next(item for item in model.graph.initializer if item.name == product.weight[1])
    item.CopyFrom(numpy_helper.from_array(np.full(list(item.dims), np.nan, np.float32), item.name))
    after = [product for product in products(model.graph) if product.weight][2].activations[0]
    with pytest.raises(UserError, match=f"NaN or infinity in '{after}'"):
        activation_ranges(model, [after], photos[:1], ["minmax"])


def test_a_float_file_that_does_not_say_how_to_normalise_is_refused(float_path: Path, photos: npt.NDArray[np.uint8]) -> None:
    model = prepared(float_path)
    del model.metadata_props[:]
    with pytest.raises(UserError, match="metadata has no 'preprocessing'"):
        activation_ranges(model, [], photos, ["minmax"])


def test_no_images_are_refused(float_path: Path, photos: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(UserError, match="there are no images"):
        activation_ranges(prepared(float_path), [], photos[:0], ["minmax"])
