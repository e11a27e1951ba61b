"""Where an image lies on the square inputs of a network, so that the answer finds its way back."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..preprocess import MAX_RESIZED_PIXELS
from .task import DenseTask


@dataclass(frozen=True)
class Placement:
    """How an image was resized, and which squares were cut out of it.

    Attributes:
        size: Rows and columns of the image.
        resized: Rows and columns after the resize; the image lies at the top left of what the windows see.
        windows: Top and left of each square input, in pixels of the resized image.
        image_px: Side of the square.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    windows: tuple[tuple[int, int], ...]
    image_px: int


def placement_of(size: tuple[int, int], task: DenseTask) -> Placement:
    """Where an image of a size goes.

    Args:
        size: Rows and columns, at least 1 each.
        task: Side of the input, and whether windows slide.

    Returns:
        The placement: one window at the top left for "whole"; for "slide" windows row by row, the last of each row and column flush with
        the image's border.

    Raises:
        UserError: The image is empty, or so narrow that its resized form would not fit into memory.

    Source: open-mmlab/mmsegmentation, mmseg/models/segmentors/encoder_decoder.py (slide_inference).
    """
    if min(size) < 1:
        raise UserError(f"the image has {size[0]} rows and {size[1]} columns; wanted at least one of each")
    side = min(size) if task.inference == "slide" else max(size)
    rows, columns = (max(1, int(length * task.image_px / side + 0.5)) for length in size)
    if rows * columns > MAX_RESIZED_PIXELS:
        raise UserError(f"the image of {size[1]} x {size[0]} pixels is too narrow to be resized to a short side of {task.image_px}")
    tops, lefts = (_starts(length, task.image_px, task.stride or task.image_px) for length in (rows, columns))
    return Placement(size, (rows, columns), tuple((top, left) for top in tops for left in lefts), task.image_px)


def _starts(length: int, window: int, stride: int) -> list[int]:
    """First pixel of each window along an axis; no window begins after the last flush one."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - window), 0) for index in range(count)]
