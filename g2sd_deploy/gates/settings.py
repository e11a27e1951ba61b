"""What a file of gates may say."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from g2sd_deploy.gates.outcome import Kind
from g2sd_deploy.gates.statistics import Sureness
from g2sd_deploy.settings.base import Fraction, NonNegative, Positive, Settings

Points = Annotated[float, Field(ge=0.0, lt=100.0)]
ModelName = Literal["teacher", "student", "baseline", "shipped"]


class AccuracyGate(Settings):
    """Top-1 on every set, by a paired test where the answers were stored; of a task mIoU, or box AP and mask AP, by their intervals."""

    max_drop_points: Points = 0.0
    """Drop in percentage points that is accepted; at 0 any drop that chance does not explain fails."""
    must_find_points: Positive = 1.0
    """Drop that the gate is expected to find; where the images do not suffice for it, the gate says so."""


class RobustnessGate(Settings):
    """Top-1 under corruptions: their mean, and each of them."""

    max_drop_points: Points = 0.0
    """Drop in percentage points that is accepted, of the mean and of each corruption."""
    must_find_points: Positive = 2.0
    """Drop of the mean that the gate is expected to find."""


class EceGate(Settings):
    """Expected calibration error on clean images."""

    max_rise: NonNegative = 0.01
    """Rise that is accepted; ECE goes from 0 to 1."""


class LatencyGate(Settings):
    """Median latency relative to a reference model that was timed in the same session."""

    max_slowdown: NonNegative = 0.03
    """Rise of the ratio that is accepted; 0.03 is 3 %."""
    must_find_slowdown: Positive = 0.1
    """Rise that the gate is expected to find."""


class SizeGate(Settings):
    """Bytes of the files."""

    max_growth: NonNegative = 0.02
    """Growth that is accepted, as a share of the baseline's size."""


class ParametersGate(Settings):
    """Weights of the models."""

    max_growth: NonNegative = 0.0
    """Growth that is accepted, as a share of the baseline's number."""


class ParityGate(Settings):
    """Whether the exported files answer as the trained student does."""

    candidates: bool = True
    """Whether those that do not ship have to pass, too, if they did in the baseline."""


class LossGate(Settings):
    """The loss curve of every training beside the baseline's."""

    max_rise: NonNegative = 0.1
    """How far a tenth of the training may lie above the baseline's, as a share of its loss, beyond the noise of both."""
    max_fall: Fraction | None = None
    """How far it may lie below; any fall is accepted when left out."""


class Limits(Settings):
    """Floors and ceilings of one model, whatever its baseline is."""

    min_top1: Fraction | None = None
    """Accuracy on the run's test images."""
    min_miou: Fraction | None = None
    """Mean intersection over union on the run's test images, of a segmenter."""
    min_box_ap: Fraction | None = None
    """Average precision of boxes on the run's test images, of a detector."""
    min_mask_ap: Fraction | None = None
    """Average precision of masks on the run's test images, of a detector."""
    min_corruption_top1: Fraction | None = None
    """Mean accuracy under corruptions."""
    max_ece: Fraction | None = None
    """Expected calibration error on the run's test images."""
    max_size_mib: Positive | None = None
    """Size of the file."""
    max_parameters: PositiveInt | None = None
    """Number of weights."""
    max_latency_ms: Positive | None = None
    """Latency of one image, at `latency_percentile`, in every valid row of the profile that times the model."""
    latency_percentile: Literal["p50", "p90", "p99"] = "p50"
    """Percentile that `max_latency_ms` is about."""


class GateSettings(Settings):
    """Which gates there are and what they tolerate; null switches a gate off."""

    models: Annotated[tuple[ModelName, ...], Field(strict=False, min_length=1)] = ("student", "shipped")
    """Models that are gated; shipped is the exported file."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Highest probability with which a gate fails a model that is no worse than tolerated."""
    power: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """Probability with which the smallest drop that a gate tells of is found."""
    required: Annotated[tuple[Kind, ...], Field(strict=False)] = ("accuracy",)
    """Kinds of gates that must not stay without a verdict: `not_run` fails the check."""
    optional: Annotated[tuple[Kind, ...], Field(strict=False)] = ()
    """Kinds of gates that --strict does not require."""
    accuracy: AccuracyGate | None = AccuracyGate()
    """Accuracy."""
    robustness: RobustnessGate | None = RobustnessGate()
    """Accuracy under corruptions."""
    ece: EceGate | None = EceGate()
    """Calibration."""
    latency: LatencyGate | None = LatencyGate()
    """Latency."""
    size: SizeGate | None = SizeGate()
    """Size of files."""
    parameters: ParametersGate | None = ParametersGate()
    """Number of weights."""
    parity: ParityGate | None = ParityGate()
    """Equality of the exported files."""
    loss: LossGate | None = LossGate()
    """Loss curves."""
    limits: dict[ModelName, Limits] = Field(default_factory=dict)
    """Floors and ceilings by model."""

    @property
    def sureness(self) -> Sureness:
        """Level and power of all gates."""
        return Sureness(self.alpha, self.power)
