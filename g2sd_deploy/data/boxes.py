"""Random boxes by rejection, as torchvision and timm draw crops and erased areas, on draws that the caller supplies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

NUM_ATTEMPTS = 10
NUM_SHAPE_DRAWS = 2 * NUM_ATTEMPTS


@dataclass(frozen=True)
class Shapes:
    """Height and width of one box per sample, in pixels; meaningless where nothing fitted."""

    heights: Int64[np.ndarray, "batch"]
    widths: Int64[np.ndarray, "batch"]
    fitted: Bool[np.ndarray, "batch"]


def first_fitting_shape(
    draws: Float64[np.ndarray, "batch 20"],
    area: tuple[float, float],
    ratio: tuple[float, float],
    size: tuple[int, int] | Int64[np.ndarray, "batch 2"],
    *,
    largest: tuple[int, int] | Int64[np.ndarray, "batch 2"],
) -> Shapes:
    """The first of ten random shapes that is at least one pixel and at most `largest` on both sides.

    Args:
        draws: Uniform numbers in [0, 1): area and ratio of the first attempt, of the second, and so on.
        area: Smallest and largest area, as a share of the image; uniform between them.
        ratio: Smallest and largest width over height; uniform in the logarithm.
        size: Height and width of the images in pixels, of all or of each.
        largest: Largest height and width of a box in pixels, of all or of each.

    Source: pytorch/vision, torchvision/transforms/transforms.py, RandomResizedCrop; arXiv 1409.4842.
    """
    attempts = draws.reshape(len(draws), NUM_ATTEMPTS, 2)
    height, width = of_each(size, len(draws)).T[:, :, None]
    most_high, most_wide = of_each(largest, len(draws)).T[:, :, None]
    areas = (area[0] + attempts[:, :, 0] * (area[1] - area[0])) * height * width
    logs = np.log(ratio[0]) + attempts[:, :, 1] * (np.log(ratio[1]) - np.log(ratio[0]))
    ratios = np.exp(logs)
    heights, widths = np.rint(np.sqrt(areas / ratios)).astype(np.int64), np.rint(np.sqrt(areas * ratios)).astype(np.int64)
    fits = (heights > 0) & (widths > 0) & (heights <= most_high) & (widths <= most_wide)
    first = fits.argmax(axis=1)
    rows = np.arange(len(draws))
    return Shapes(heights[rows, first], widths[rows, first], fits.any(axis=1))


def of_each(size: tuple[int, int] | Int64[np.ndarray, "batch 2"], num: int) -> Int64[np.ndarray, "{num} 2"]:
    """Height and width of each of `num` images, also where one size stands for all."""
    return np.broadcast_to(np.asarray(size, dtype=np.int64), (num, 2))


def placed(
    draws: Float64[np.ndarray, "batch"], lengths: Int64[np.ndarray, "batch"], size: int | Int64[np.ndarray, "batch"]
) -> Int64[np.ndarray, "batch"]:
    """First pixel of each box along one axis: every place in which it lies inside the image is equally likely."""
    starts: Int64[np.ndarray, "batch"] = (draws * (size - lengths + 1)).astype(np.int64)
    return starts
