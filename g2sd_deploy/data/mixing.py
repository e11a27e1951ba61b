"""Mixup and CutMix of neighbours, on draws that the caller supplies."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from scipy.special import betaincinv
from torch import Tensor

from g2sd_deploy.settings import MixSettings

NUM_MIX_DRAWS = 4


@dataclass(frozen=True)
class Mixed:
    """Images mixed in pairs of neighbours (first with second, third with fourth), and the labels' weights."""

    images: Float[Tensor, "batch channels height width"]
    targets: Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class Cuts:
    """What a pair takes of its partner: rows, columns and, whole pixels counted, the share of its own that is left."""

    tops: Float64[np.ndarray, "pairs"]
    bottoms: Float64[np.ndarray, "pairs"]
    lefts: Float64[np.ndarray, "pairs"]
    rights: Float64[np.ndarray, "pairs"]
    kept: Float64[np.ndarray, "pairs"]


def mix_pairs(
    images: Float[Tensor, "batch channels height width"],
    targets: Float[Tensor, "batch classes"],
    settings: MixSettings,
    draws: Float64[np.ndarray, "pairs 4"],
) -> Mixed:
    """Mixup or CutMix of each image with its neighbour; the last of an odd batch is left as it is.

    Pairs and their draws do not depend on the batch around them, so a batch that is cut between pairs is mixed as it is in one piece.

    Args:
        images: Normalised images.
        targets: Soft labels, rows sum to 1.
        settings: Alphas of the two Beta distributions; 0 turns one off.
        draws: Uniform numbers in [0, 1) of each pair: which of the two, the share, and the row and column of CutMix's centre.

    Source: arXiv 1710.09412 (mixup), arXiv 1905.04899 (CutMix); one of the two at even odds as in
    huggingface/pytorch-image-models, timm/data/mixup.py (mode pair, probability 1, corrected lambda).
    Differs: MAE and G2SD use timm's mode batch: one share for all images of a GPU's batch, paired with that batch reversed.
    """
    if settings.mixup == 0 and settings.cutmix == 0:
        return Mixed(images, targets)
    num, height, width = len(images), images.shape[2], images.shape[3]
    cuts_out: Bool[np.ndarray, "pairs"] = np.full(len(draws), settings.mixup == 0)
    if settings.mixup > 0 and settings.cutmix > 0:
        cuts_out = draws[:, 0] < 0.5
    alphas = np.where(cuts_out, settings.cutmix, settings.mixup)
    shares = betaincinv(alphas, alphas, draws[:, 1])
    cuts = _cuts(shares, draws, (height, width))
    partner = torch.from_numpy(np.minimum(np.arange(num) ^ 1, num - 1)).to(images.device, non_blocking=True)
    own = torch.from_numpy(np.where(cuts_out, cuts.kept, shares)).to(images, non_blocking=True).repeat_interleave(2)[:num, None]
    weights = own[:, :, None, None]
    if cuts_out.any():
        weights = torch.where(_per_image(cuts_out, images).bool(), _outside(cuts, images), weights)
    mixed = torch.lerp(images[partner], images, weights)
    return Mixed(mixed, torch.lerp(targets[partner], targets, own.to(targets)))


def _cuts(shares: Float64[np.ndarray, "pairs"], draws: Float64[np.ndarray, "pairs 4"], size: tuple[int, int]) -> Cuts:
    """A box around a random centre that covers 1 - share of the image where it fits.

    Source: timm 1.0.31, timm/data/mixup.py, rand_bbox. Differs from timm 1.0.20 and older, which cut one pixel off every odd side.
    """
    sides = np.sqrt(1.0 - shares)
    ends = []
    for length, place in zip(size, (draws[:, 2], draws[:, 3]), strict=True):
        cut, centre = np.floor(length * sides), np.floor(length * place)
        ends += [np.clip(centre - cut // 2, 0, length), np.clip(centre + (cut + 1) // 2, 0, length)]
    top, bottom, left, right = ends
    return Cuts(top, bottom, left, right, 1.0 - (bottom - top) * (right - left) / (size[0] * size[1]))


def _outside(cuts: Cuts, images: Tensor) -> Float[Tensor, "batch 1 height width"]:
    """1 where an image keeps its own pixel, 0 in the box."""
    rows = torch.arange(images.shape[2], device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(images.shape[3], device=images.device).view(1, 1, 1, -1)
    top, bottom, left, right = (_per_image(ends, images) for ends in (cuts.tops, cuts.bottoms, cuts.lefts, cuts.rights))
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return (~inside).to(images.dtype)


def _per_image(values: np.ndarray, images: Tensor) -> Float[Tensor, "batch 1 1 1"]:
    """One number of each pair, for both of its images."""
    return torch.from_numpy(values.astype(np.float32)).to(images, non_blocking=True).repeat_interleave(2)[: len(images)].view(-1, 1, 1, 1)
