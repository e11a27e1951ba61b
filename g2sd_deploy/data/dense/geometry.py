"""The part of an image that a training sample shows, cut out of pixels, classes and masks by one rule.

Pixels are resized by torch's antialiased bilinear filter. Truth is never blended: a pixel of the result takes the truth at its centre, so
an object's edge is off by half a pixel of the result at most, to either side alike.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class View:
    """An image mirrored, resized, and cut to at most a square; the square's rest, at the right and at the bottom, is padding.

    Attributes:
        size: Height and width of the image in pixels.
        resized: Height and width that it is resized to.
        corner: Top and left of the cut in the mirrored, resized image.
        image_px: Side of the square.
        mirrored: Left and right are exchanged, before the cut.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    image_px: int
    mirrored: bool

    @property
    def shown(self) -> tuple[int, int]:
        """Rows and columns of the square that hold the image."""
        (height, width), (top, left) = self.resized, self.corner
        return min(height - top, self.image_px), min(width - left, self.image_px)


def resized_by(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width times a factor, rounded, and one pixel at least."""
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def view_pixels(pixels: UInt8[np.ndarray, "h w c"], view: View) -> UInt8[np.ndarray, "rows columns c"]:
    """The pixels that a view shows, without padding."""
    (rows, columns), (top, left) = view.shown, view.corner
    resized = resize_pixels(pixels, view.resized)
    if not view.mirrored:
        return resized[top : top + rows, left : left + columns]
    right = view.resized[1] - left
    return resized[top : top + rows, right - columns : right][:, ::-1]


def resize_pixels(pixels: UInt8[np.ndarray, "h w c"], size: tuple[int, int]) -> UInt8[np.ndarray, "height width c"]:
    """Resize by the antialiased bilinear filter of torch, which is Pillow's up to 2 of 255 levels."""
    planes = torch.from_numpy(np.array(pixels, order="C")).permute(2, 0, 1)[None]
    if planes.shape[2:] != size:
        planes = interpolate(planes, size, mode="bilinear", antialias=True)
    return planes[0].permute(1, 2, 0).numpy()


def view_classes(classes: UInt8[np.ndarray, "h w"], view: View) -> UInt8[np.ndarray, "rows columns"]:
    """The semantic map that a view shows, without padding."""
    rows, columns = _sources(view)
    return classes.take(rows, axis=0).take(columns, axis=1)


def view_masks(masks: Bool[np.ndarray, "n h w"], view: View) -> Bool[np.ndarray, "n {view.image_px} {view.image_px}"]:
    """The masks that a view shows, false in the padding."""
    rows, columns = _sources(view)
    shown = np.zeros((len(masks), view.image_px, view.image_px), dtype=np.bool_)
    for mask, part in zip(masks, shown, strict=True):
        part[: len(rows), : len(columns)] = mask.take(rows, axis=0).take(columns, axis=1)
    return shown


def _sources(view: View) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " columns"]]:
    """Row and column of the image in which the centre of each shown pixel lies; of a centre between two, the later one."""
    taken = []
    for start, length, old, new in zip(view.corner, view.shown, view.size, view.resized, strict=True):
        taken.append((2 * np.arange(start, start + length, dtype=np.int64) + 1) * old // (2 * new))
    rows, columns = taken
    return rows, view.size[1] - 1 - columns if view.mirrored else columns


def boxes_of(masks: Bool[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n 4"]:
    """Left, top, right, bottom of each mask in pixels: the edges of its outermost pixels; masks must not be empty."""
    columns, rows = (np.asarray(masks.any(axis=axis)) for axis in (1, 2))
    left, top = columns.argmax(axis=1), rows.argmax(axis=1)
    right, bottom = columns.shape[1] - columns[:, ::-1].argmax(axis=1), rows.shape[1] - rows[:, ::-1].argmax(axis=1)
    return np.stack([left, top, right, bottom], axis=1).astype(np.float32)
