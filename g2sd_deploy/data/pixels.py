"""One training image: from its file, or from stored pixels, to a random crop of the network's size, as 8-bit numbers all the way.

JPEGs (nearly all training images) are decoded by simplejpeg, whose libjpeg-turbo gives the same pixels as Pillow's, in about two thirds of
its time; everything else, and every JPEG that simplejpeg finds fault with, is left to Pillow. Crops are resized by torch's 8-bit filters,
in a third of Pillow's time; of photographs they are those of Pillow up to 2 of 255 levels, for torch rounds its weights to fewer bits and
always takes the axes in one order.
"""

import io
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
import torch
from jaxtyping import Float64, Int64, UInt8
from PIL import Image
from torch.nn.functional import interpolate

from g2sd_deploy.data.augment import crop_boxes
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.errors import UserError
from g2sd_deploy.settings import AugmentSettings
from g2sd_export.edge.preprocess import DECODE_ERRORS, convert_image

_JPEG = b"\xff\xd8\xff"
_KEPT_BYTES = 3 * 2048 * 2048
"""Largest decoded image whose memory is used again for the next one, which spares the kernel from handing out and clearing pages."""

_kept = threading.local()


@dataclass(frozen=True)
class Opened:
    """An image whose size is known and whose pixels are still to be decoded.

    Attributes:
        size: Height and width in pixels.
        decode: Gives the pixels, H W C, valid until the thread decodes its next image; raises BadImage.
    """

    size: tuple[int, int]
    decode: Callable[[], UInt8[np.ndarray, "H W C"]]


def crop_sample(
    stored: bytes | UInt8[np.ndarray, "H W C"],
    draws: Float64[np.ndarray, "23"],
    augment: AugmentSettings,
    image_px: int,
    num_channels: int,
) -> UInt8[np.ndarray, "{image_px} {image_px} {num_channels}"]:
    """Decode, random resized crop and flip of one image.

    Args:
        stored: An image file, or decoded pixels.
        draws: As for `random_resized_crop`.
        augment: Ranges of area and ratio, filter, flip.
        image_px: Side of the result.
        num_channels: 1 (grey) or 3 (RGB); images are converted.

    Raises:
        BadImage: It cannot be decoded; the text says why.

    Source: pytorch/vision, torchvision/transforms/transforms.py, RandomResizedCrop.
    """
    opened = open_sample(stored, num_channels)
    box = crop_boxes(draws[None], augment, opened.size)[0]
    return cut(opened, box, augment, image_px, mirrored=is_mirrored(draws, augment))


def is_mirrored(draws: Float64[np.ndarray, "23"], augment: AugmentSettings) -> bool:
    """Whether these draws mirror an image; the rule of `random_resized_crop`."""
    return augment.flip and bool(draws[4] < 0.5)


def open_sample(stored: bytes | UInt8[np.ndarray, "H W C"], num_channels: int) -> Opened:
    """Find out an image's size, which is cheap, so that the boxes of a whole batch can be computed at once.

    Raises:
        BadImage: It is no image, or too large.
    """
    mode: Literal["L", "RGB"] = "L" if num_channels == 1 else "RGB"
    if not isinstance(stored, bytes):
        return Opened((stored.shape[0], stored.shape[1]), lambda: _with_channels(stored, mode))
    if not stored:
        raise BadImage("the file is empty")
    return _open_jpeg(stored, mode) or _open_by_pillow(stored, mode)


def cut(
    opened: Opened, box: Int64[np.ndarray, "4"], augment: AugmentSettings, image_px: int, *, mirrored: bool
) -> UInt8[np.ndarray, "{image_px} {image_px} C"]:
    """Decode an image and resize a box of it (top, left, height, width) to a square.

    Raises:
        BadImage: It cannot be decoded.
    """
    top, left, height, width = box.tolist()
    part = np.array(opened.decode()[top : top + height, left : left + width], order="C")
    planes = torch.from_numpy(part).permute(2, 0, 1)[None]
    resized = interpolate(planes, (image_px, image_px), mode=augment.interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
    return resized[:, ::-1] if mirrored else resized


def _open_jpeg(data: bytes, mode: Literal["L", "RGB"]) -> Opened | None:
    """A colour or grey JPEG without a fault; None where Pillow has to judge."""
    if not data.startswith(_JPEG):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in ("YCbCr", "RGB", "Gray"):
        return None
    _check_size(height, width)
    decoded_as = "GRAY" if mode == "L" and colours == "Gray" else "RGB"  # Pillow's grey is made of RGB, not JPEG's own luminance

    def decode() -> UInt8[np.ndarray, "H W C"]:
        size = height * width * (3 if decoded_as == "RGB" else 1)
        try:
            pixels = simplejpeg.decode_jpeg(data, colorspace=decoded_as, buffer=_kept_memory(size) if size <= _KEPT_BYTES else None)
        except ValueError:  # a fault that Pillow may forgive, by the same rules as everywhere else
            return _open_by_pillow(data, mode).decode()
        return _with_channels(pixels, mode)

    return Opened((height, width), decode)


def _kept_memory(size: int) -> UInt8[np.ndarray, "{size}"]:
    """This thread's memory for one decoded image; overwritten by the next."""
    memory: np.ndarray | None = getattr(_kept, "memory", None)
    if memory is None or len(memory) < size:
        memory = _kept.memory = np.empty(size, np.uint8)
    return memory[:size]


def _open_by_pillow(data: bytes, mode: Literal["L", "RGB"]) -> Opened:
    """Any image that Pillow can read, converted as at test time."""
    try:
        with warnings.catch_warnings(action="ignore"):  # on metadata, and on images that are large and not yet too large
            image = Image.open(io.BytesIO(data))
    except DECODE_ERRORS as error:
        raise _bad(error) from error
    _check_size(image.height, image.width)

    def decode() -> UInt8[np.ndarray, "H W C"]:
        try:
            with warnings.catch_warnings(action="ignore"):
                image.load()
                return _array(convert_image(image, mode))
        except DECODE_ERRORS as error:
            raise _bad(error) from error
        except UserError as error:
            raise BadImage(str(error)) from error

    return Opened((image.height, image.width), decode)


def _bad(error: Exception) -> BadImage:
    if isinstance(error, Image.DecompressionBombError):
        return BadImage(f"it has more than {_most_pixels():,} pixels, Pillow's limit against decompression bombs")
    return BadImage(f"it cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})")


def _most_pixels() -> int:
    """Pixels above which Pillow refuses an image: twice those from which on it warns."""
    return sys.maxsize if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _check_size(height: int, width: int) -> None:
    if height * width > _most_pixels():
        raise BadImage(f"it has {width:,} x {height:,} pixels, more than Pillow's limit of {_most_pixels():,} against decompression bombs")


def _with_channels(pixels: UInt8[np.ndarray, "H W C"], mode: Literal["L", "RGB"]) -> UInt8[np.ndarray, "H W _"]:
    """Grey or RGB pixels in the other of the two, where that is wanted."""
    if pixels.shape[2] == (3 if mode == "RGB" else 1):
        return pixels
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    return _array(image.convert(mode))


def _array(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
