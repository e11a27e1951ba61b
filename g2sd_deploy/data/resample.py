"""Separable resizing of one box per image, equal to Pillow's: antialiased, and blind to pixels outside the box."""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]
RADIUS: dict[Interpolation, int] = {"bilinear": 1, "bicubic": 2}


def resize_weights(
    starts: Int64[np.ndarray, "batch"],
    lengths: Int64[np.ndarray, "batch"],
    size: int,
    image_px: int,
    interpolation: Interpolation,
    device: torch.device,
) -> Float[Tensor, "batch {image_px} {size}"]:
    """Weights that resize the pixels [start, start + length) of an axis of `size` pixels to `image_px` pixels; rows sum to 1.

    Only the few pixels under the filter are computed. Their number follows from the sizes, not from the boxes, so that a sample's
    weights do not depend on the batch around it.

    Source: python-pillow/Pillow, src/libImaging/Resample.c (triangle; Keys' cubic with a = -0.5). Differs: float weights; Pillow
    rounds to 8 bits after each axis.
    """
    widest = RADIUS[interpolation] * max(1.0, size / image_px)
    num_taps = min(size, 2 * math.ceil(widest) + 1)
    scales = (lengths / image_px)[:, None]
    centres = starts[:, None] + (np.arange(image_px) + 0.5) * scales
    first = np.clip(np.floor(centres - widest).astype(np.int64), 0, size - num_taps)
    taps = first[:, :, None] + np.arange(num_taps)
    inside = (taps >= starts[:, None, None]) & (taps < (starts + lengths)[:, None, None])
    weights = _kernel((taps + 0.5 - centres[:, :, None]) / np.maximum(scales, 1.0)[:, :, None], interpolation) * inside
    weights /= weights.sum(axis=2, keepdims=True)
    dense = torch.zeros(len(starts), image_px, size, device=device)
    return dense.scatter_(2, torch.from_numpy(taps).to(device), torch.from_numpy(weights.astype(np.float32)).to(device))


def _kernel(x: Float64[np.ndarray, "..."], interpolation: Interpolation) -> Float64[np.ndarray, "..."]:
    """The filter at a distance of x pixels of the coarser grid. Source: Keys 1981, doi 10.1109/TASSP.1981.1163711 (cubic)."""
    x = np.abs(x)
    match interpolation:
        case "bilinear":
            return np.maximum(0.0, 1.0 - x)
        case "bicubic":
            near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
            return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
