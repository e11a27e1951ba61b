"""Removal of patches from images, to see how much of an image a classifier needs.

Source: arXiv 2105.10497, section 3.1 (PatchDrop: random, salient and non-salient patches); Muzammal-Naseer/IPViT@05e4aac, evaluate.py.
Differs: a removed patch takes the model's mean colour instead of black, so that the network's input is about 0 there, whatever file
computes it; random patches are drawn for each image rather than for each batch; salient patches are counted out, where the authors remove
those that hold a share of the attention.

Shape letters: B images, H rows, W columns, C channels, N patches.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8

from g2sd_deploy.errors import UserError
from g2sd_deploy.randomness import uniform
from g2sd_export.edge.preprocess import Preprocessing

Order = Literal["random", "salient_first", "salient_last"]


def removal_order(
    kind: Order, salience: Float[np.ndarray, "B N"] | None, keys: Int64[np.ndarray, "B"], seed: int, num_patches: int
) -> Int64[np.ndarray, "B N"]:
    """Patches of each image in the order in which they are removed; the shares of one order are nested.

    Args:
        kind: At random, or by salience; patches of equal salience go by their index.
        salience: Importance of each patch; not used by the random order.
        keys: A number of each image that stays with it; with the seed, it alone decides the random order.
        seed: Another seed draws another random order.
        num_patches: Patches of an image.

    Raises:
        ValueError: There is no salience to order by, it is not finite, or not that of these images and patches.
    """
    if kind == "random":
        return np.argsort(uniform(seed, "occlusion", 0, keys, num_patches), axis=1, kind="stable").astype(np.int64)
    if salience is None:
        raise ValueError(f"patches cannot be ordered {kind} without their salience")
    if salience.shape != (len(keys), num_patches) or not np.isfinite(salience).all():
        raise ValueError(f"the salience is {list(salience.shape)}; wanted finite numbers of {len(keys)} images and {num_patches} patches")
    return np.argsort(-salience if kind == "salient_first" else salience, axis=1, kind="stable").astype(np.int64)


def num_removed(share: float, num_patches: int) -> int:
    """Whole patches in a share of them; half a patch counts as one, so that more is never fewer. 0 is none, 1 is all.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of removed patches is {share}; it must lie between 0 and 1")
    return math.floor(share * num_patches + 0.5)


def occlude(
    images: UInt8[np.ndarray, "B H W C"], order: Int64[np.ndarray, "B N"], share: float, grid: int, fill: UInt8[np.ndarray, "C"]
) -> UInt8[np.ndarray, "B H W C"]:
    """Images without a share of their patches; those given are not modified.

    Args:
        images: Square.
        order: As `removal_order` gives it.
        share: Of the patches that are removed, 0 to 1, rounded as `num_removed` does.
        grid: Patches along one side, N = grid * grid.
        fill: Colour of a removed patch.

    Raises:
        UserError: The grid does not divide the side of the images.
        ValueError: The images are not square, the order is not of so many patches, or the share is not between 0 and 1.
    """
    num, side, width, channels = images.shape
    if side != width or order.shape[1] != grid**2:
        raise ValueError(f"images are {side} x {width} px with {order.shape[1]} patches; wanted squares of {grid} x {grid} patches")
    if side % grid:
        raise UserError(
            f"images of {side} px cannot be cut into a grid of {grid} x {grid} patches of whole pixels; choose a grid that divides {side}"
        )
    hidden = np.zeros((num, grid**2), dtype=bool)
    np.put_along_axis(hidden, order[:, : num_removed(share, grid**2)], True, axis=1)
    occluded = images.copy(order="C")
    patches = occluded.reshape(num, grid, side // grid, grid, side // grid, channels).swapaxes(2, 3)
    patches[hidden.reshape(num, grid, grid)] = fill
    return occluded


def fill_colour(preprocessing: Preprocessing) -> UInt8[np.ndarray, "C"]:
    """The mean colour of a model: after normalisation it is 0 up to half a grey level, 0.5 / 255 / std."""
    grey = np.rint(np.array(preprocessing.mean, dtype=np.float64) * 255)
    colour: UInt8[np.ndarray, "C"] = grey.clip(0, 255).astype(np.uint8)
    return colour
