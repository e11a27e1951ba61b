"""From a stored image to the bytes of a prepared one."""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, features

from g2sd_deploy.data.images import BadImage
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import DECODE_ERRORS, convert_image

# Formats that every reader of shards knows; MPO is what cameras make of a JPEG with a preview behind it.
KEPT_FORMATS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
TOO_MANY_PIXELS = "too many pixels"


@dataclass(frozen=True)
class Encoding:
    """How images are stored.

    Attributes:
        short_side: Larger images are resized to this short side, in pixels; None keeps every size.
        quality: JPEG quality of what was resized, 1 to 100.
    """

    short_side: int | None
    quality: int


@dataclass(frozen=True)
class Encoded:
    """One prepared image: the bytes of a file, and the suffix of its format without a dot."""

    data: bytes
    suffix: str


def encoder_version() -> str:
    """What the bytes of a resized image depend on, beside the options."""
    return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version_feature('libjpeg_turbo') or 'absent'}"


def open_image(data: bytes) -> Image.Image:
    """The image of a file's bytes, decoded in full.

    Raises:
        BadImage: There are no bytes, or they cannot be decoded.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and of many pixels: neither keeps an image from being used
            image = Image.open(io.BytesIO(data))
            image.load()
    except (*DECODE_ERRORS, MemoryError) as error:
        raise BadImage(reason_of(error)) from None
    return image


def reason_of(error: BaseException) -> str:
    """What a decoder says, in one line and without the address of the buffer."""
    text = " ".join(str(error).split())
    if isinstance(error, Image.DecompressionBombError) and (pixels := re.search(r"\d+", text)) and Image.MAX_IMAGE_PIXELS:
        return f"{TOO_MANY_PIXELS}: {int(pixels[0]):,}, and at most {2 * Image.MAX_IMAGE_PIXELS:,} are decoded"
    return "no known image format" if "cannot identify image file" in text else text or type(error).__name__


def encode_image(stored: bytes | UInt8[np.ndarray, "H W C"], encoding: Encoding) -> Encoded:
    """Bring one image to its prepared form.

    A JPEG, PNG or WebP file that is small enough is kept byte for byte. A larger image is converted to grey or RGB with eight bits (as
    everywhere in this package), resized with Pillow's bicubic filter and saved as JPEG with 4:2:0 chroma and optimal Huffman tables.
    Small images of another format, and small pixels, are saved as PNG, without loss. EXIF orientation is ignored, as in training, and
    whatever is saved anew carries no metadata.

    Raises:
        BadImage: It cannot be decoded, or not be saved at that size.
    """
    image = open_image(stored) if isinstance(stored, bytes) else Image.fromarray(stored[..., 0] if stored.shape[2] == 1 else stored)
    smaller = _smaller_size(image.size, encoding.short_side)
    if smaller is None and isinstance(stored, bytes) and image.format in KEPT_FORMATS:
        return Encoded(stored, KEPT_FORMATS[image.format])
    buffer = io.BytesIO()
    try:
        plain = convert_image(image, _target_mode(image.mode))
        if smaller is not None:
            plain = plain.resize(smaller, Image.Resampling.BICUBIC)
        plain.info = {}  # comments and profiles would be written again
        if smaller is None:
            plain.save(buffer, "PNG")
            return Encoded(buffer.getvalue(), "png")
        plain.save(buffer, "JPEG", quality=encoding.quality, subsampling="4:2:0", optimize=True)
    except (*DECODE_ERRORS, MemoryError, UserError) as error:
        raise BadImage(reason_of(error)) from None
    return Encoded(buffer.getvalue(), "jpg")


def _target_mode(mode: str) -> Literal["L", "RGB"]:
    return "L" if mode in ("1", "L", "LA") or mode.startswith("I") else "RGB"


def _smaller_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int] | None:
    """Width and height after the resize, by the rule of `fit_image`; None where the image is small enough."""
    short = min(size)
    if short_side is None or short <= short_side:
        return None
    width, height = (short_side if side == short else int(short_side * side / short) for side in size)
    return width, height
