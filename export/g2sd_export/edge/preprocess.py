"""From an image file to the network's input: the only place that knows how pixels are prepared.

Training, evaluation, parity, latency and the device call these functions, so no two of them can disagree.
Shape letters: B images, H rows, W columns, C channels (1 grey or 3 RGB).
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import UserError

Interpolation = Literal["bicubic", "bilinear"]

# A 1 x 100000 strip would be enlarged to gigabytes before the crop throws nearly all of it away.
MAX_RESIZED_PIXELS = 50_000_000

# What Pillow's decoders raise on damaged files (UnidentifiedImageError is an OSError).
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    Attributes:
        image_px: Side of the square network input.
        resize_px: Short side after the resize and before the centre crop; at least ``image_px``.
        num_channels: 1 (grey) or 3 (RGB).
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255; above 0.
        interpolation: Filter of the resize.

    Raises:
        UserError: A value lies outside its range.
    """

    image_px: int
    resize_px: int
    num_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if self.image_px < 1:
            raise UserError(f"preprocessing: image_px is {self.image_px}; it must be at least 1")
        if self.resize_px < self.image_px:
            raise UserError(f"preprocessing: resize_px is {self.resize_px}; it must be at least image_px ({self.image_px})")
        if self.num_channels not in (1, 3):
            raise UserError(f"preprocessing: num_channels is {self.num_channels}; it must be 1 (grey) or 3 (RGB)")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.num_channels or not all(math.isfinite(value) for value in values):
                raise UserError(f"preprocessing: {key} is {list(values)}; it must hold {self.num_channels} finite numbers, one per channel")
        if min(self.std) <= 0:
            raise UserError(f"preprocessing: std is {list(self.std)}; every value must be above 0")

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, in the order of the fields; the inverse of ``from_dict``."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what ``to_dict`` wrote.

        Raises:
            UserError: A key is missing, unknown or of the wrong type, or a value lies outside its range.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if wrong := sorted(set(values) ^ fields):
            raise UserError(f"preprocessing: missing or unknown keys {', '.join(wrong)}; the keys are {', '.join(sorted(fields))}")
        for key in ("image_px", "resize_px", "num_channels"):
            if type(values[key]) is not int:
                raise UserError(f"preprocessing: {key} is {values[key]!r}; it must be a whole number")
        if values["interpolation"] not in get_args(Interpolation):
            wanted = " or ".join(get_args(Interpolation))
            raise UserError(f"preprocessing: interpolation is {values['interpolation']!r}; it must be {wanted}")
        return cls(
            image_px=values["image_px"],
            resize_px=values["resize_px"],
            num_channels=values["num_channels"],
            mean=_numbers("mean", values["mean"]),
            std=_numbers("std", values["std"]),
            interpolation=values["interpolation"],
        )


def load_image(source: str | os.PathLike[str] | bytes | bytearray | memoryview, pre: Preprocessing) -> npt.NDArray[np.uint8]:
    """Decode an image file and cut it to the network's size.

    Args:
        source: A path, or the bytes of an encoded image.
        pre: Size, channels and filter wanted.

    Returns:
        uint8 [H, W, C], H = W = ``pre.image_px``. EXIF orientation is ignored, as in the training sets' published results.

    Raises:
        UserError: The file is missing or cannot be decoded; the message names it.
    """
    in_memory = isinstance(source, (bytes, bytearray, memoryview))
    name = "the image in memory" if in_memory else os.fspath(source)  # type: ignore[arg-type]
    if not in_memory and not Path(name).is_file():
        raise UserError(f"{name}: no such image file; give the path of a JPEG, PNG or other image")
    try:
        with Image.open(io.BytesIO(source) if in_memory else name) as image:  # type: ignore[arg-type]
            image.load()
            return fit_image(image, pre)
    except DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: cannot be decoded as an image ({reason}); replace or remove the file") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def fit_image(image: Image.Image, pre: Preprocessing) -> npt.NDArray[np.uint8]:
    """Convert to grey or RGB, resize the short side to ``resize_px``, crop the centre ``image_px`` square.

    Args:
        image: Any Pillow mode except floating point; an alpha channel is dropped.
        pre: Size, channels and filter wanted.

    Returns:
        uint8 [H, W, C], H = W = ``pre.image_px``.

    Raises:
        UserError: Floating-point pixels, or an image too narrow to be resized.

    Differs: nothing from torchvision's ``Resize(resize_px)`` and ``CenterCrop(image_px)``; a test holds them equal.
    """
    image = convert_image(image, "L" if pre.num_channels == 1 else "RGB")
    width, height = image.size
    short = min(width, height)
    if short != pre.resize_px:
        new_width, new_height = (pre.resize_px if side == short else int(pre.resize_px * side / short) for side in (width, height))
        if new_width * new_height > MAX_RESIZED_PIXELS:
            raise UserError(f"the image of {width} x {height} pixels is too narrow to be resized to a short side of {pre.resize_px}")
        image = image.resize((new_width, new_height), Image.Resampling[pre.interpolation.upper()])
    left, top = (round((side - pre.image_px) / 2) for side in image.size)
    pixels = np.asarray(image.crop((left, top, left + pre.image_px, top + pre.image_px)), dtype=np.uint8)
    return pixels.reshape(pre.image_px, pre.image_px, pre.num_channels)


def normalise(images: npt.NDArray[np.uint8], pre: Preprocessing) -> npt.NDArray[np.float32]:
    """The network's input: (pixel / 255 - mean) / std, channels first.

    Args:
        images: uint8 [B, H, W, C].
        pre: Mean and standard deviation per channel.

    Returns:
        float32 [B, C, H, W], contiguous, dimensionless.

    Raises:
        ValueError: The images are not uint8 of the size that ``pre`` asks for.
    """
    check_images(images, pre)
    unit = images.transpose(0, 3, 1, 2).astype(np.float32, order="C") / np.float32(255)
    unit -= np.asarray(pre.mean, dtype=np.float32)[:, None, None]
    unit /= np.asarray(pre.std, dtype=np.float32)[:, None, None]
    return unit


def check_images(images: npt.NDArray[np.uint8], pre: Preprocessing) -> None:
    """Raise ValueError unless the images are uint8 [B, H, W, C] of the size that ``pre`` asks for."""
    wanted = (pre.image_px, pre.image_px, pre.num_channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}; wanted uint8 [batch, {', '.join(map(str, wanted))}]")


def convert_image(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Eight bits per channel in ``mode``; Pillow alone would clip 16-bit pixels to white instead of scaling them.

    Args:
        image: Any Pillow mode; an alpha channel is dropped.
        mode: ``L`` (grey) or ``RGB``.

    Raises:
        UserError: Floating-point pixels.
    """
    if image.mode == "F":
        raise UserError("floating-point pixels have no agreed range; save the image with 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) / 257 + 0.5).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _numbers(key: str, values: object) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or not all(type(value) in (int, float) for value in values):
        raise UserError(f"preprocessing: {key} is {values!r}; it must be a list of numbers, one per channel")
    return tuple(float(value) for value in values)
