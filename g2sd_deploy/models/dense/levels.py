"""Feature maps at strides 4, 8, 16 and 32 from a plain ViT, whose blocks all work at the stride of its patches.

Shape letters: B batch, D width, G patches along one side, h and w sides of a level's map.

Source: arXiv 2106.08254, as in pengzhiliang/G2SD@6146adf, G2SD_seg_dis/src/backbone/mae.py (fpn1 .. fpn4, patches of 16 and 8 px).
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)
"""Pixels between neighbours of each level."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Norm over groups of at least four channels, at most 32 groups.

    Differs: the authors use synchronised batch norm, with two images on each of eight GPUs. Statistics over a batch would make a step
    depend on how it is cut into micro-batches and ranks, and leave averages behind that a step is no function of its counters with;
    groups of one image do neither, and compute the same in training and in evaluation.
    """
    return nn.GroupNorm(math.gcd(32, max(channels // 4, 1), channels), channels)


class FeatureLevels(nn.Module):
    """Four maps of one stride to the strides 4, 8, 16 and 32: transposed convolutions up, maximum pools down.

    Raises:
        ValueError: The patch is no power of two.

    Differs: where a pool does not divide its map, the last rows and columns are pooled by themselves (the authors drop them), so that no
    map becomes empty.
    """

    def __init__(self, patch_px: int, width: int) -> None:
        super().__init__()
        if patch_px < 1 or patch_px & (patch_px - 1):
            raise ValueError(f"patches are {patch_px} px wide; wanted a power of two, so that levels of stride 4 to 32 can be made of them")
        self.levels = nn.ModuleList(_to_stride(patch_px, stride, width) for stride in STRIDES)

    def forward(self, maps: list[Float[Tensor, "B D G G"]]) -> list[Float[Tensor, "B D h w"]]:
        """A level of each map, the finest first."""
        return [level(x) for level, x in zip(self.levels, maps, strict=True)]


def _to_stride(patch_px: int, stride: int, width: int) -> nn.Module:
    """From the stride of the patches to another: steps of two up, with norm and GELU between them, or one pool down."""
    if stride == patch_px:
        return nn.Identity()
    if stride > patch_px:
        return nn.MaxPool2d(stride // patch_px, ceil_mode=True)
    layers: list[nn.Module] = []
    for step in range((patch_px // stride).bit_length() - 1):
        layers += [group_norm(width), nn.GELU()] if step else []
        layers.append(nn.ConvTranspose2d(width, width, 2, 2))
    return nn.Sequential(*layers)
