"""UPerNet: pooled context and a feature pyramid over four levels, and the plain convolutional head that helps it in training.

Shape letters: B batch, C channels of the head, D width of the levels, h and w sides of the finest level's map (stride 4).

Source: arXiv 1807.10221; open-mmlab/mmsegmentation 0.11.0, models/decode_heads/uper_head.py, psp_head.py and fcn_head.py.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64
from torch import Tensor, nn

from g2sd_deploy.models.dense.levels import group_norm

POOL_SCALES = (1, 2, 3, 6)
"""Cells along one side that the coarsest level is averaged into."""
DROPOUT = 0.1
"""Share of the channels that are left out before the class layer in training."""


def drop_channels(x: Float[Tensor, "B C h w"], draws: Float64[Tensor, "B C"] | None, rate: float = DROPOUT) -> Float[Tensor, "B C h w"]:
    """Leave out whole channels, and scale the others so that the mean stays.

    Args:
        x: Feature map.
        draws: Uniform numbers in [0, 1); a channel whose number lies below the rate is left out. None: nothing is done.
        rate: In [0, 1).

    Source: arXiv 1411.4280 (torch's Dropout2d). Differs: the draws are an argument, so that a step is a function of its counters.
    """
    if draws is None:
        return x
    return x * ((draws >= rate) / (1 - rate)).to(x.dtype)[:, :, None, None]


def resize(x: Float[Tensor, "B C h w"], size: Sequence[int]) -> Float[Tensor, "B C newh neww"]:
    """Bilinear, by the centres of the pixels (not their corners)."""
    return F.interpolate(x, size=[int(side) for side in size], mode="bilinear", align_corners=False)


class UperNetHead(nn.Module):
    """Logits at stride 4 from four levels.

    Differs: group norm, see `levels.group_norm`; averages over cells are two products with fixed matrices (see `CellMeans`).
    """

    def __init__(self, width: int, channels: int, num_classes: int, coarsest: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(_conv(width, channels, 1) for _ in POOL_SCALES)
        self.means = nn.ModuleList(CellMeans(coarsest, scale) for scale in POOL_SCALES)
        self.context = _conv(width + len(POOL_SCALES) * channels, channels, 3)
        self.laterals = nn.ModuleList(_conv(width, channels, 1) for _ in range(3))
        self.outputs = nn.ModuleList(_conv(channels, channels, 3) for _ in range(3))
        self.fusion = _conv(4 * channels, channels, 3)
        self.classify = class_layer(channels, num_classes)

    def forward(
        self, levels: list[Float[Tensor, "B D _ _"]], dropout: Float64[Tensor, "B C"] | None = None
    ) -> Float[Tensor, "B classes h w"]:
        """Logits of every fourth pixel.

        Args:
            levels: Maps at strides 4, 8, 16 and 32; the sides of the last are `coarsest`.
            dropout: Uniform draws, one for each channel; None in evaluation.
        """
        maps = [self._context(levels[3])]
        for lateral, level in zip(reversed(self.laterals), reversed(levels[:3]), strict=True):
            own = lateral(level)
            maps.insert(0, own + resize(maps[0], own.shape[2:]))
        maps = [*(output(x) for output, x in zip(self.outputs, maps, strict=False)), maps[3]]
        finest = maps[0].shape[2:]
        fused = self.fusion(torch.cat([maps[0], *(resize(x, finest) for x in maps[1:])], dim=1))
        logits: Tensor = self.classify(drop_channels(fused, dropout))
        return logits

    def _context(self, x: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C h w"]:
        """The coarsest level with what its surroundings hold."""
        around = [resize(conv(means(x)), x.shape[2:]) for conv, means in zip(self.cells, self.means, strict=True)]
        seen: Tensor = self.context(torch.cat([x, *around], dim=1))
        return seen


class FcnHead(nn.Module):
    """A convolution and a class layer on one level; used in training alone."""

    def __init__(self, width: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = _conv(width, channels, 3)
        self.classify = class_layer(channels, num_classes)

    def forward(self, level: Float[Tensor, "B D h w"], dropout: Float64[Tensor, "B C"] | None = None) -> Float[Tensor, "B classes h w"]:
        logits: Tensor = self.classify(drop_channels(self.conv(level), dropout))
        return logits


class CellMeans(nn.Module):
    """Means of a square map over `scale` x `scale` cells, which overlap where the scale does not divide the side.

    They are torch's adaptive average pool, as two products with a fixed matrix: its gradient is the same at every run on a GPU, where the
    pool's is not, and every runtime knows products, where the exporter writes a pool that does not divide as dozens of look-ups.
    """

    weights: Float[Tensor, "cells side"]

    def __init__(self, side: int, scale: int) -> None:
        super().__init__()
        weights = torch.zeros(scale, side)
        for cell in range(scale):
            start, stop = cell * side // scale, -(-(cell + 1) * side // scale)
            weights[cell, start:stop] = 1 / (stop - start)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Float[Tensor, "B D side side"]) -> Float[Tensor, "B D cells cells"]:
        weights = self.weights.to(x.dtype)
        return weights @ x @ weights.mT


def class_layer(channels: int, num_classes: int) -> nn.Conv2d:
    """Logits of each pixel by itself, initialised as the authors do."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution, norm, ReLU; He-normal by the outputs, as the authors initialise it."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, group_norm(outputs), nn.ReLU())
