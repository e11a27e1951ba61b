"""From the pixels of an image to the square inputs of a network."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import UserError
from ..preprocess import DECODE_ERRORS, convert_image
from .placement import Placement, placement_of
from .task import DenseTask


def prepared(pixels: npt.NDArray[np.uint8], task: DenseTask) -> tuple[Placement, npt.NDArray[np.uint8]]:
    """Resize an image, pad it, and cut out the windows.

    Args:
        pixels: uint8 [h, w, c], c = ``task.num_channels``.
        task: Size wanted, and whether windows slide.

    Returns:
        Where the image went, and uint8 [windows, px, px, c], px = ``task.image_px``. What the image does not cover has the mean colour.

    Raises:
        UserError: The image is empty or too narrow to be resized.
        ValueError: The pixels are not uint8 of the channels that the task asks for.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != task.num_channels:
        raise ValueError(f"the image is {pixels.dtype} {list(pixels.shape)}; wanted uint8 [rows, columns, {task.num_channels}]")
    placement = placement_of((pixels.shape[0], pixels.shape[1]), task)
    px, (rows, columns) = task.image_px, placement.resized
    canvas = np.empty((max(rows, px), max(columns, px), task.num_channels), np.uint8)
    canvas[:] = fill_colour(task)
    canvas[:rows, :columns] = resized(pixels, placement.resized)
    return placement, np.stack([canvas[top : top + px, left : left + px] for top, left in placement.windows])


def fill_colour(task: DenseTask) -> npt.NDArray[np.uint8]:
    """The colour that is nothing to the network: its mean, uint8 [c]."""
    return np.round(np.clip(np.asarray(task.mean, np.float64), 0, 1) * 255).astype(np.uint8)


def resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pillow's bilinear resize, which averages what it shrinks.

    Args:
        pixels: uint8 [h, w, c] of 1 or 3 channels.
        size: Rows and columns wanted.

    Returns:
        uint8 [rows, columns, c].
    """
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.uint8).reshape(*size, pixels.shape[2])


def load_pixels(source: str | os.PathLike[str] | bytes, num_channels: int) -> npt.NDArray[np.uint8]:
    """Decode an image file at its own size.

    Args:
        source: A path, or the bytes of an encoded image.
        num_channels: 1 (grey) or 3 (RGB).

    Returns:
        uint8 [h, w, num_channels]. EXIF orientation is ignored, as it is for classifiers.

    Raises:
        UserError: The file is missing or cannot be decoded; the message names it.
    """
    name = "the image in memory" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise UserError(f"{name}: no such image file; give the path of a JPEG, PNG or other image")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            pixels = np.asarray(convert_image(image, "L" if num_channels == 1 else "RGB"), np.uint8)
    except DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: cannot be decoded as an image ({reason}); replace or remove the file") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return pixels.reshape(*pixels.shape[:2], num_channels)
