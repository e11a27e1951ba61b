"""Shapes of encoders and decoders."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from g2sd_deploy.settings.base import Positive, Settings


class TransformerSettings(Settings):
    """A transformer whose heads share its width."""

    width: Annotated[int, Field(gt=0, multiple_of=4)]
    """Embedding width, a multiple of 4."""
    depth: PositiveInt
    """Number of blocks."""
    heads: PositiveInt
    """Attention heads; must divide width."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide width {self.width}")
        return self


class EncoderSettings(TransformerSettings):
    """Shape of a ViT encoder."""

    patch_px: PositiveInt
    """Patch side; must divide data.image_px."""
    mlp_ratio: Positive = 4.0
    """Hidden width of a block's MLP over its width."""
    positions: Literal["sincos", "learned"] = "sincos"
    """Positions of the patches while pre-training: a fixed sine-cosine table, or trained ones. A classifier trains them in either case."""


class DecoderSettings(TransformerSettings):
    """Shape of the decoder of a masked model."""
