"""What a run folder says, as frozen types; fractions stay in [0, 1] and sizes in the unit of the field name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from g2sd_deploy.report.dense_scores import DenseEvaluation, TaskKind
from g2sd_deploy.report.formatting import MIB
from g2sd_deploy.report.latency import Profile, TimedRow
from g2sd_deploy.report.scores import Evaluation, Interval, ModelScores

Verdict = Literal["passed", "failed", "not_run"]

STAGES = ("data", "teacher", "pretrain", "finetune", "generic", "specific", "quantise", "baseline", "evaluate", "export", "profile")
TASK_FILES = ("segmenter.safetensors", "detector.safetensors")
TRAINING_STAGES = ("pretrain", "finetune", "generic", "specific", "quantise", "baseline")
STAGES_THAT_TRAIN: Mapping[str, tuple[str, ...]] = {
    "teacher": ("pretrain", "finetune"),
    "student": ("generic", "specific"),
    "baseline": ("baseline",),
}


@dataclass(frozen=True)
class FileRecord:
    """One file of an artifact."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class StageRecord:
    """One artifact: who made it, from what, with which tools, in how long."""

    name: str
    key: str
    digest: str
    seconds: float
    finished_at: str
    files: Mapping[str, FileRecord]
    parents: Mapping[str, str]
    tools: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class DataFacts:
    """The images a run used; `preview_png` is a strip of samples, empty where the stage wrote none."""

    num_train: int
    num_test: int
    num_classes: int
    class_names: tuple[str, ...]
    image_px: int
    num_channels: int
    fingerprint: str
    description: str
    preview_png: bytes
    num_test_objects: int | None = None


@dataclass(frozen=True)
class TeacherFile:
    """A file that teaches, in the role it plays; the licence is empty where nobody says."""

    role: str
    source: str
    file: str
    sha256: str
    description: str
    licence: str


@dataclass(frozen=True)
class TeacherFacts:
    """Where the teacher came from."""

    source: str
    num_parameters: int
    classifier_parameters: int | None
    files: tuple[TeacherFile, ...]


@dataclass(frozen=True)
class LossPoint:
    """One logged step; `terms` are the parts of the loss by name, where the stage logs them."""

    step: int
    epoch: float
    loss: float
    lr: float | None
    terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rounding:
    """What `bits` bits cost the student on training images that were held out, and what training won back; None where nothing was lost."""

    bits: int
    num_images: int
    top1_float: float
    top1_before: float
    top1_after: float
    recovered: float | None


@dataclass(frozen=True)
class Training:
    """One training stage and its loss curve."""

    stage: str
    method: str
    first_loss: float
    final_loss: float
    num_parameters: int
    model_bytes: int
    images_seen: int
    images_per_s: float
    train_seconds: float
    device: str
    history: tuple[LossPoint, ...]
    warnings: tuple[str, ...] = ()
    loss_band: tuple[Verdict, str] | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Parity:
    """Is the exported file the model that was scored? A check that did not run has a reason and no numbers."""

    verdict: Verdict
    reason: str
    num_images: int | None = None
    flipped: int | None = None
    flipped_share: float | None = None
    max_abs_logit_diff: float | None = None
    mean_abs_logit_diff: float | None = None
    min_cosine: float | None = None
    mean_kl: float | None = None
    top1_reference: float | None = None
    top1_candidate: float | None = None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    reference: str = ""
    candidate: str = ""
    name: str = ""
    figures: Mapping[str, float | None] = field(default_factory=dict)  # of a task, in place of logits and top-1


