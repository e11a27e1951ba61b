"""Segmentations of a COCO file as compact bytes, without loss, and back to masks. Nothing is decoded before an image is read."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from g2sd_deploy.data.dense.masks import mask_from_counts, mask_from_polygons, packed_counts
from g2sd_deploy.data.images import BadImage


class Kind(IntEnum):
    """What the bytes of a segmentation are."""

    NONE = 0
    """There is none."""
    HUNDREDTHS = 1
    """Polygons, in hundredths of a pixel as whole numbers."""
    DOUBLES = 2
    """Polygons, in pixels."""
    RUNS = 3
    """Compressed run lengths."""
    BROKEN = 4
    """Why it cannot be used, as text."""


_FEWEST = 6
"""Numbers of a polygon: three corners."""
_FARTHEST = 1e9


def pack(segmentation: object) -> tuple[Kind, bytes]:
    """A segmentation as the file has it, as bytes; what is wrong with it comes back as `Kind.BROKEN`."""
    try:
        if segmentation is None or segmentation == []:
            return Kind.NONE, b""
        if isinstance(segmentation, dict):
            return Kind.RUNS, _packed_runs(segmentation)
        if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
            return _packed_polygons([_numbers(polygon) for polygon in segmentation])
    except BadImage as bad:
        return broken(str(bad))
    return broken("its segmentation is neither a list of polygons nor an object with size and counts")


def broken(reason: str) -> tuple[Kind, bytes]:
    """A segmentation that cannot be used."""
    return Kind.BROKEN, reason.encode()


def mask_of(kind: Kind, data: bytes, size: tuple[int, int]) -> Bool[np.ndarray, "h w"] | None:
    """The mask of what `pack` packed; None where there is no segmentation.

    Args:
        kind: What the bytes are.
        data: The bytes.
        size: Height and width of the image.

    Raises:
        BadImage: It is broken, or of another size than the image.
    """
    match kind:
        case Kind.NONE:
            return None
        case Kind.BROKEN:
            raise BadImage(data.decode())
        case Kind.RUNS:
            height, width = (int(side) for side in np.frombuffer(data, np.int32, 2))
            if (height, width) != size:
                raise BadImage(f"its mask has {width} x {height} pixels, but the image has {size[1]} x {size[0]}")
            return mask_from_counts(data[8:], size)
        case _:
            return mask_from_polygons(_polygons(kind, data), size)


def _numbers(polygon: list[Any]) -> Float64[np.ndarray, " coordinates"]:
    try:
        numbers = np.array(polygon)
    except (ValueError, OverflowError):
        numbers = np.array("")
    if numbers.ndim != 1 or (len(numbers) and numbers.dtype.kind not in "if") or not np.isfinite(numbers.astype(np.float64)).all():
        raise BadImage("a polygon is no list of numbers")
    if len(numbers) % 2 or len(numbers) < _FEWEST:
        raise BadImage(f"a polygon has {len(numbers)} numbers; wanted x, y of each corner, of three corners or more")
    if (reach := np.abs(numbers).max()) > _FARTHEST:
        raise BadImage(f"a polygon reaches to {reach:g}")
    return numbers.astype(np.float64)


def _packed_polygons(polygons: Sequence[Float64[np.ndarray, " coordinates"]]) -> tuple[Kind, bytes]:
    header = np.array([len(polygons), *map(len, polygons)], dtype=np.int32).tobytes()
    flat = np.concatenate(polygons)
    hundredths = np.rint(flat * 100)
    if np.abs(hundredths).max() < 2**31 and (hundredths / 100 == flat).all():
        return Kind.HUNDREDTHS, header + hundredths.astype(np.int32).tobytes()
    return Kind.DOUBLES, header + flat.tobytes()


def _polygons(kind: Kind, data: bytes) -> list[Float64[np.ndarray, " coordinates"]]:
    num = int(np.frombuffer(data, np.int32, 1)[0])
    lengths = np.frombuffer(data, np.int32, num, offset=4)
    body = data[4 * (num + 1) :]
    flat = np.frombuffer(body, np.int32) / 100 if kind is Kind.HUNDREDTHS else np.frombuffer(body, np.float64)
    return np.split(flat, np.cumsum(lengths)[:-1])


def _packed_runs(runs: dict[str, Any]) -> bytes:
    size, counts = runs.get("size"), runs.get("counts")
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int or not 0 < side < 2**15 for side in size):
        raise BadImage(f"its run lengths have the size {size!r:.80}; wanted height and width")
    if isinstance(counts, list):
        packed = packed_counts(counts, (size[0], size[1]))
    elif isinstance(counts, str):
        packed = counts.encode("utf-8", "surrogatepass")
    else:
        raise BadImage("its run lengths have no counts; wanted a text, or a list of numbers")
    return np.array(size, dtype=np.int32).tobytes() + packed
