"""What an evaluation says, as frozen types; fractions stay in [0, 1], and an interval holds 95 %."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MODELS = ("teacher", "student", "baseline")
# Colours of models by other names, in the order in which they are taken.
OTHER_SERIES = ("student", "baseline", "other", "green", "rose", "teacher")

Interval = tuple[float, float]


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in one range; confidence and accuracy are None where there are none."""

    low: float
    high: float
    num: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class RiskCoverage:
    """Share of wrong decisions among the images that the model is surest of, by the share of images that these are."""

    coverage: tuple[float, ...]
    risk: tuple[float, ...]


@dataclass(frozen=True)
class PerClass:
    """Images and top-1 of every class, in the order of the classes; top-1 is None where a class has no image."""

    num: tuple[int, ...]
    top1: tuple[float | None, ...]


@dataclass(frozen=True)
class Agreement:
    """How near a model is to the teacher: share of equal decisions, and KL(teacher || model) in nats."""

    same: float
    kl: float | None
    intervals: Mapping[str, Interval]


@dataclass(frozen=True)
class Scores:
    """Accuracy and calibration on one set of images; what was not measured is None or empty."""

    top1: float
    top5: float | None
    nll: float | None
    ece: float | None
    num_images: int | None
    brier: float | None = None
    ece_equal_mass: float | None = None
    aurc: float | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    per_class: PerClass | None = None
    reliability: tuple[Bin, ...] = ()
    risk_coverage: RiskCoverage | None = None
    agreement: Agreement | None = None


Corruptions = Mapping[str, Mapping[int, Scores]]


@dataclass(frozen=True)
class CorruptedSet:
    """A published set of corrupted images (ImageNet-C); an error of 1 is always wrong, an mCE of 1 as often wrong as AlexNet."""

    mean_error: float | None
    mce: float | None
    relative_mce: float | None
    intervals: Mapping[str, Interval]
    corruptions: Corruptions


@dataclass(frozen=True)
class Preparation:
    """How images become a model's input; `mean` and `std` per channel, in units of pixel / 255."""

    image_px: int
    resize_px: int | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class OcclusionCurve:
    """Top-1 at each share of removed patches, and the same over the model's top-1 with none removed."""

    top1: tuple[float, ...]
    interval: tuple[Interval, ...]
    relative: tuple[float | None, ...]


@dataclass(frozen=True)
class ModelScores:
    """One model: what it is, and its scores by set; `corruptions` is name -> severity -> scores."""

    name: str
    num_parameters: int | None
    model_mib: float
    clean_scores: Scores | None
    corruptions: Corruptions
    mean_corruption_top1: float | None
    mean_corruption_interval: Interval | None = None
    sets: Mapping[str, Scores] = field(default_factory=dict)
    corrupted_sets: Mapping[str, CorruptedSet] = field(default_factory=dict)
    occlusion: Mapping[str, OcclusionCurve] = field(default_factory=dict)
    runtime: str = ""
    digest: str = ""
    preparation: Preparation | None = None

    @property
    def clean(self) -> Scores:
        """Scores on the test set of a run, which every model of a run has."""
        assert self.clean_scores is not None, f"{self.name} comes from a standalone evaluation"
        return self.clean_scores


@dataclass(frozen=True)
class SetFacts:
    """One way to score a set of images, in words and numbers; `skipped` names some of the images that could not be used."""

    note: str
    num_images: int | None
    num_classes: int | None
    num_skipped: int
    skipped: tuple[tuple[str, str], ...]
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class OcclusionFacts:
    """What all occlusion curves share: `shares` of removed patches, and how they were removed."""

    shares: tuple[float, ...]
    grid: int
    num_images: int
    seed: int | None
    salience: str
    fill: str


@dataclass(frozen=True)
class LayerPair:
    """CKA of each layer of the reference (rows) with each layer of a model (columns); None where it is not defined."""

    name: str
    when: str
    reference: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cka: tuple[tuple[float | None, ...], ...]

    def at_equal_depth(self) -> tuple[float | None, ...]:
        """CKA of each layer of the model with the layer of the reference at the nearest relative depth."""
        steps = max(len(self.columns) - 1, 1)
        return tuple(self.cka[round(column * (len(self.rows) - 1) / steps)][column] for column in range(len(self.columns)))


@dataclass(frozen=True)
class HeadDistances:
    """Mean attention distance in pixels, per block and head, of one model; None where it is not defined."""

    name: str
    when: str
    image_px: int
    px: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Similarity:
    """Representations of models beside those of others."""

    num_images: int
    batch_size: int | None
    note: str
    pairs: tuple[LayerPair, ...]
    attention_distance: tuple[HeadDistances, ...]


@dataclass(frozen=True)
class Evaluation:
    """All models that were scored; `agreement` is the share of images decided as the model `teacher` decides."""

    models: Mapping[str, ModelScores]
    num_corruption_images: int
    corruption_note: str
    agreement: Mapping[str, float]
    sets: Mapping[str, SetFacts] = field(default_factory=dict)
    occlusion: OcclusionFacts | None = None
    similarity: Similarity | None = None
    teacher: str = "teacher"

    def ordered(self) -> tuple[ModelScores, ...]:
        """Every model: teacher, student, baseline, then any others as they came."""
        return tuple(self.models[name] for name in (*MODELS, *(name for name in self.models if name not in MODELS)) if name in self.models)

    def series(self) -> dict[str, str]:
        """Name of the colour of each model."""
        return series_of(scores.name for scores in self.ordered())

    def set_names(self) -> tuple[str, ...]:
        """Every way in which images were scored beside the run's own test set, in the order of the evaluation."""
        return tuple(dict.fromkeys((*self.sets, *(name for scores in self.ordered() for name in scores.sets))))


def shown_name(model: str) -> str:
    """The three models of a run with a capital; any other name as it was given."""
    return model.capitalize() if model in MODELS else model


def series_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each model: its own for the three of a run, one of those left for any other; they repeat when there are more."""
    every = tuple(names)
    left = [colour for colour in OTHER_SERIES if colour not in every]
    others = [name for name in every if name not in MODELS]
    return {name: name for name in every if name in MODELS} | {name: left[index % len(left)] for index, name in enumerate(others)}
