"""A ViT that names the class of every pixel: plain encoder, four levels, UPerNet head.

Shape letters: B batch, C channels of an image, H and W its sides, h and w a quarter of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from g2sd_deploy.models.adapt import at_image_size
from g2sd_deploy.models.dense.levels import STRIDES, FeatureLevels
from g2sd_deploy.models.dense.relative import dense_encoder
from g2sd_deploy.models.dense.upernet import FcnHead, UperNetHead
from g2sd_deploy.models.vit import Encoder, EncoderSpec

_MOST_CLASSES = 255
_AUX_LEVEL = 2


def default_taps(depth: int) -> tuple[int, int, int, int]:
    """Blocks (counted from 0) after a third, a half, two thirds and all of the depth: 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24."""
    third, half, most = (max(depth * part // 6 - 1, 0) for part in (2, 3, 4))
    return third, half, most, depth - 1


@dataclass(frozen=True)
class SegmenterSpec:
    """Shape of a segmenter.

    Attributes:
        encoder: The ViT; `image_px` is a multiple of 4 and of the patch, which is a power of two.
        num_classes: 1 to 255; a class map is of bytes, and 255 means that nothing is asked.
        taps: Four blocks whose output is read, counted from 0, in order; the last is the last block. A block may be read twice.
        channels: Of the head.
        aux_channels: Of the head that helps in training; None: there is none.
        relative_positions: Whether each block's attention has a bias by the offset of two patches.
        layer_scale: Where the learned scales of the residual branches start; None: there are none.

    Raises:
        ValueError: A value lies outside its range.
    """

    encoder: EncoderSpec
    num_classes: int
    taps: tuple[int, ...]
    channels: int
    aux_channels: int | None
    relative_positions: bool
    layer_scale: float | None

    def __post_init__(self) -> None:
        px, patch, depth = self.encoder.image_px, self.encoder.patch_px, self.encoder.depth
        if px % patch or px % STRIDES[0]:
            raise ValueError(f"image_px is {px}; wanted a multiple of {STRIDES[0]} and of the patch ({patch} px)")
        if not 1 <= self.num_classes <= _MOST_CLASSES:
            raise ValueError(f"there are {self.num_classes} classes; wanted 1 to {_MOST_CLASSES}")
        taps = list(self.taps)
        if len(taps) != len(STRIDES) or sorted(taps) != taps or taps[0] < 0 or taps[-1] != depth - 1:
            raise ValueError(f"taps are {taps}; wanted {len(STRIDES)} ascending blocks from 0 to {depth - 1}, the last of them {depth - 1}")
        if min(self.channels, self.channels if self.aux_channels is None else self.aux_channels) < 1:
            raise ValueError(f"channels are {self.channels} and aux_channels {self.aux_channels}; both must be at least 1")


class Segmenter(nn.Module):
    """Images to the logits of every fourth pixel.

    Source: arXiv 2302.14771; pengzhiliang/G2SD@6146adf, G2SD_seg_dis (backbone/mae.py and the configuration of mmsegmentation 0.11.0).
    Differs: group norm in place of synchronised batch norm, see `levels.group_norm`.
    """

    no_weight_decay = ("pos_embed", "cls_token")
    """Parameters that timm's ViT exempts from weight decay. Differs: the authors mean to exempt them too, but compare names without
    the prefix that these have, and so decay them."""

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.encoder.width
        self.encoder = dense_encoder(spec.encoder, relative_positions=spec.relative_positions, layer_scale=spec.layer_scale)
        self.levels = FeatureLevels(spec.encoder.patch_px, width)
        self.head = UperNetHead(width, spec.channels, spec.num_classes, coarsest=-(-spec.encoder.image_px // STRIDES[-1]))
        self.aux_head = None if spec.aux_channels is None else FcnHead(width, spec.aux_channels, spec.num_classes)

    @property
    def num_dropout_draws(self) -> int:
        """Uniform numbers that `forward_train` takes for each image: one for each channel of the head, then of the other."""
        return self.spec.channels + (self.spec.aux_channels or 0)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes h w"]:
        """Logits at stride 4, for inference."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def forward_train(
        self,
        images: Float[Tensor, "B C H W"],
        survival: Float[Tensor, "B depth 2"] | None = None,
        dropout: Float64[Tensor, "B draws"] | None = None,
    ) -> tuple[Float[Tensor, "B classes h w"], Float[Tensor, "B classes auxh auxw"] | None]:
        """Logits of both heads.

        Args:
            images: Normalised images.
            survival: Factors of each block's residual branches (drop path); None for 1.
            dropout: `num_dropout_draws` uniform numbers in [0, 1) for each image; None leaves no channel out.

        Returns:
            Logits at stride 4; those of the other head at stride 16, or None where there is no such head.
        """
        levels = self.features(images, survival)
        channels = self.spec.channels
        first, second = (None, None) if dropout is None else (dropout[:, :channels], dropout[:, channels:])
        return self.head(levels, first), None if self.aux_head is None else self.aux_head(levels[_AUX_LEVEL], second)

    def features(
        self, images: Float[Tensor, "B C H W"], survival: Float[Tensor, "B depth 2"] | None = None
    ) -> list[Float[Tensor, "B D _ _"]]:
        """Maps at strides 4, 8, 16 and 32."""
        return list(self.levels(tapped_maps(self.encoder, images, self.spec.taps, survival)))


def tapped_maps(
    encoder: Encoder, images: Float[Tensor, "B C H W"], taps: Sequence[int], survival: Float[Tensor, "B depth 2"] | None = None
) -> list[Float[Tensor, "B D grid grid"]]:
    """The patches of the residual stream after some blocks (counted from 0, in order, perhaps twice), as maps."""
    blocks = sorted(set(taps))
    streams = dict(zip(blocks, encoder.features(images, taps=[block + 1 for block in blocks], survival=survival), strict=True))
    width, grid = encoder.spec.width, encoder.spec.grid
    return [streams[tap][:, 1:].transpose(1, 2).reshape(-1, width, grid, grid) for tap in taps]


def start_segmenter_from(model: Segmenter, encoder: Encoder) -> None:
    """Begin with a pre-trained plain encoder, its positions resized to the segmenter's images; what is added to it stays as it starts.

    Raises:
        ValueError: The two encoders differ in more than the size of their images.
    """
    own, given = model.encoder.spec, encoder.spec
    wanted = replace(given, image_px=own.image_px, learned_positions=own.learned_positions)
    if own != wanted:
        raise ValueError(f"the segmenter's encoder is {own}, and the one to start from is {given}; they may differ in image_px alone")
    state = at_image_size(encoder, own.image_px).state_dict()
    with torch.no_grad():
        for name, value in model.encoder.state_dict().items():
            if name in state:
                value.copy_(state[name])
