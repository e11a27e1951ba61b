"""How far the heads of a vision transformer look."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor


class AttentionDistance:
    """Mean distance between a patch and the patches that it attends to, by block and head; sums are kept, no attention is.

    A patch's distances to all patches (from centre to centre, to itself 0) are weighted by its attention, made to sum to 1 over patches:
    what it pays to prefix and suffix tokens has no place in the image. Then comes the mean over patches and images.

    Source: arXiv 2010.11929, appendix D.7; arXiv 2108.08810, section 4.

    Args:
        grid: Patches along one side.
        patch_px: Side of a patch.
        num_prefix: Tokens before the patches.
    """

    def __init__(self, *, grid: int, patch_px: int, num_prefix: int) -> None:
        self._distances = _distances(grid, patch_px)
        self._patches = slice(num_prefix, num_prefix + grid**2)
        self._sums: dict[int, Float64[np.ndarray, "heads 2"]] = {}

    def add(self, attention: Iterable[Float32[Tensor, "B heads T T"]]) -> None:
        """Count a batch.

        Args:
            attention: Of each block in turn, as `LayerReader.attention` gives it.

        Raises:
            ValueError: As `add_block`.
        """
        for number, block in enumerate(attention):
            self.add_block(number, block)

    def add_block(self, number: int, attention: Float32[Tensor, "B heads T T"]) -> None:
        """Count a batch in one block.

        Args:
            number: Of the block, from 0.
            attention: At least 0; rows are queries.

        Raises:
            ValueError: There are fewer tokens than patches.
        """
        if attention.shape[-1] < self._patches.stop:
            raise ValueError(f"the attention is over {attention.shape[-1]} tokens; wanted at least {self._patches.stop}")
        paid = attention[:, :, self._patches, self._patches]
        total = paid.sum(dim=-1)
        looks = total > 0
        far = (paid * self._distances.to(paid)).sum(dim=-1) / torch.where(looks, total, 1)
        found = torch.stack([far.double().sum(dim=(0, 2)), looks.double().sum(dim=(0, 2))], dim=1).cpu().numpy()
        self._sums[number] = self._sums.get(number, 0) + found

    def result(self) -> Float64[np.ndarray, "blocks heads"]:
        """Pixels of the network's input.

        A patch whose attention to every patch is 0 in float32 is left out of the mean; a head of which that is true of all is NaN.

        Raises:
            ValueError: Nothing was added.
        """
        if not self._sums:
            raise ValueError("no attention was added")
        sums = np.stack([self._sums[number] for number in sorted(self._sums)])
        with np.errstate(invalid="ignore"):
            distance: Float64[np.ndarray, "blocks heads"] = sums[..., 0] / sums[..., 1]
        return distance


def _distances(grid: int, patch_px: int) -> Float32[Tensor, "N N"]:
    steps = torch.arange(grid)
    centres = torch.cartesian_prod(steps, steps).float() * patch_px
    distances: Tensor = torch.linalg.vector_norm(centres[:, None] - centres[None], dim=-1)
    return distances
