"""Masks of objects: as run lengths, from polygons, and the boxes around them.

Run lengths are those of COCO: down the columns, beginning with what is not the object. pycocotools makes them, of masks and of polygons;
they are decoded here, with checks that it does not make.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from pycocotools import mask as coco_mask

from g2sd_deploy.data.images import BadImage

_FARTHEST = 10
"""A polygon that reaches farther than this many times the image's longer side is no polygon of that image."""
_MOST_DIGITS = 7
"""Five bits each: more than any count of pixels needs."""


def rle_from_mask(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """A mask as compressed run lengths.

    Returns:
        `size` (height, width) and `counts` (bytes), as pycocotools has them.
    """
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return encoded


def mask_from_rle(rle: Mapping[str, Any]) -> Bool[np.ndarray, "h w"]:
    """The mask of run lengths.

    Args:
        rle: `size` (height, width), and `counts`: compressed (bytes or text), or a list of numbers.

    Raises:
        BadImage: The run lengths are damaged, or not those of a mask of this size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    if isinstance(counts, list):
        counts = packed_counts(counts, (height, width))
    return mask_from_counts(counts.encode() if isinstance(counts, str) else counts, (height, width))


def mask_from_counts(packed: bytes, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of compressed run lengths.

    Args:
        packed: Compressed run lengths.
        size: Height and width of the mask.

    Raises:
        BadImage: They are damaged, or not those of a mask of this size.
    """
    counts = run_lengths(packed)
    if len(counts) and int(counts.min()) < 0:
        raise BadImage("its run lengths are damaged (one is negative)")
    _check_sum(int(counts.sum()), size)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[1], size[0]).T


def packed_counts(counts: Sequence[Any], size: tuple[int, int]) -> bytes:
    """Compress a list of run lengths.

    Raises:
        BadImage: They are no whole numbers, or not those of a mask of this height and width.
    """
    if any(type(count) is not int or count < 0 for count in counts):
        raise BadImage("its run lengths are not all whole numbers from 0 on")
    _check_sum(sum(counts), size)
    packed: bytes = coco_mask.frPyObjects({"size": list(size), "counts": list(counts)}, *size)["counts"]
    return packed


def run_lengths(packed: bytes) -> Int64[np.ndarray, " runs"]:
    """Decompress run lengths.

    Raises:
        BadImage: A character stands for nothing, or the last number is cut off.

    Source: cocodataset/cocoapi, common/maskApi.c, rleFrString.
    """
    symbols = np.frombuffer(packed, np.uint8).astype(np.int64) - 48
    if not len(symbols):
        return symbols
    if symbols.min() < 0 or symbols.max() > 63:
        raise BadImage("its run lengths are damaged (a character that stands for nothing)")
    last = np.flatnonzero(symbols & 32 == 0)
    if not len(last) or last[-1] != len(symbols) - 1:
        raise BadImage("its run lengths are cut off")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_DIGITS:
        raise BadImage("its run lengths are damaged (a number without an end)")
    places = np.arange(len(symbols)) - np.repeat(first, lengths)
    numbers = np.add.reduceat((symbols & 31) << (5 * places), first)
    numbers -= np.where(symbols[last] & 16, np.int64(1) << (5 * lengths), 0)
    for start in (1, 2):  # from the fourth on, each is told as the difference from the one before the last
        numbers[start::2] = np.cumsum(numbers[start::2])
    return numbers


def mask_from_polygons(polygons: Sequence[Float64[np.ndarray, " coordinates"]], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The area that any of the polygons covers, by pycocotools' rule for pixels on the border.

    Args:
        polygons: x, y of each corner, in pixels.
        size: Height and width of the mask.

    Raises:
        BadImage: A corner lies much too far outside.
    """
    reach = max(float(np.abs(polygon).max()) for polygon in polygons)
    if reach > _FARTHEST * max(size):
        raise BadImage(f"a polygon reaches to {reach:g}, but the image is {size[1]} x {size[0]}")
    merged: bytes = coco_mask.merge(coco_mask.frPyObjects(list(polygons), *size))["counts"]
    return mask_from_counts(merged, size)


def mask_of_box(box: Float32[np.ndarray, "4"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """A filled box, at least one pixel of it; for objects that have no mask.

    Args:
        box: Left, top, right, bottom, within the image.
        size: Height and width of the mask.
    """
    mask = np.zeros(size, dtype=bool)
    left, top, right, bottom = (int(value) for value in np.rint(box))
    top, left = min(top, size[0] - 1), min(left, size[1] - 1)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return mask


def box_of_mask(mask: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "4"] | None:
    """Left, top, right, bottom of the pixels that are set: right and bottom are the edges behind the last one. None where none is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


def _check_sum(num: int, size: tuple[int, int]) -> None:
    if num != size[0] * size[1]:
        raise BadImage(f"its run lengths are of {num} pixels, but a mask of {size[1]} x {size[0]} has {size[0] * size[1]}")
