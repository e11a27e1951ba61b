"""From the answers for the windows of an image to one class for each of its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .placement import Placement

STRIP_BYTES = 64 << 20
"""Most memory for the logits of a strip of rows; an image's whole map of 150 classes would take gigabytes."""


def class_map(
    answers: npt.NDArray[np.floating[Any]] | npt.NDArray[np.uint8], placement: Placement, *, strip_bytes: int = STRIP_BYTES
) -> npt.NDArray[np.uint8]:
    """One class for each pixel of an image.

    Args:
        answers: Logits [windows, classes, s, s] of any side s, which are enlarged to the windows; or the classes themselves, uint8
            [windows, px, px], px = ``placement.image_px``.
        placement: Where the image went.
        strip_bytes: Most memory for the logits of a strip of rows.

    Returns:
        uint8 [h, w], h and w of ``placement.size``. Of logits: averaged where windows overlap, resized to the image's size, then the
        largest, the first of equals. Of classes: of the window in which a pixel lies farthest from the border, and the nearest pixel.

    Raises:
        ValueError: The answers are not of as many windows, or neither logits nor classes.

    Source: open-mmlab/mmsegmentation, mmseg/models/segmentors/encoder_decoder.py (slide_inference, whole_inference).
    """
    if len(answers) != len(placement.windows) or answers.ndim not in (3, 4):
        raise ValueError(f"the answers have shape {list(answers.shape)} for {len(placement.windows)} windows; wanted logits or classes")
    if answers.ndim == 4:
        return np.concatenate([logits.argmax(axis=2).astype(np.uint8) for logits in _strips(answers, placement, strip_bytes)])
    if answers.dtype != np.uint8 or answers.shape[1:] != (placement.image_px,) * 2:
        raise ValueError(f"the classes are {answers.dtype} {list(answers.shape)}; wanted uint8 of side {placement.image_px}")
    rows, columns = (np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(placement.size, placement.resized))
    return _joined(np.asarray(answers, np.uint8), placement)[rows[:, None], columns]


def resize_bilinear(values: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Bilinear resize between pixel centres, without averaging what is shrunk.

    Args:
        values: float32 [rows, columns, channels].
        size: Rows and columns wanted.

    Returns:
        float32 [*size, channels]: what torch's ``interpolate(mode="bilinear", align_corners=False)`` gives.
    """
    wide = _blended(values, 1, *_taps(np.arange(size[1]), values.shape[1], size[1]))
    return _blended(wide, 0, *_taps(np.arange(size[0]), values.shape[0], size[0]))


def _taps(
    places: npt.NDArray[np.int64], old: int, new: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For pixels of an axis of ``new``: the two of the axis of ``old`` between which each lies, and the weight of the second."""
    where = np.maximum((places.astype(np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5), np.float32(0))
    first = np.minimum(where.astype(np.int64), old - 1)
    return first, np.minimum(first + 1, old - 1), (where - first).astype(np.float32)


def _blended(
    values: npt.NDArray[np.float32], axis: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], share: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Channels are the last axis, so that a pixel is copied in one piece."""
    left = np.take(values, first, axis=axis)
    difference = np.take(values, second, axis=axis)
    difference -= left
    difference *= share[:, None] if axis == 1 else share[:, None, None]
    left += difference
    return left


def _strips(answers: npt.NDArray[Any], placement: Placement, strip_bytes: int) -> Iterator[npt.NDArray[np.float32]]:
    """Logits [some rows, w, classes] of the image, from top to bottom."""
    (height, width), (rows, columns) = placement.size, placement.resized
    last = np.ascontiguousarray(answers.transpose(0, 2, 3, 1), dtype=np.float32)
    step = max(1, strip_bytes // (last.shape[-1] * 4 * (width + columns * max(1, -(-rows // height)))))
    for start in range(0, height, step):
        first, second, share = _taps(np.arange(start, min(start + step, height)), rows, height)
        seen = _averaged(last, placement, int(first[0]), int(second[-1]) + 1)
        if columns != width:
            seen = _blended(seen, 1, *_taps(np.arange(width), columns, width))
        yield seen if rows == height else _blended(seen, 0, first - first[0], second - first[0], share)


def _averaged(answers: npt.NDArray[np.float32], placement: Placement, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Logits [stop - start, columns, classes] of the resized image: the mean over the windows that see a pixel."""
    px, columns = placement.image_px, placement.resized[1]
    total = np.zeros((stop - start, columns, answers.shape[-1]), np.float32)
    count = np.zeros((stop - start, columns, 1), np.float32)
    for logits, (top, left) in zip(answers, placement.windows):
        above, below, right = max(start, top), min(stop, top + px), min(columns, left + px)
        if above >= below:
            continue
        first, second, share = _taps(np.arange(above - top, below - top), logits.shape[0], px)
        source = logits[first[0] : second[-1] + 1]
        part = _blended(source, 1, *_taps(np.arange(right - left), logits.shape[1], px))  # columns first, while there are few rows
        place = slice(above - start, below - start), slice(left, right)
        total[place] += _blended(part, 0, first - first[0], second - first[0], share)
        count[place] += 1
    if len(placement.windows) > 1:
        total /= count
    return total


def _joined(classes: npt.NDArray[np.uint8], placement: Placement) -> npt.NDArray[np.uint8]:
    """Classes [rows, columns] of the resized image."""
    px, (rows, columns) = placement.image_px, placement.resized
    joined = np.zeros((rows, columns), np.uint8)
    depth = np.zeros((rows, columns), np.int64)
    inside = np.minimum(np.arange(px), np.arange(px)[::-1]) + 1
    own = np.minimum(inside[:, None], inside)
    for one, (top, left) in zip(classes, placement.windows):
        place = slice(top, min(top + px, rows)), slice(left, min(left + px, columns))
        seen = slice(0, place[0].stop - top), slice(0, place[1].stop - left)
        better = own[seen] > depth[place]
        joined[place][better] = one[seen][better]
        depth[place][better] = own[seen][better]
    return joined
