"""Maps of classes against torch's interpolation and a loop over windows as mmsegmentation writes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from g2sd_export.edge.dense.placement import Placement, placement_of
from g2sd_export.edge.dense.stitching import class_map, resize_bilinear
from g2sd_export.edge.dense.task import DenseTask

WHOLE = DenseTask("segmentation", 32, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SLIDE = DenseTask("segmentation", 32, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), inference="slide", stride=20)


def enlarged(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return interpolate(values, size=size, mode="bilinear", align_corners=False)


def averaged(logits: torch.Tensor, placement: Placement) -> torch.Tensor:
    """Logits [classes, h, w] of the image, in float64 and all at once."""
    px, (rows, columns) = placement.image_px, placement.resized
    total = torch.zeros(1, logits.shape[1], max(rows, px), max(columns, px), dtype=torch.float64)
    count = torch.zeros(1, 1, max(rows, px), max(columns, px), dtype=torch.float64)
    for one, (top, left) in zip(logits.double(), placement.windows, strict=True):
        total[..., top : top + px, left : left + px] += enlarged(one[None], (px, px))
        count[..., top : top + px, left : left + px] += 1
    return enlarged((total / count)[..., :rows, :columns], placement.size)[0]


@pytest.mark.parametrize(("old", "new"), [((7, 5), (20, 33)), ((20, 33), (7, 5)), ((4, 4), (4, 4)), ((1, 6), (3, 1))])
def test_the_resize_is_torchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=(*old, 3)).astype(np.float32)
    wanted = enlarged(torch.from_numpy(values).double().permute(2, 0, 1)[None], new)[0].permute(1, 2, 0).numpy()
    assert np.abs(resize_bilinear(values, new) - wanted).max() < 1e-5


@pytest.mark.parametrize("task", [WHOLE, SLIDE], ids=["whole", "slide"])
@pytest.mark.parametrize("size", [(48, 64), (30, 90), (150, 33), (32, 32), (9, 14)])
def test_each_pixel_gets_the_class_with_the_largest_mean_logit(task: DenseTask, size: tuple[int, int]) -> None:
    placement = placement_of(size, task)
    logits = np.random.default_rng(1).normal(size=(len(placement.windows), 5, 8, 8)).astype(np.float32)
    wanted = averaged(torch.from_numpy(logits), placement)
    best = wanted.topk(2, dim=0).values
    found = class_map(logits, placement)
    assert found.shape == size and found.dtype == np.uint8
    clear = (best[0] - best[1] > 1e-4).numpy()
    assert clear.mean() > 0.99
    assert (found == wanted.argmax(dim=0).numpy())[clear].all()


def test_strips_of_one_row_give_the_same_as_the_whole_at_once() -> None:
    placement = placement_of((70, 45), SLIDE)
    logits = np.random.default_rng(2).normal(size=(len(placement.windows), 4, 8, 8)).astype(np.float32)
    whole = class_map(logits, placement)
    assert (class_map(logits, placement, strip_bytes=1) == whole).all()
    assert (class_map(logits, placement, strip_bytes=4000) == whole).all()


def test_padding_does_not_leak_into_the_image() -> None:
    placement = placement_of((16, 32), WHOLE)
    logits = np.zeros((1, 2, 8, 8), np.float32)
    logits[0, 0, :4], logits[0, 1, 4:] = 1, 100
    found = class_map(logits, placement)
    assert (found[:13] == 0).all()
    wanted = averaged(torch.from_numpy(logits), placement).argmax(dim=0).numpy()
    assert (found == wanted).all()


def test_classes_come_from_the_window_in_which_a_pixel_lies_deepest() -> None:
    placement = placement_of((32, 52), SLIDE)  # windows at columns 0 and 20: pixel 25 is 7 from the border of the one, 6 of the other
    assert placement.windows == ((0, 0), (0, 20))
    classes = np.stack([np.full((32, 32), 1, np.uint8), np.full((32, 32), 2, np.uint8)])
    row = class_map(classes, placement)[16]
    assert row.tolist() == [1] * 26 + [2] * 26
    even = placement_of((32, 53), DenseTask(**{**vars(SLIDE), "stride": 21}))  # pixel 26 lies equally deep in both: the first window's
    assert class_map(classes, even)[16].tolist() == [1] * 27 + [2] * 26


def test_classes_of_a_shrunk_image_are_those_of_the_nearest_pixels() -> None:
    placement = placement_of((64, 48), WHOLE)
    classes = np.random.default_rng(3).integers(0, 9, (1, 32, 32)).astype(np.uint8)
    wanted = interpolate(torch.from_numpy(classes[:, None, :, :24]), size=(64, 48), mode="nearest-exact")
    assert (class_map(classes, placement) == wanted[0, 0].numpy()).all()


def test_what_are_no_answers_for_the_windows_is_refused() -> None:
    placement = placement_of((32, 32), WHOLE)
    with pytest.raises(ValueError, match="for 1 windows"):
        class_map(np.zeros((2, 3, 8, 8), np.float32), placement)
    with pytest.raises(ValueError, match="wanted uint8 of side 32"):
        class_map(np.zeros((1, 8, 8), np.uint8), placement)
