"""What a network takes is made of the same pixels, whatever its kind of number and order of dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.image_input import ImageInput, as_logits, filled_up, read_image_input
from g2sd_export.edge.preprocess import Preprocessing

PRE = Preprocessing(6, 6, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)


def image_input(layout: Any, dtype: Any) -> ImageInput:
    return ImageInput("images", layout, None, 3, 6, dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 5e-3)])
def test_float_inputs_hold_normalised_pixels_in_either_order(dtype: str, tolerance: float) -> None:
    wanted = (IMAGES.astype(np.float64) / 255 - PRE.mean) / PRE.std
    last, first = (image_input(layout, dtype).prepared(IMAGES, PRE) for layout in ("NHWC", "NCHW"))
    assert last.dtype == first.dtype == np.dtype(dtype) and last.flags.c_contiguous and first.flags.c_contiguous
    np.testing.assert_allclose(last, wanted, atol=tolerance)
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_a_uint8_input_holds_the_pixels_themselves() -> None:
    last, first = (image_input(layout, "uint8").prepared(IMAGES, PRE) for layout in ("NHWC", "NCHW"))
    np.testing.assert_array_equal(last, IMAGES)
    np.testing.assert_array_equal(first, np.moveaxis(IMAGES, 3, 1))
    assert first.dtype == np.uint8 and first.flags.c_contiguous


def test_pixels_of_another_size_are_refused_by_a_uint8_input_too() -> None:
    with pytest.raises(ValueError, match=r"wanted uint8 \[batch, 6, 6, 3\]"):
        image_input("NHWC", "uint8").prepared(IMAGES[:, :5], PRE)


def test_another_kind_of_number_is_refused() -> None:
    with pytest.raises(UserError, match=r"'pixels' is int64; wanted float32 or float16 .*, or uint8"):
        read_image_input("pixels", ["n", 3, 6, 6], None, "int64")


def test_what_fills_up_a_batch_is_of_its_kind() -> None:
    got = filled_up(IMAGES, 7)
    assert got.dtype == np.uint8 and got.shape == (7, 6, 6, 3) and not got[5:].any()
    np.testing.assert_array_equal(got[:5], IMAGES)
    assert filled_up(IMAGES, 3) is IMAGES


def test_half_precision_answers_and_probabilities_become_float32_logits() -> None:
    assert as_logits(np.ones((2, 3), np.float16), probabilities=False).dtype == np.float32
    logits = as_logits(np.array([[0.0, 0.25, 0.75]], np.float32), probabilities=True)
    np.testing.assert_allclose(logits[0, 1:], np.log([0.25, 0.75]), rtol=1e-6)
    assert np.isfinite(logits).all()
