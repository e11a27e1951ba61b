"""The third stage of a student: it learns to bear the rounding of an 8-bit file."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from g2sd_deploy.settings.base import Fraction, Positive
from g2sd_deploy.settings.training import LabelledTrainSettings

_LARGEST_SHARE = 10
"""At most one training image in so many is held out."""


class QuantiseSettings(LabelledTrainSettings):
    """Quantisation-aware distillation: the loss of the specific method goes on, computed with rounded weights and activations."""

    bits: Annotated[int, Field(ge=2, le=8)] = 8
    """Bits of weights and activations while it trains. Fewer than 8 are for experiments: what is exported has 8."""
    ranges: Literal["mean", "all"] = "mean"
    """What an activation may be: the mean of the calibration images' smallest and largest values, or the extremes of all images."""
    calibration_images: PositiveInt = 256
    """Training images that tell the ranges of the activations, before any training; the ranges do not change afterwards."""
    held_out: PositiveInt = 1000
    """Training images that this stage does not learn from, at most a tenth of them: on these is told what it brought."""
    float_weight: Fraction = 0.5
    """Weight of the divergence from the float student's probabilities; the loss of the specific method has 1 - float_weight."""
    temperature: Positive = 1.0
    """Both students' logits are divided by it in that divergence."""

    @property
    def fewest_images(self) -> int:
        """Training images that one step needs, beside those that are held out of them."""
        return self.batch_size + self.batch_size // (_LARGEST_SHARE - 1) + 1

    def num_held_out(self, num_images: int) -> int:
        """Images that are held out of so many."""
        return min(self.held_out, max(1, num_images // _LARGEST_SHARE))

    def num_trained(self, num_images: int) -> int:
        return num_images - self.num_held_out(num_images)

    def num_looked_at(self, num_images: int) -> tuple[int, int]:
        """Images, of so many, that tell the ranges, and that are held out."""
        return min(self.calibration_images, self.num_trained(num_images)), self.num_held_out(num_images)
