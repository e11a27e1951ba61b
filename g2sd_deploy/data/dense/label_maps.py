"""Masks whose pixels are numbers of classes: from a PNG file to a semantic map."""

import warnings
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from g2sd_deploy.data.dense.annotations import IGNORED
from g2sd_deploy.data.encoding import open_image
from g2sd_deploy.data.images import BadImage
from g2sd_export.edge.preprocess import DECODE_ERRORS

_MODES = ("1", "L", "P")
_PNG_DEPTH, _PNG_COLOUR, _PNG_GREY = 24, 25, 0


def semantic_map(content: bytes, num_classes: int, *, ignore_zero: bool) -> UInt8[np.ndarray, "h w"]:
    """The classes of a mask.

    Args:
        content: A PNG file, grey or with a palette, whose pixels are numbers.
        num_classes: Numbers from this on (but for IGNORED) are refused.
        ignore_zero: 0 becomes IGNORED, all other numbers one less.

    Raises:
        BadImage: It cannot be decoded, is no such PNG, or holds other numbers.
    """
    values = mask_values(content)
    offset = int(ignore_zero)
    unknown = np.flatnonzero(np.bincount(values.ravel(), minlength=256)[:IGNORED])
    unknown = unknown[unknown >= num_classes + offset]
    if len(unknown):
        raise BadImage(_told(unknown.tolist(), num_classes, ignore_zero=ignore_zero))
    table = np.arange(256, dtype=np.int64) - offset
    table[IGNORED] = IGNORED
    if ignore_zero:
        table[0] = IGNORED
    classes: UInt8[np.ndarray, "h w"] = table.astype(np.uint8)[values]
    return classes


def _told(unknown: list[int], num_classes: int, *, ignore_zero: bool) -> str:
    shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    hint = ""
    if not ignore_zero and unknown == [num_classes]:
        hint = "; if 0 stands for nothing and classes begin with 1, as in ADE20K, set data.ignore_zero"
    return (
        f"its mask has the value {shown}, but {num_classes} class names go from {int(ignore_zero)} to {num_classes - 1 + ignore_zero}{hint}"
    )


def mask_values(content: bytes) -> UInt8[np.ndarray, "h w"]:
    """Numbers of a mask as they are in the file.

    Raises:
        BadImage: It cannot be decoded, or is no grey or palette PNG of at most 8 bits.
    """
    try:
        image = open_image(content)
    except BadImage as bad:
        raise BadImage(f"its mask cannot be decoded ({bad})") from None
    if problem := _kind_problem(image):
        raise BadImage(f"its mask {problem}")
    values = np.asarray(image).astype(np.uint8)
    depth = content[_PNG_DEPTH]
    if content[_PNG_COLOUR] == _PNG_GREY and depth in (2, 4):  # Pillow stretches few grey levels to 0 .. 255
        values //= 255 // (2**depth - 1)
    return values


def kind_problem(content: bytes) -> str | None:
    """Why a file's pixels are no numbers of classes, from its header alone; None where they may be, or where it is no image at all."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return _kind_problem(Image.open(BytesIO(content)))
    except DECODE_ERRORS:
        return None


def _kind_problem(image: Image.Image) -> str | None:
    if image.format != "PNG":
        return f"is {image.format}, whose pixels may not be what was written; save masks as PNG"
    if image.mode not in _MODES:
        kind = "16 bits" if image.mode.startswith("I") else f"colours or transparency ({image.mode})"
        return f"has {kind}; wanted a grey or palette PNG of 8 bits whose pixels are numbers of classes"
    return None
