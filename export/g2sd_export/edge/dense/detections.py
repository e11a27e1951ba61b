"""From a detector's answer for its square input to boxes and masks of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .placement import Placement

SHOWN_SCORE = 0.3
"""Objects that a picture shows; all above a detector's own smallest score would cover the image."""
_HALF = np.float32(0.5)


@dataclass(frozen=True)
class Detections:
    """Objects of one image, the surest first.

    Attributes:
        boxes: float32 [n, 4]: left, top, right, bottom in pixels of the image.
        scores: float32 [n] in [0, 1], falling.
        labels: int64 [n]: classes from 0.
        masks: bool [n, h, w]: the object's pixels.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    def from_score(self, least: float) -> Detections:
        """Those of this score or more."""
        num = int((self.scores >= least).sum())
        return Detections(self.boxes[:num], self.scores[:num], self.labels[:num], self.masks[:num])


def detections_of(
    boxes: npt.NDArray[np.floating[Any]],
    scores: npt.NDArray[np.floating[Any]],
    labels: npt.NDArray[np.integer[Any]],
    masks: npt.NDArray[np.floating[Any]],
    placement: Placement,
    min_score: float,
) -> Detections:
    """The objects that a detector found in one image.

    Args:
        boxes: [K, 4] in pixels of the square input: left, top, right, bottom.
        scores: [K]; rows that fill the answer up have 0.
        labels: [K].
        masks: [K, m, m]: probabilities inside each box.
        placement: Where the image went.
        min_score: What is left out lies below it; a score of 0 always is.

    Returns:
        Boxes cut at the border of the image and scaled to it, without those that nothing is left of; masks of the image's size.
    """
    rows, columns = placement.resized
    limits = np.asarray([columns, rows, columns, rows], np.float32)
    inside = np.clip(np.asarray(boxes, np.float32), 0, limits)
    scale = np.asarray(placement.size[::-1] * 2, np.float32) / limits
    found = (inside * scale).astype(np.float32)
    kept = (scores > 0) & (scores >= min_score) & (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind="stable")]
    return Detections(
        boxes=found[order],
        scores=np.asarray(scores[order], np.float32),
        labels=np.asarray(labels[order], np.int64),
        masks=paste_masks(masks[order], found[order], placement.size),
    )


def paste_masks(
    masks: npt.NDArray[np.floating[Any]], boxes: npt.NDArray[np.floating[Any]], size: tuple[int, int], *, threshold: float = 0.5
) -> npt.NDArray[np.bool_]:
    """Small masks, enlarged into their boxes.

    Args:
        masks: [n, m, m]: probabilities.
        boxes: [n, 4]: left, top, right, bottom in pixels of the image.
        size: Rows and columns of the image.
        threshold: From which probability on a pixel belongs to the object.

    Returns:
        bool [n, *size].

    Source: facebookresearch/detectron2, detectron2/layers/mask_ops.py (_do_paste_mask): the mask is sampled bilinearly at the centre of
        each pixel, and is zero outside.
    Differs: torchvision's ``paste_masks_in_image`` rounds the box to whole pixels first; a test tells how far the two are apart.
    """
    pasted = np.zeros((len(masks), *size), np.bool_)
    for target, mask, box in zip(pasted, np.asarray(masks, np.float32), np.asarray(boxes, np.float32)):
        rows, columns = (_range(box[axis], box[axis + 2], size[1 - axis]) for axis in (1, 0))
        if rows.size and columns.size:
            across = _weights(columns, box[0], box[2], mask.shape[1])
            down = _weights(rows, box[1], box[3], mask.shape[0])
            target[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = down @ mask @ across.T >= np.float32(threshold)
    return pasted


def _range(start: float, stop: float, length: int) -> npt.NDArray[np.int64]:
    """Pixels of an axis that a box may touch: outside of it a sampled mask is below a half."""
    return np.arange(max(int(np.floor(start)) - 1, 0), min(int(np.ceil(stop)) + 1, length))


def _weights(places: npt.NDArray[np.int64], start: np.float32, stop: np.float32, num: int) -> npt.NDArray[np.float32]:
    """float32 [pixels, num]: the shares of a mask's cells in the value at the centre of each pixel; nothing of what lies outside."""
    where = (places.astype(np.float32) + _HALF - start) / (stop - start) * np.float32(num) - _HALF
    shares: npt.NDArray[np.float32] = np.maximum(1 - np.abs(where[:, None] - np.arange(num, dtype=np.float32)), 0)
    return shares
