"""Batched augmentation: per-sample random resized crop and flip, and mixing of images and labels within a batch."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor

from g2sd_deploy.settings import AugmentSettings, MixSettings

NUM_CROP_DRAWS = 5


def random_resized_crop(
    images: Float[Tensor, "batch channels height width"],
    draws: Float64[np.ndarray, "batch 5"],
    settings: AugmentSettings,
    image_px: int,
) -> Float[Tensor, "batch channels {image_px} {image_px}"]:
    """Crop each image by its own draws, resize to image_px bilinearly and flip.

    Args:
        images: Any value range.
        draws: Uniform numbers in [0, 1): area, aspect ratio, horizontal and vertical place, flip.
        settings: Ranges of area and ratio.
        image_px: Side of the result.

    Source: arXiv 1409.4842 (area and ratio). Differs: a crop that would pass the border is shortened on that side instead of drawn again,
    so that one draw decides; resampling does not antialias.
    """
    area, ratio, place_x, place_y, flip = torch.from_numpy(draws).to(images.device, torch.float32).unbind(1)
    low, high = settings.crop_scale
    log_low, log_high = np.log(settings.crop_ratio[0]), np.log(settings.crop_ratio[1])
    area = low + area * (high - low)
    ratio = torch.exp(log_low + ratio * (log_high - log_low))
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    sign = torch.where((flip < 0.5) & settings.flip, -1.0, 1.0)
    zero = torch.zeros_like(width)
    rows = [width * sign, zero, (1 - width) * (2 * place_x - 1), zero, height, (1 - height) * (2 * place_y - 1)]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), images.shape[1], image_px, image_px], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


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
    as in huggingface/pytorch-image-models, timm/data/mixup.py.
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
    """Top, bottom, left and right of a box around a random centre that covers 1 - share of the image where it fits."""
    side = np.sqrt(1.0 - share)
    cut_h, cut_w = int(height * side), int(width * side)
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, bottom = np.clip([y - cut_h // 2, y + cut_h // 2], 0, height)
    left, right = np.clip([x - cut_w // 2, x + cut_w // 2], 0, width)
    return int(top), int(bottom), int(left), int(right)
