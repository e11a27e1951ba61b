"""Simple feature pyramid: levels of five strides from one map.

Shape letters: B batch, D width of the encoder, C channels of a level.
"""

from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from g2sd_deploy.models.dense.detector_spec import LEVEL_STRIDES


class FeaturePyramid(nn.Module):
    """p2 .. p5 (strides 4, 8, 16 and 32) each from the encoder's last map, and p6 (stride 64) from p5.

    A level is enlarged by transposed convolutions of stride 2 that halve the channels, or shrunk by max-pooling, then passes a 1x1 and a
    3x3 convolution, each with LayerNorm over channels. p6 is every second cell of p5.

    Source: arXiv 2203.16527; facebookresearch/detectron2, modeling/backbone/vit.py (SimpleFeaturePyramid, LastLevelMaxPool).
    Differs: patches of 4 and 8 px too.
    """

    def __init__(self, width: int, patch_px: int, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(width, patch_px / stride, channels) for stride in LEVEL_STRIDES[:-1])
        self.last = nn.MaxPool2d(kernel_size=1, stride=2)

    def forward(self, tokens: Float[Tensor, "B D H W"]) -> list[Float[Tensor, "B C _ _"]]:
        """The levels, finest first."""
        found = [level(tokens) for level in self.levels]
        return [*found, self.last(found[-1])]


def _level(width: int, factor: float, channels: int) -> nn.Sequential:
    """One level, `factor` times as fine as the encoder's map."""
    layers: list[nn.Module] = []
    if factor == 4:
        layers += [nn.ConvTranspose2d(width, width // 2, 2, 2), LayerNorm2d(width // 2), nn.GELU()]
        width //= 2
    if factor >= 2:
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, 2))
        width //= 2
    if factor < 1:
        side = round(1 / factor)
        layers.append(nn.MaxPool2d(side, side))
    layers += [nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels)]
    layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels)]
    return nn.Sequential(*layers)
