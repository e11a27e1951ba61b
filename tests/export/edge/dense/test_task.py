"""What a task may say, and where an image goes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from g2sd_export.edge.dense.placement import placement_of
from g2sd_export.edge.dense.preparing import fill_colour, load_pixels, prepared, resized
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.errors import UserError

SLIDE = DenseTask("segmentation", 32, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), inference="slide", stride=20)


def test_a_task_survives_its_dictionary(segmentation: DenseTask, detection: DenseTask) -> None:
    for task in (segmentation, detection, SLIDE):
        assert DenseTask.from_dict(task.to_dict()) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "pose"}, "kind is 'pose'"),
        ({"kind": 3}, "kind is 3"),
        ({"inference": "tiles"}, "inference is 'tiles'"),
        ({"kind": "detection"}, "windows slide in segmentation only"),
        ({"stride": None}, "stride is None"),
        ({"stride": 33}, "stride is 33"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"inference": "whole"}, "inference is 'whole' and stride is 20"),
        ({"image_px": 32.0}, "image_px is 32.0"),
        ({"image_px": True}, "image_px is True"),
        ({"min_score": 1.5}, "min_score is 1.5"),
        ({"min_score": "high"}, "min_score is"),
        ({"num_channels": 2}, "num_channels is 2"),
        ({"mean": [0.5]}, "mean is"),
        ({"std": [0.5, 0.0, 0.5]}, "std is"),
        ({"mean": "grey"}, "mean is 'grey'"),
        ({"colour": "RGB"}, "unknown keys colour"),
    ],
)
def test_what_a_task_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DenseTask.from_dict({**SLIDE.to_dict(), **change})
    with pytest.raises(UserError, match="missing or unknown keys stride"):
        DenseTask.from_dict({key: value for key, value in SLIDE.to_dict().items() if key != "stride"})
    with pytest.raises(UserError, match="wanted an object"):
        DenseTask.from_dict(["segmentation"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "wanted"), [((480, 640), (24, 32)), ((640, 480), (32, 24)), ((1, 3200), (1, 32)), ((8, 8), (32, 32)), ((3, 7), (14, 32))]
)
def test_the_whole_image_fits_into_the_square(size: tuple[int, int], wanted: tuple[int, int], segmentation: DenseTask) -> None:
    placement = placement_of(size, segmentation)
    assert (placement.size, placement.resized, placement.windows) == (size, wanted, ((0, 0),))


@pytest.mark.parametrize("size", [(32, 32), (33, 32), (32, 84), (300, 64), (64, 301), (500, 700)])
def test_windows_step_by_the_stride_cover_every_pixel_and_end_flush_with_the_border(size: tuple[int, int]) -> None:
    placement = placement_of(size, SLIDE)
    assert min(placement.resized) == 32
    seen = np.zeros(placement.resized, np.int64)
    for top, left in placement.windows:
        assert 0 <= top <= placement.resized[0] - 32 and 0 <= left <= placement.resized[1] - 32
        seen[top : top + 32, left : left + 32] += 1
    assert seen.min() == 1
    for axis in (0, 1):
        starts = sorted({window[axis] for window in placement.windows})
        assert starts[-1] == placement.resized[axis] - 32
        assert all(later - earlier == 20 for earlier, later in pairwise(starts[:-1]))
        assert len(starts) < 2 or 0 < starts[-1] - starts[-2] <= 20


def test_images_that_cannot_be_resized_are_refused() -> None:
    with pytest.raises(UserError, match="0 rows"):
        placement_of((0, 5), SLIDE)
    with pytest.raises(UserError, match="too narrow"):
        placement_of((1, 100_000), SLIDE)


def test_the_image_is_resized_by_pillow_and_the_rest_has_the_mean_colour() -> None:
    task = DenseTask("segmentation", 32, 3, (0.0, 0.5, 1.0), (1.0, 1.0, 1.0))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    placement, windows = prepared(pixels, task)
    assert windows.shape == (1, 32, 32, 3) and windows.dtype == np.uint8 and placement.resized == (24, 32)
    assert (windows[0, 24:] == [0, 128, 255]).all() and fill_colour(task).tolist() == [0, 128, 255]
    assert (windows[0, :24] == resized(pixels, (24, 32))).all()
    means = pixels[:44].astype(np.float64).mean(axis=(0, 1))
    assert np.abs(windows[0, :22].astype(np.float64).mean(axis=(0, 1)) - means).max() < 2  # what is shrunk is averaged, not skipped


def test_an_image_of_the_right_size_is_not_touched_and_grey_ones_stay_grey() -> None:
    task = DenseTask("detection", 16, 1, (0.5,), (0.5,))
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (prepared(pixels, task)[1][0] == pixels).all()
    assert prepared(pixels[:8], task)[1].shape == (1, 16, 16, 1)
    with pytest.raises(ValueError, match="wanted uint8"):
        prepared(np.zeros((4, 4, 3), np.uint8), task)


def test_windows_show_what_lies_at_their_place() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 75, 3)).astype(np.uint8)
    placement, windows = prepared(pixels, SLIDE)
    assert placement.windows == ((0, 0), (0, 20), (0, 40), (0, 43))
    for (top, left), window in zip(placement.windows, windows, strict=True):
        assert (window == pixels[top : top + 32, left : left + 32]).all()


def test_files_that_are_no_images_are_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.png: no such image file"):
        load_pixels("nowhere.png", 3)
    with pytest.raises(UserError, match="the image in memory: cannot be decoded"):
        load_pixels(b"not an image", 3)
