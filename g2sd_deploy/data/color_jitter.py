"""Batched colour jitter: brightness, contrast and saturation of each image, in an order of its own."""

from itertools import permutations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

NUM_JITTER_DRAWS = 4
ORDERS = tuple(permutations(range(3)))  # 0 brightness, 1 contrast, 2 saturation
GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue, ITU-R BT.601 as torchvision rounds them


def color_jitter(
    images: Float[Tensor, "batch channels height width"], draws: Float64[np.ndarray, "batch 4"], strength: float
) -> Float[Tensor, "batch channels height width"]:
    """Change brightness, contrast and saturation by random factors in a random order, cutting off at 0 and 1 after each step.

    Each step is a blend with a darker or greyer image: black, the image's mean grey, or the grey image.

    Args:
        images: In [0, 1]; RGB, or grey, which has no saturation to change.
        draws: Uniform numbers in [0, 1): order, then the factors of brightness, contrast and saturation.
        strength: Factors lie in [max(0, 1 - strength), 1 + strength].

    Source: pytorch/vision, torchvision/transforms/v2/_color.py, ColorJitter(s, s, s).
    """
    low = max(0.0, 1.0 - strength)
    factors = low + draws[:, 1:] * (1.0 + strength - low)
    orders = np.array(ORDERS)[(draws[:, 0] * len(ORDERS)).astype(np.int64)]
    jittered = images.clone()
    for step in range(3):
        which = orders[:, step]
        factor = torch.from_numpy(factors[np.arange(len(draws)), which]).to(images)
        _blend(jittered, torch.from_numpy(which).to(images.device).view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1))
    return jittered


def _blend(images: Tensor, which: Tensor, factor: Tensor) -> None:
    """One step of every sample, in place: `factor` times the image plus 1 - factor times what its operation blends with."""
    grey = images
    if images.shape[1] == 3:
        red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
        grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    base = torch.where(which == 2, grey, torch.where(which == 1, grey.mean(dim=(2, 3), keepdim=True), 0.0))
    images.mul_(factor).add_(base * (1 - factor)).clamp_(0.0, 1.0)
