"""Batched augmentation: per-sample random resized crop and flip, and mixing of images and labels within a batch."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from g2sd_deploy.data.boxes import NUM_SHAPE_DRAWS, first_fitting_shape, placed
from g2sd_deploy.data.resample import resize_weights
from g2sd_deploy.settings import AugmentSettings, MixSettings

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


def crop_boxes(draws: Float64[np.ndarray, "batch 23"], settings: AugmentSettings, size: tuple[int, int]) -> Int64[np.ndarray, "batch 4"]:
    """Top, left, height and width of each crop in pixels: the first of ten shapes that fits, else the largest central one.

    Args:
        draws: As for `random_resized_crop`.
        settings: Ranges of area and ratio.
        size: Height and width of the images.
    """
    shape_draws = np.concatenate([draws[:, :2], draws[:, 5:]], axis=1)
    shapes = first_fitting_shape(shape_draws, settings.crop_scale, settings.crop_ratio, size, largest=size)
    tops, lefts = placed(draws[:, 3], shapes.heights, size[0]), placed(draws[:, 2], shapes.widths, size[1])
    height, width = _central_shape(size, settings.crop_ratio)
    central = np.array([(size[0] - height) // 2, (size[1] - width) // 2, height, width])
    return np.where(shapes.fitted[:, None], np.stack([tops, lefts, shapes.heights, shapes.widths], axis=1), central)


def _central_shape(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the largest crop whose aspect ratio is allowed."""
    height, width = size
    if width / height < ratio[0]:
        return max(1, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, max(1, round(height * ratio[1]))
    return height, width


@dataclass(frozen=True)
class Mixed:
    """Images mixed in pairs (first with last), and the labels' weights."""

    images: Float[Tensor, "batch channels height width"]
    targets: Float[Tensor, "batch classes"]


def mix_batch(
    images: Float[Tensor, "batch channels height width"],
    targets: Float[Tensor, "batch classes"],
    settings: MixSettings,
    rng: np.random.Generator,
) -> Mixed:
    """Mixup or CutMix of a batch with its own reverse.

    Args:
        images: Normalised images.
        targets: Soft labels, rows sum to 1.
        settings: Alphas of the two Beta distributions; 0 turns one off.
        rng: Generator of this step.

    Source: arXiv 1710.09412 (mixup), arXiv 1905.04899 (CutMix); one of the two per batch at even odds and pairing with the reversed batch
    as in huggingface/pytorch-image-models, timm/data/mixup.py (mode batch, probability 1, corrected lambda).
    """
    use_cutmix = settings.cutmix > 0 and (settings.mixup == 0 or rng.random() < 0.5)
    alpha = settings.cutmix if use_cutmix else settings.mixup
    if alpha == 0:
        return Mixed(images, targets)
    share = float(rng.beta(alpha, alpha))
    if use_cutmix:
        top, bottom, left, right = _cut_box(images.shape[2], images.shape[3], share, rng)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
        share = 1.0 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    else:
        mixed = images * share + images.flip(0) * (1 - share)
    return Mixed(mixed, targets * share + targets.flip(0) * (1 - share))


def _cut_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box around a random centre that covers 1 - share of the image where it fits.

    Source: timm 1.0.31, timm/data/mixup.py, rand_bbox. Differs from timm 1.0.20 and older, which cut one pixel off every odd side.
    """
    side = np.sqrt(1.0 - share)
    cut_h, cut_w = int(height * side), int(width * side)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = np.clip([y - cut_h // 2, y + (cut_h + 1) // 2], 0, height)
    left, right = np.clip([x - cut_w // 2, x + (cut_w + 1) // 2], 0, width)
    return int(top), int(bottom), int(left), int(right)
