"""What is done with a trained student."""

from typing import Annotated

from pydantic import Field, PositiveInt

from g2sd_deploy.data.corruptions import CorruptionName
from g2sd_deploy.settings.base import Fraction, Positive, Settings


class CorruptionSettings(Settings):
    """Robustness to regenerated corruptions."""

    names: Annotated[tuple[CorruptionName, ...], Field(strict=False, min_length=1)]
    """Corruptions to apply."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(strict=False, min_length=1)] = (1, 2, 3, 4, 5)
    """Severities to apply."""
    max_images: PositiveInt = 1000
    """Test images to corrupt, spread evenly over the test set."""


class EvaluateSettings(Settings):
    """Accuracy of teacher, student and baseline."""

    batch_size: PositiveInt = 500
    """Images per forward pass."""
    corruptions: CorruptionSettings | None = None
    """Robustness; not measured when left out."""


class ExportSettings(Settings):
    """ONNX file, its parity with the trained student, and the bundle."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """ONNX operator set."""
    max_flipped_share: Fraction = 0.0
    """Parity fails when more than this share of the test images changes its decision."""
    max_abs_logit_diff: Positive = 1e-3
    """Parity fails when a logit moves by more than this."""
    num_samples: PositiveInt = 16
    """Test images stored in the bundle for its self-test."""


class ProfileSettings(Settings):
    """Latency on this machine's CPU."""

    batches: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (1, 8)
    """Batch sizes to time."""
    threads: PositiveInt = 2
    """Threads that a forward pass may use."""
    warmup: PositiveInt = 20
    """Forward passes before the clock counts."""
    repeats: Annotated[int, Field(ge=10)] = 700
    """Timed forward passes; 662 or more carry a p99."""


class ReportSettings(Settings):
    """The HTML and Markdown report."""

    title: str | None = None
    """Heading; the recipe's name by default."""
