"""Answers as files and as JSON: a map of classes as a PNG whose palette shows it, masks as run lengths."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .palette import colours


def classes_png(classes: npt.NDArray[np.uint8]) -> bytes:
    """A map of classes as a PNG: each pixel's value is its class, and its palette gives that class's colour (255 is white).

    Args:
        classes: uint8 [h, w].
    """
    image = Image.frombytes("P", classes.shape[::-1], np.ascontiguousarray(classes).tobytes())
    table = colours(256)
    table[255] = 255
    image.putpalette(table.tobytes())
    return _png(image)


def picture_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [h, w, 3] as a PNG."""
    return _png(Image.fromarray(picture))


def run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as COCO writes it uncompressed: ``size`` [rows, columns] and ``counts``, the lengths of runs down the columns, False first."""
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate([[0], changes, [mask.size]])
    counts = np.diff(ends)
    return {"size": [int(side) for side in mask.shape], "counts": [int(count) for count in (counts[:-1] if counts[-1] == 0 else counts)]}


def mask_from_run_lengths(values: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """bool [rows, columns]: the inverse of ``run_lengths``."""
    counts = values["counts"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(values["size"], order="F")


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
