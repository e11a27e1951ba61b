"""Batched augmentation: per-sample random resized crop and flip."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from g2sd_deploy.data.boxes import NUM_SHAPE_DRAWS, first_fitting_shape, of_each, placed
from g2sd_deploy.data.resample import resize_weights
from g2sd_deploy.settings import AugmentSettings

NUM_CROP_DRAWS = 3 + NUM_SHAPE_DRAWS


def random_resized_crop(
    images: Float[Tensor, "batch channels height width"],
    draws: Float64[np.ndarray, "batch 23"],
    settings: AugmentSettings,
    image_px: int,
) -> Float[Tensor, "batch channels {image_px} {image_px}"]:
    """Crop each image by its own draws, resize to image_px and flip.

    Args:
        images: In [0, 1]; what the bicubic filter overshoots is cut off there after each axis, as Pillow does.
        draws: Uniform numbers in [0, 1): area and aspect ratio of the first attempt, horizontal and vertical place, flip, then area and
            aspect ratio of nine further attempts, used where the crops before them do not fit into the image.
        settings: Ranges of area and ratio, filter, flip.
        image_px: Side of the result.

    Source: arXiv 1409.4842; pytorch/vision, torchvision/transforms/transforms.py, RandomResizedCrop (rejection, and what is cropped where
    ten attempts fail). Differs: no rounding to 8 bits.
    """
    height, width = images.shape[2:]
    tops, lefts, heights, widths = crop_boxes(draws, settings, (height, width)).T
    down = resize_weights(tops, heights, height, image_px, settings.interpolation, images.device)
    across = resize_weights(lefts, widths, width, image_px, settings.interpolation, images.device)
    mirrored = torch.from_numpy((draws[:, 4] < 0.5) & settings.flip).to(images.device)
    across = torch.where(mirrored[:, None, None], across.flip(1), across)
    narrow = torch.bmm(images.flatten(1, 2), across.mT).view(*images.shape[:3], image_px)
    if settings.interpolation == "bilinear":
        return torch.matmul(down.unsqueeze(1), narrow)
    return torch.matmul(down.unsqueeze(1), narrow.clamp_(0.0, 1.0)).clamp_(0.0, 1.0)


def crop_boxes(
    draws: Float64[np.ndarray, "batch 23"], settings: AugmentSettings, size: tuple[int, int] | Int64[np.ndarray, "batch 2"]
) -> Int64[np.ndarray, "batch 4"]:
    """Top, left, height and width of each crop in pixels: the first of ten shapes that fits, else the largest central one.

    Args:
        draws: As for `random_resized_crop`.
        settings: Ranges of area and ratio.
        size: Height and width of the images, of all or of each.
    """
    sizes = of_each(size, len(draws))
    shape_draws = np.concatenate([draws[:, :2], draws[:, 5:]], axis=1)
    shapes = first_fitting_shape(shape_draws, settings.crop_scale, settings.crop_ratio, sizes, largest=sizes)
    tops, lefts = placed(draws[:, 3], shapes.heights, sizes[:, 0]), placed(draws[:, 2], shapes.widths, sizes[:, 1])
    central = _central_shapes(sizes, settings.crop_ratio)
    fitted = np.stack([tops, lefts, shapes.heights, shapes.widths], axis=1)
    return np.where(shapes.fitted[:, None], fitted, np.concatenate([(sizes - central) // 2, central], axis=1))


def _central_shapes(sizes: Int64[np.ndarray, "batch 2"], ratio: tuple[float, float]) -> Int64[np.ndarray, "batch 2"]:
    """Height and width of the largest crop of each image whose aspect ratio is allowed."""
    heights, widths = sizes.T
    allowed_heights = np.maximum(1, np.rint(widths / ratio[0])).astype(np.int64)
    allowed_widths = np.maximum(1, np.rint(heights * ratio[1])).astype(np.int64)
    too_tall, too_wide = widths / heights < ratio[0], widths / heights > ratio[1]
    return np.stack([np.where(too_tall, allowed_heights, heights), np.where(too_wide, allowed_widths, widths)], axis=1)
