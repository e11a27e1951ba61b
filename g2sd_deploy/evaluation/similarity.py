"""How alike the layers of two networks are: linear CKA, estimated without bias from minibatches.

Shape letters: B images of a batch, L layers of the left network, R layers of the right one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

FEWEST_IMAGES = 4
_COLUMNS = 8192
_ROUNDING = 1e-12
"""Energy of what varies between images, as a share of all: below it, float32 features hold nothing but rounding (about 1e-14)."""


@dataclass(frozen=True)
class Grams:
    """Inner products between the images of one batch, layer by layer.

    Attributes:
        centred: U-centred Gram matrix of each layer, flattened.
        energy: Of the features of each layer: what varies between images, and all.
    """

    centred: Float64[np.ndarray, "L BB"]
    energy: Float64[np.ndarray, "L 2"]

    @property
    def num_images(self) -> int:
        return math.isqrt(self.centred.shape[1])


class Cka:
    """Linear CKA of every layer of one network with every layer of another, over the same images.

    The features of an image are all tokens of a layer, prefix and suffix tokens too, flattened; so the networks may differ in width and in
    number of tokens. CKA(X, Y) = sum HSIC_1(X, Y) / sqrt(sum HSIC_1(X, X) * sum HSIC_1(Y, Y)), with sums over batches of one size. HSIC_1
    of a batch's two Gram matrices has no bias, so the estimate does not drift with the batch size.

    Source: minibatch CKA as in arXiv 2010.15327, section 3; HSIC_1 by Song et al. 2012, jmlr.org/papers/v13/song12a.html, here as the inner
    product of U-centred Gram matrices (Szekely and Rizzo 2014, doi 10.1214/14-AOS1255), so that all pairs of layers are one matrix product.
    Differs: features are centred over the batch first, which changes no HSIC_1 and saves digits.
    """

    def __init__(self) -> None:
        self._num_images = 0
        self._sums: list[Float64[np.ndarray, "..."]] = []

    def add(self, left: Iterable[Float[Tensor, "B ..."]], right: Iterable[Float[Tensor, "B ..."]]) -> None:
        """Count one batch. All have the same number of images: the caller leaves out a last batch that is smaller.

        Args:
            left: Features of each layer, by image; a generator is read one layer at a time.
            right: Those of the other network for the same images in the same order.

        Raises:
            ValueError: Fewer than 4 images, another number of them or of layers than in the batches before, other images on the left than
                on the right, or features that are not finite.
        """
        self.add_grams(grams_of(left), grams_of(right))

    def add_grams(self, left: Grams, right: Grams) -> None:
        """Count one batch whose Gram matrices are known, because a network is compared with several others. Raises as `add` does."""
        rows, columns, num = left.centred, right.centred, left.num_images
        if num != right.num_images:
            raise ValueError(f"the batch has {num} images on the left and {right.num_images} on the right; wanted the same images")
        found = [rows @ columns.T, (rows**2).sum(axis=1), (columns**2).sum(axis=1), left.energy, right.energy]
        if not self._sums:
            self._num_images, self._sums = num, found
            return
        if num != self._num_images:
            raise ValueError(f"this batch has {num} images and those before {self._num_images}; leave a smaller last batch out")
        if self._sums[0].shape != found[0].shape:
            now, before = (" x ".join(map(str, sums[0].shape)) for sums in (found, self._sums))
            raise ValueError(f"this batch has {now} pairs of layers and those before {before}; wanted the same layers")
        self._sums = [before + now for before, now in zip(self._sums, found, strict=True)]

    def result(self) -> Float64[np.ndarray, "L R"]:
        """CKA of every pair of layers: 1 for the same features up to rotation and scale, about 0 for unrelated ones.

        An unbiased estimate may lie a little below 0. NaN where a layer is the same for all images, for then nothing can be said.

        Raises:
            ValueError: No batch was added.
        """
        if not self._sums:
            raise ValueError("no batch was added; CKA needs at least 4 images")
        cross, left, right, left_energy, right_energy = self._sums
        of_left, of_right = (
            np.where(energy[:, 0] > _ROUNDING * energy[:, 1], np.sqrt(own), np.nan)
            for own, energy in ((left, left_energy), (right, right_energy))
        )
        similarity: Float64[np.ndarray, "L R"] = cross / np.outer(of_left, of_right)
        return similarity


def grams_of(layers: Iterable[Float[Tensor, "B ..."]]) -> Grams:
    """What CKA needs of the layers of one network on one batch.

    Args:
        layers: Features of each layer, by image; a generator is read one layer at a time.

    Raises:
        ValueError: Fewer than 4 images, no layer, or features that are not finite.
    """
    rows, energies = [], []
    for number, layer in enumerate(layers):
        if len(layer) < FEWEST_IMAGES:
            raise ValueError(f"the batch has {len(layer)} images; unbiased CKA needs at least {FEWEST_IMAGES}, so give larger batches")
        gram, total = _gram(layer.detach().flatten(1))
        energy = np.array([np.trace(gram), total])
        if not np.isfinite(energy).all():
            raise ValueError(f"the features of layer {number} are not finite")
        rows.append(_u_centred(gram).ravel())
        energies.append(energy)
    if not rows:
        raise ValueError("there is no layer to compare")
    return Grams(np.stack(rows), np.stack(energies))


def _gram(features: Float[Tensor, "B D"]) -> tuple[Float64[np.ndarray, "B B"], float]:
    """Inner products of the features centred over the batch, and the energy before that.

    In float64, a few columns at a time: what is cast stays in the cache, which takes no longer than one product in float32.
    """
    gram = torch.zeros(len(features), len(features), dtype=torch.float64, device=features.device)
    total = torch.zeros((), dtype=torch.float64, device=features.device)
    for start in range(0, features.shape[1], _COLUMNS):
        columns = features[:, start : start + _COLUMNS].double()
        total += columns.square().sum()
        centred = columns - columns.mean(dim=0)
        gram += centred @ centred.T
    return gram.cpu().numpy(), float(total)


def _u_centred(gram: Float64[np.ndarray, "B B"]) -> Float64[np.ndarray, "B B"]:
    """Gram matrix without its diagonal, whose rows sum to 0; the inner product of two, over B (B - 3), is their HSIC_1."""
    num = len(gram)
    bare = gram.copy()
    np.fill_diagonal(bare, 0)
    per_row = bare.sum(axis=1) / (num - 2)
    centred: Float64[np.ndarray, "B B"] = bare - per_row - per_row[:, None] + bare.sum() / ((num - 1) * (num - 2))
    np.fill_diagonal(centred, 0)
    return centred
