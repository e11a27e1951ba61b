"""What is done with a trained student."""

from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from g2sd_deploy.data.corruptions import CorruptionName
from g2sd_deploy.settings.base import Fraction, Settings


class CorruptionSettings(Settings):
    """Robustness to regenerated corruptions."""

    names: Annotated[tuple[CorruptionName, ...], Field(strict=False, min_length=1)]
    """Corruptions to apply."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(strict=False, min_length=1)] = (1, 2, 3, 4, 5)
    """Severities to apply."""
    max_images: PositiveInt = 1000
    """Test images to corrupt, spread evenly over the test set."""


class OcclusionSettings(Settings):
    """Accuracy while patches of the image are removed, at random, the most salient first, and the least salient first."""

    shares: Annotated[tuple[Fraction, ...], Field(strict=False, min_length=1)] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Shares of the patches to remove; 0 is needed, for accuracy is told relative to it."""
    max_images: PositiveInt = 1000
    """Test images to occlude, spread evenly over the test set."""

    @model_validator(mode="after")
    def _begins_with_none(self) -> Self:
        if self.shares[0] != 0 or list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"shares are {list(self.shares)}; they have to ascend from 0")
        return self


class SimilaritySettings(Settings):
    """How alike the layers of teacher and student are (CKA), and how far their heads look."""

    max_images: Annotated[int, Field(ge=8)] = 512
    """Test images to look at, spread evenly over the test set; what is left of whole batches is not looked at."""
    batch_size: Annotated[int, Field(ge=4)] = 64
    """Images that are compared with each other at a time."""

    @model_validator(mode="after")
    def _has_a_batch(self) -> Self:
        if self.batch_size > self.max_images:
            raise ValueError(f"batch_size is {self.batch_size}, more than max_images {self.max_images}")
        return self


class EvaluateSettings(Settings):
    """Accuracy, calibration and agreement of teacher, student and baseline, on the test images and on other sets."""

    batch_size: PositiveInt | None = None
    """Images per forward pass; chosen by the size of the input and the device when left out."""
    corruptions: CorruptionSettings | None = None
    """Robustness; not measured when left out."""
    occlusion: OcclusionSettings | None = None
    """Occlusion invariance; not measured when left out."""
    similarity: SimilaritySettings | None = None
    """Similarity of layers before and after each stage; not measured when left out."""
    sets: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Other sets to score every model on: NAME as `g2sd data sets` lists them, or NAME=FOLDER."""
    max_bad_images: NonNegativeInt = 0
    """Images of each of these sets that may be unusable; they are left out and counted."""


class RobustnessSettings(CorruptionSettings):
    """Corruptions under which the file that ships is scored beside the float model."""

    names: Annotated[tuple[CorruptionName, ...], Field(strict=False, min_length=1)] = (
        "gaussian_noise",
        "defocus_blur",
        "contrast",
        "jpeg_compression",
    )
    """Corruptions to apply."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(strict=False, min_length=1)] = (3,)
    """Severities to apply."""
    max_images: PositiveInt = 500
    """Test images to corrupt, spread evenly over the test set."""


class LicenceSettings(Settings):
    """Under which licences the bundle may be used; SPDX names where there are any."""

    model: str = "unknown"
    """Of the student's weights."""
    data: str = "unknown"
    """Of the training images."""
    teacher: str | None = None
    """Of the teacher; the catalogue's when left out."""


class ExportSettings(Settings):
    """The bundle for a device: its files, their proof, and which of them ships."""

    target: str = "cpu-x86"
    """Name of a target that ships with the package (`g2sd targets`), or a file of your own; tolerances and number formats are there."""
    only: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Candidates of the target to make, by name (`fp32-onnxruntime`); all of them when left out."""
    max_quantisers: PositiveInt | None = None
    """How many of the target's quantisers to try for INT8, in its order; all of them when left out."""
    max_images: PositiveInt | None = None
    """Test images that every file has to answer like the trained student, spread evenly; all of them when left out."""
    calibration_images: Annotated[int, Field(ge=8)] | None = None
    """Training images to calibrate INT8 with; the target's number when left out."""
    robustness: RobustnessSettings | None = RobustnessSettings()
    """Accuracy under corruption of the file that ships, beside the float model's; null leaves it out."""
    num_samples: PositiveInt = 16
    """Test images stored in the bundle for its self-test."""
    token_merging: NonNegativeInt = 0
    """Patch tokens that each block of the student merges with others like them, for speed; what that costs in accuracy is measured."""
    timing_seconds: PositiveFloat = 4.0
    """The most time for which each candidate is timed; where the machine is quiet it takes less."""
    licences: LicenceSettings = LicenceSettings()
    """Under which licences the bundle may be used."""


class ReportSettings(Settings):
    """The HTML and Markdown report."""

    title: str | None = None
    """Heading; the recipe's name by default."""
