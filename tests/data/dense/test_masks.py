"""Run lengths and boxes of masks, against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from g2sd_deploy.data.dense.masks import box_of_mask, mask_from_rle, mask_of_box, rle_from_mask, run_lengths
from g2sd_deploy.data.images import BadImage


def blobs(number: int) -> np.ndarray:
    """A mask of random size: noise, a block, all or nothing."""
    draw = np.random.default_rng(number)
    height, width = draw.integers(1, 300, 2)
    mask = np.zeros((height, width), dtype=bool)
    match number % 4:
        case 0:
            mask = draw.random((height, width)) < 0.3
        case 1:
            mask[height // 3 :, width // 4 : width // 2 + 1] = True
        case 2:
            mask[:] = True
    return mask


@pytest.mark.parametrize("number", range(16))
def test_a_mask_comes_back_from_its_run_lengths_in_every_form(number: int) -> None:
    mask = blobs(number)
    rle = rle_from_mask(mask)
    assert rle == coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    flat = mask.flatten(order="F").astype(np.int8)
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat, prepend=0))), len(flat)]).tolist()
    assert run_lengths(rle["counts"]).tolist() == counts
    for form in (rle["counts"], rle["counts"].decode(), counts):
        np.testing.assert_array_equal(mask_from_rle({"size": list(mask.shape), "counts": form}), mask)
    assert mask_from_rle(rle).dtype == np.bool_


@pytest.mark.parametrize("number", range(16))
def test_damaged_run_lengths_are_refused_or_stand_for_some_mask_of_that_size(number: int) -> None:
    draw = np.random.default_rng(number)
    rle = rle_from_mask(blobs(4 * number))
    refused = 0
    for _ in range(50):
        counts = bytearray(rle["counts"])
        counts[draw.integers(len(counts))] = draw.integers(1, 127)
        try:
            assert mask_from_rle({**rle, "counts": bytes(counts)}).shape == tuple(rle["size"])
        except BadImage:
            refused += 1
    assert refused > 25


def test_the_box_of_a_mask_holds_every_pixel_and_no_empty_row_or_column() -> None:
    mask = np.zeros((9, 12), dtype=bool)
    assert box_of_mask(mask) is None
    mask[2, 7] = True
    box = box_of_mask(mask)
    assert box is not None and box.tolist() == [7, 2, 8, 3] and box.dtype == np.float32
    mask[8, 0] = mask[5, 11] = True
    assert box_of_mask(mask).tolist() == [0, 2, 12, 9]  # type: ignore[union-attr]
    box = box_of_mask(mask)
    assert box is not None
    left, top, width, height = coco_mask.toBbox(rle_from_mask(mask))
    assert box.tolist() == [left, top, left + width, top + height]


@pytest.mark.parametrize(
    ("box", "pixels"),
    [([1, 2, 4, 3], 3), ([0.4, 0.4, 0.6, 0.6], 1), ([11.6, 8.7, 12, 9], 1), ([0, 0, 12, 9], 108), ([1.6, 1, 3.4, 2], 1)],
)
def test_a_filled_box_has_the_pixels_between_its_rounded_sides_and_one_at_least(box: list[float], pixels: int) -> None:
    assert mask_of_box(np.array(box, dtype=np.float32), (9, 12)).sum() == pixels
