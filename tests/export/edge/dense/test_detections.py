"""Boxes that find back to the image, and masks against torch and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample
from torchvision.models.detection.roi_heads import paste_masks_in_image

from g2sd_export.edge.dense.detections import detections_of, paste_masks
from g2sd_export.edge.dense.placement import placement_of
from g2sd_export.edge.dense.task import DenseTask

SIZE = (60, 80)


def random_boxes(num: int, seed: int, least: float = 4.0) -> np.ndarray:
    draws = np.random.default_rng(seed).random((num, 4))
    left, top = draws[:, 0] * 50, draws[:, 1] * 30
    sides = least + draws[:, 2:] * 26
    boxes: np.ndarray = np.stack([left, top, left + sides[:, 0], top + sides[:, 1]], axis=1).astype(np.float32)
    return boxes


def soft_masks(num: int, seed: int) -> np.ndarray:
    """Blobs: discs with a soft rim, as a detector gives them."""
    draws = np.random.default_rng(seed).random((num, 3))
    rows, columns = np.mgrid[:28, :28] + 0.5
    distance = [np.hypot(rows - 8 - 12 * one[0], columns - 8 - 12 * one[1]) - 4 - 8 * one[2] for one in draws]
    return (1 / (1 + np.exp(np.stack(distance)))).astype(np.float32)


def sampled(mask: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The value of a mask at the centre of each pixel of the image, zero outside: torch's grid_sample in float64."""
    left, top, right, bottom = (float(value) for value in box)
    columns = (torch.arange(SIZE[1], dtype=torch.float64) + 0.5 - left) / (right - left) * 2 - 1
    rows = (torch.arange(SIZE[0], dtype=torch.float64) + 0.5 - top) / (bottom - top) * 2 - 1
    grid = torch.stack([columns.expand(*SIZE), rows[:, None].expand(*SIZE)], dim=-1)[None]
    values = grid_sample(torch.from_numpy(mask).double()[None, None], grid, align_corners=False, padding_mode="zeros")
    return np.asarray(values[0, 0].numpy())


def test_pasted_masks_are_sampled_at_the_centres_of_pixels() -> None:
    masks, boxes = soft_masks(12, 0), random_boxes(12, 1)
    boxes[0], boxes[1] = [-10, -6, 30, 40], [70, 50, 99, 75]  # over the border of the image
    found = paste_masks(masks, boxes, SIZE)
    assert found.shape == (12, *SIZE) and found.any(axis=(1, 2)).all()
    for mask, box, pasted in zip(masks, boxes, found, strict=True):
        values = sampled(mask, box)
        clear = np.abs(values - 0.5) > 1e-4
        assert clear.mean() > 0.99 and (pasted == (values >= 0.5))[clear].all()


def test_pasted_masks_lie_where_torchvision_puts_them() -> None:
    masks, boxes = soft_masks(20, 2), random_boxes(20, 3, least=16)
    found = paste_masks(masks, boxes, SIZE)
    wanted = (paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), SIZE) > 0.5)[:, 0].numpy()
    shared, joint = (found & wanted).sum(axis=(1, 2)), (found | wanted).sum(axis=(1, 2))
    assert (shared / joint).min() > 0.8 and (shared / joint).mean() > 0.9  # torchvision cuts boxes to whole pixels first
    whole = np.asarray([[10, 20, 38, 48]], np.float32)
    exact = paste_masks(masks[:1], whole, SIZE)[0]
    assert paste_masks(np.full((1, 28, 28), 0.5, np.float32), whole, SIZE).sum() == 28 * 28  # a half is enough
    assert (exact[20:48, 10:38] == (masks[0] >= 0.5)).all() and exact.sum() == (masks[0] >= 0.5).sum()


def test_masks_of_boxes_beside_the_image_are_empty() -> None:
    boxes = np.asarray([[-50, -50, -20, -20], [200, 0, 230, 30]], np.float32)
    assert not paste_masks(np.ones((2, 28, 28), np.float32), boxes, SIZE).any()
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), SIZE).shape == (0, *SIZE)


def test_boxes_are_cut_at_the_image_and_scaled_to_it(detection: DenseTask) -> None:
    placement = placement_of((48, 96), detection)  # 16 of the 32 rows show the image
    boxes = np.asarray([[2, 4, 10, 12], [-5, 8, 40, 30], [3, 20, 9, 30], [5, 5, 5, 9], [1, 1, 31, 15]], np.float32)
    scores = np.asarray([0.5, 0.9, 0.8, 0.7, 0.1], np.float32)
    labels = np.asarray([1, 0, 2, 2, 1])
    found = detections_of(boxes, scores, labels, np.ones((5, 28, 28), np.float32), placement, 0.2)
    assert found.boxes.tolist() == [[0, 24, 96, 48], [6, 12, 30, 36]]  # the padding, an empty box and a low score are gone
    assert found.scores.tolist() == [pytest.approx(0.9), 0.5] and found.labels.tolist() == [0, 1]
    assert found.labels.dtype == np.int64 and found.boxes.dtype == np.float32
    assert found.masks.shape == (2, 48, 96) and found.masks[1, 12:36, 6:30].all() and found.masks[1].sum() == 24 * 24


def test_rows_that_fill_up_are_left_out_even_if_any_score_is_reported(detection: DenseTask) -> None:
    placement = placement_of((32, 32), detection)
    boxes = np.asarray([[0, 0, 9, 9], [0, 0, 9, 9]], np.float32)
    found = detections_of(boxes, np.asarray([0.01, 0], np.float32), np.asarray([0, 0]), np.ones((2, 28, 28), np.float32), placement, 0.0)
    assert len(found) == 1
