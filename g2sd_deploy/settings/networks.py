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


class StudentSettings(EncoderSettings):
    """The student's encoder."""

    weights: str | None = None
    """In place of a generic stage: a finished student to start from, as a weight file or the folder of a finished stage
    (runs/NAME/generic), perhaps of another run's images. Its positions are fitted to data.image_px."""


class DecoderSettings(TransformerSettings):
    """Shape of the decoder of a masked model."""
