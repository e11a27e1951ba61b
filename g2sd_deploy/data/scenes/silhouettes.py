"""The silhouette of a garment, from its grey picture on black ground."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from scipy import ndimage

DARK = 8
"""Brightest grey that counts as ground: Fashion-MNIST's ground is 0, with a faint haze around some garments."""
LEAST_SHARE = 0.9
"""Share of the bright pixels that the largest connected part has to hold; less is a picture in pieces (a sole apart from its shoe)."""
LEAST_PX = 100
"""Pixels that a silhouette has to have, of 784; less is a sole or a strap seen from its edge."""
_IN_PICTURE = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]).astype(bool)  # neighbours, also at corners; no other picture
_SIDES_ONLY = np.stack([np.zeros((3, 3)), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3))]).astype(bool)


@dataclass(frozen=True)
class Silhouettes:
    """Silhouettes of many pictures.

    Attributes:
        masks: True where the garment is.
        usable: False where the picture gives none that can be trusted.
    """

    masks: Bool[np.ndarray, "num height width"]
    usable: Bool[np.ndarray, " num"]


def silhouettes_of(pictures: UInt8[np.ndarray, "num height width"]) -> Silhouettes:
    """The largest connected part brighter than the ground, with its holes filled (prints and stripes as black as the ground, handles)."""
    bright = pictures > DARK
    largest, share = _largest_part(bright)
    masks = _filled(largest)
    return Silhouettes(masks, (share >= LEAST_SHARE) & (masks.sum((1, 2)) >= LEAST_PX))


def _largest_part(
    bright: Bool[np.ndarray, "num height width"],
) -> tuple[Bool[np.ndarray, "num height width"], Float64[np.ndarray, " num"]]:
    """The largest connected part of each picture (the first of equals), and its share of the bright pixels; 0 where nothing is bright."""
    parts, num_parts = ndimage.label(bright, _IN_PICTURE)
    sizes = np.bincount(parts.ravel(), minlength=num_parts + 1)
    sizes[0] = 0
    best: Int64[np.ndarray, " num"] = np.zeros(len(bright), np.int64)
    for picture, part in zip(_picture_of(parts, num_parts), range(1, num_parts + 1), strict=True):
        if sizes[part] > sizes[best[picture]]:
            best[picture] = part
    num_bright = bright.sum((1, 2))
    return (parts == best[:, None, None]) & bright, sizes[best] / np.maximum(num_bright, 1)


def _picture_of(parts: np.ndarray, num_parts: int) -> Int64[np.ndarray, " parts"]:
    """Picture in which each part lies."""
    owner = np.zeros(num_parts + 1, np.int64)
    where = np.nonzero(parts)
    owner[parts[where]] = where[0]
    return owner[1:]


def _filled(masks: Bool[np.ndarray, "num height width"]) -> Bool[np.ndarray, "num height width"]:
    """Everything that the ground around the picture cannot reach, side by side."""
    ground = np.pad(~masks, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    parts, num_parts = ndimage.label(ground, _SIDES_ONLY)
    outer = np.zeros(num_parts + 1, bool)
    outer[parts[:, 0, 0]] = True
    filled: Bool[np.ndarray, "num height width"] = ~outer[parts][:, 1:-1, 1:-1]
    return filled
