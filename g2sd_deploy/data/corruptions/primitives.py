"""Parts that several corruptions share: rounding, clipped zoom, motion blur.

Everything here works on batches [N,H,W,C] in units of grey levels (0 to 255) and treats each image alone,
so a result never depends on its neighbours in the batch.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, UInt8

Bytes: TypeAlias = UInt8[np.ndarray, "n h w c"]
Floats: TypeAlias = Float32[np.ndarray, "n h w c"]
Doubles: TypeAlias = Float64[np.ndarray, "n h w c"]
Levels: TypeAlias = Floats | Doubles | Bytes  # grey levels; what leaves 0..255 is clipped in the end
Generators: TypeAlias = Sequence[np.random.Generator]

_ROUNDING = 1e-3  # grey levels; a flat area must not lose a level because 0.1 * 10 is not 1


def uint8_from_levels(levels: Levels) -> Bytes:
    """Clip to 0..255 and truncate, as the published scripts do (``np.uint8``), with a margin for rounding error."""
    return np.clip(levels.astype(np.float64) + _ROUNDING, 0, 255).astype(np.uint8)


def _lerp_along(images: Float32[np.ndarray, "..."], axis: int, positions: Float64[np.ndarray, " out"]) -> Float32[np.ndarray, "..."]:
    """Linear interpolation of ``images`` at ``positions`` (in pixels, inside the image) along one axis."""
    low = np.minimum(positions.astype(np.intp), images.shape[axis] - 2)
    shape = [1] * images.ndim
    shape[axis] = -1
    share = (positions - low).astype(np.float32).reshape(shape)
    below = np.take(images, low, axis=axis)
    above = np.take(images, low + 1, axis=axis)
    return np.asarray(below + share * (above - below))


def clipped_zoom(images: Floats, factor: float) -> Floats:
    """Enlarge the centre of square images [N,H,W,C] by ``factor`` (at least 1) and keep their size."""
    image_px = images.shape[1]
    crop_px = math.ceil(image_px / factor)
    zoomed_px = round(crop_px * factor)
    trim_px = (zoomed_px - image_px) // 2
    steps = np.arange(trim_px, trim_px + image_px)
    positions = (image_px - crop_px) // 2 + steps * ((crop_px - 1) / (zoomed_px - 1))
    return _lerp_along(_lerp_along(images, 1, positions), 2, positions)


def directed_blur(images: Floats, angles_deg: Sequence[float], *, radius: int, sigma: float) -> Floats:
    """One-sided Gaussian streak of ``2 * radius + 1`` pixels, at one angle per image, rounded to whole levels.

    Source: what ImageMagick's MagickMotionBlurImage computes (whole-pixel steps along the line, edge pixels repeated).
    """
    width = 2 * radius + 1
    reach = np.arange(width)
    taps = np.exp(-(reach**2) / (2 * sigma**2))
    taps = (taps / taps.sum()).astype(np.float32)
    padding = width - 1
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="edge")
    height, length = images.shape[1:3]
    blurred = np.zeros_like(images)
    for index, angle in enumerate(np.deg2rad(angles_deg)):
        rows = np.ceil(reach * math.sin(angle) - 0.5).astype(int) + padding
        cols = np.ceil(reach * math.cos(angle) - 0.5).astype(int) + padding
        for tap, row, col in zip(taps, rows.tolist(), cols.tolist(), strict=True):
            blurred[index] += tap * padded[index, row : row + height, col : col + length]
    return np.asarray(np.rint(blurred))