@dataclass(frozen=True)
class Candidate:
    """One way to run the exported model, and what became of it; figures are None where it did not run.

    `figures` are those of a task, which has no top-1 and no flips.
    """

    name: str
    runtime: str
    verdict: Verdict
    why: str
    top1: float | None
    drop_points: float | None
    flipped: int | None
    p50_ms: float | None
    file_bytes: int | None
    chosen: bool
    figures: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Top-1, or what stands for it in a task: mIoU, box AP."""
        return self.top1 if self.top1 is not None else self.figures.get("miou_candidate", self.figures.get("ap_candidate"))


@dataclass(frozen=True)
class Standing:
    """The float model or the file that ships, on the images of the proof."""

    top1: float
    ece: float
    mean_corruption_top1: float | None
    corruptions: Mapping[str, float]


@dataclass(frozen=True)
class Export:
    """The file that ships, every other one that was tried, and the bundle; `bundle` is a folder name inside the export artifact.

    `licences` are those of code, model, data and teacher as the bundle states them; `weights_sha256` is of the file that was exported.
    """

    target: str
    default: str
    model_file: str
    model_bytes: int
    model_sha256: str
    bundle: str
    bundle_bytes: int
    parity: Parity
    hops: tuple[Parity, ...]
    candidates: tuple[Candidate, ...]
    standing: Mapping[str, Standing]
    licences: Mapping[str, str]
    weights_sha256: str
    manifest_sha256: str


@dataclass(frozen=True)
class RunSummary:
    """Everything the report shows. A stage that did not run is None (or missing) and named in `absent` with its reason.

    A run with a task has its scores in `dense`, any other in `evaluation`.
    """

    title: str
    recipe: str
    description: str
    recipe_sha256: str
    command: str
    resolved: Mapping[str, object]
    stages: tuple[StageRecord, ...]
    absent: Mapping[str, str]
    data: DataFacts | None
    teacher: TeacherFacts | None
    training: Mapping[str, Training]
    evaluation: Evaluation | None
    export: Export | None
    profile: Profile | None
    task: TaskKind | None = None
    dense: DenseEvaluation | None = None

    @property
    def parity(self) -> Parity:
        """The parity check; `not_run` with the reason where nothing was exported."""
        return self.export.parity if self.export else Parity("not_run", self.absent["export"])

    def scores(self, model: str) -> ModelScores | None:
        """Scores of one model, None where it was not evaluated."""
        return self.evaluation.models.get(model) if self.evaluation else None

    def scored_models(self) -> tuple[ModelScores, ...]:
        """Evaluated models: teacher, student, baseline, then any others."""
        return self.evaluation.ordered() if self.evaluation else ()

    def scored_names(self) -> tuple[str, ...]:
        """Names of the evaluated models, in the order of `scored_models`."""
        return tuple(model.name for model in (self.dense.ordered() if self.dense else self.scored_models()))

    @property
    def measure(self) -> str:
        """What models are ranked by, within a sentence: top-1, mIoU, box AP."""
        return {None: "top-1", "segmentation": "mIoU", "detection": "box AP"}[self.task]

    def main_score(self, model: str) -> float | None:
        """What models are ranked by, in [0, 1]; None where the model was not evaluated."""
        if self.dense:
            return self.dense.models[model].figures[self.dense.main.key] if model in self.dense.models else None
        scores = self.scores(model)
        return scores.clean.top1 if scores and scores.clean_scores else None

    def main_interval(self, model: str) -> Interval | None:
        """The 95 % interval of `main_score`, where there is one."""
        if self.dense:
            return self.dense.models[model].intervals.get(self.dense.main.key) if model in self.dense.models else None
        scores = self.scores(model)
        return scores.clean.intervals.get("top1") if scores and scores.clean_scores else None

    def num_parameters(self, model: str) -> int | None:
        """Parameters of an evaluated model."""
        if self.dense:
            return self.dense.models[model].num_parameters if model in self.dense.models else None
        scores = self.scores(model)
        return scores.num_parameters if scores else None

    def model_mib(self, model: str) -> float | None:
        """Size of a model's weights; of a task's, that of the file of the last stage that trained it, or of the teacher that came whole."""
        scores = self.scores(model)
        if scores:
            return scores.model_mib
        trained = [self.training[stage].model_bytes for stage in STAGES_THAT_TRAIN.get(model, ()) if stage in self.training]
        taken_in = next((stage.files for stage in self.stages if stage.name == "teacher"), {}) if model == "teacher" else {}
        whole = [file.num_bytes for name, file in taken_in.items() if name in TASK_FILES]
        found = whole or trained[-1:]
        return found[0] / MIB if found and model in self.scored_names() else None

    def share_of_teacher(self, model: str) -> float | None:
        """`main_score` of a model over the teacher's, None where either is unknown."""
        teacher, other = self.main_score("teacher"), self.main_score(model)
        return other / teacher if teacher and other is not None else None

    def times_smaller(self, model: str) -> float | None:
        """Parameters of the teacher over those of a model, None where either is unknown."""
        teacher, other = self.num_parameters("teacher"), self.num_parameters(model)
        return teacher / other if teacher and other else None

    @property
    def baseline_is_generic(self) -> bool:
        """Does the baseline start from the same generic stage as the student?"""
        settings = self.resolved.get("baseline")
        return isinstance(settings, Mapping) and settings.get("start") == "generic"

    def train_seconds(self, model: str) -> float | None:
        """Training time of a model over its stages, None where this run did not train it."""
        shared = ("generic",) if model == "baseline" and self.baseline_is_generic else ()
        spent = [self.training[stage].train_seconds for stage in (*shared, *STAGES_THAT_TRAIN.get(model, ())) if stage in self.training]
        return sum(spent) if spent else None

    def shipped_latency(self, model: str, batch: int = 1) -> TimedRow | None:
        """The row to speak of: what ships, where the model has been exported and was timed so, else its fastest.

        None where there is none to believe: an invalid row of what ships is not replaced by another way to run it.
        """
        every = self.profile.rows if self.profile else ()
        rows = [row for row in every if row.model == model and row.batch == batch and row.verdict != "not_run"]
        ships = [row for row in rows if self.export and row.variant == self.export.default]
        timed = [(row.p50_ms, row) for row in ships or rows if row.scenario == "single_stream" and row.p50_ms]
        return min(timed, key=lambda pair: pair[0])[1] if timed else None

    @property
    def times_faster(self) -> float | None:
        """p50 of the teacher over that of the student as it ships, None where either was not timed or may not be used."""
        student, teacher = self.shipped_latency("student"), self.shipped_latency("teacher")
        return teacher.p50_ms / student.p50_ms if student and teacher and student.p50_ms and teacher.p50_ms else None
