"""What the evaluation of a task says, as frozen types; fractions stay in [0, 1], and an interval holds 95 %."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from g2sd_deploy.report.scores import MODELS, Interval

TaskKind = Literal["segmentation", "detection"]


@dataclass(frozen=True)
class Measure:
    """A number that a task is about: its name in results, what the page calls it, and what it means."""

    key: str
    title: str
    told: str


MEASURES: Mapping[TaskKind, tuple[Measure, ...]] = {
    "segmentation": (
        Measure("miou", "mIoU", "mIoU: intersection over union of pixels, mean over the classes"),
        Measure("macc", "mAcc", "mAcc: share of a class’s pixels that are found, mean over the classes"),
        Measure("aacc", "aAcc", "aAcc: share of all pixels that are right"),
    ),
    "detection": (
        Measure("box_ap", "Box AP", "AP: average precision, mean over overlaps of 50 to 95 % and over the classes"),
        Measure("box_ap50", "Box AP50", "AP50 and AP75: at an overlap of 50 and 75 %"),
        Measure("box_ap75", "Box AP75", ""),
        Measure("box_ap_small", "Box AP, small", "small: objects of fewer than 32² pixels; medium: up to 96²; large: above"),
        Measure("box_ap_medium", "Box AP, medium", ""),
        Measure("box_ap_large", "Box AP, large", ""),
        Measure("mask_ap", "Mask AP", ""),
        Measure("mask_ap50", "Mask AP50", ""),
        Measure("mask_ap75", "Mask AP75", ""),
        Measure("mask_ap_small", "Mask AP, small", ""),
        Measure("mask_ap_medium", "Mask AP, medium", ""),
        Measure("mask_ap_large", "Mask AP, large", ""),
    ),
}
"""Of each task; the first is what models are ranked by."""

_OF_SIZES = ("_small", "_medium", "_large")


def measures_of(task: TaskKind, *, by_size: bool = False) -> tuple[Measure, ...]:
    """Measures of a task: those of objects of one size alone, or all others."""
    return tuple(measure for measure in MEASURES[task] if measure.key.endswith(_OF_SIZES) == by_size)


BY_CLASS: Mapping[TaskKind, Mapping[str, str]] = {
    "segmentation": {"miou": "IoU"},
    "detection": {"box_ap": "box AP", "mask_ap": "mask AP"},
}
"""What is known class by class: the measure, and what it is called for one class."""


@dataclass(frozen=True)
class DenseModel:
    """One model: figures and intervals by measure, and figures by measure and class; None where one is not defined."""

    name: str
    num_parameters: int
    figures: Mapping[str, float | None]
    intervals: Mapping[str, Interval]
    by_class: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class Picture:
    """One test image and what is drawn on it: PNG files by `image`, `truth` and the name of each model."""

    files: Mapping[str, str]
    pngs: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class DenseEvaluation:
    """All models of a task on the same test images.

    Attributes:
        task: What they answer.
        num_images: Test images.
        class_names: In the order of the classes.
        models: By name.
        pictures: Of a few test images.
        shown_score: Smallest score of an object in them; None where that is not known, or the task has no objects.
    """

    task: TaskKind
    num_images: int
    class_names: tuple[str, ...]
    models: Mapping[str, DenseModel]
    pictures: tuple[Picture, ...]
    shown_score: float | None = None

    @property
    def main(self) -> Measure:
        """What models are ranked by."""
        return MEASURES[self.task][0]

    def ordered(self) -> tuple[DenseModel, ...]:
        """Every model: teacher, student, baseline."""
        return tuple(self.models[name] for name in MODELS if name in self.models)

    def absent_classes(self) -> tuple[str, ...]:
        """Classes for which no model has a figure: they are in no test image, and nobody saw them there."""
        found = [values for model in self.models.values() for values in model.by_class.values()]
        return tuple(name for name in self.class_names if all(values.get(name) is None for values in found))
