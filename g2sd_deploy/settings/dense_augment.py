"""How training images of dense tasks are augmented, with their truth."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from g2sd_deploy.settings.base import Fraction, Positive, Settings

Range = Annotated[tuple[Positive, Positive], Field(strict=False)]


class _ScaledSettings(Settings):
    """What both tasks do to an image and its truth."""

    scale: Range
    """Range of the factor between the network's side and the image that is fitted into it."""
    flip: bool = True
    """Mirror half of the images."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}; give the smaller factor first")
        return self


class SegmentationAugmentSettings(_ScaledSettings):
    """Scale, crop, flip and photometric distortion, as for UperNet on ADE20K."""

    scale: Range = (0.5, 2.0)
    """Range of the factor of the image's size before the crop; at 1 the image fits over the crop."""
    photometric: bool = True
    """Distort brightness, contrast, saturation and hue."""
    max_share: Fraction = 0.75
    """A crop in which one class fills more than this share is drawn anew, up to ten times."""


class DetectionAugmentSettings(_ScaledSettings):
    """Large-scale jitter and flip, as for ViTDet on COCO."""

    scale: Range = (0.1, 2.0)
    """Range of the factor of the image's size before it is cropped or padded to the square; at 1 its long side fills the square."""
