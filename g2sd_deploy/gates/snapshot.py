"""What a run is remembered by: one JSON object, the same for a baseline and for the run that is held against it."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.errors import UserError

FORMAT = 1
Interval = tuple[float, float] | None


class Part(BaseModel):
    """Base of every part of a snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Answers(Part):
    """Which images of a set a model got right."""

    set: str
    """Scoring, as `clean` for the run's test images."""
    variant: str
    """What was done to the images ("" is nothing, "fog/3")."""
    num_images: int
    images: str
    """SHA-256 of the names, places and labels of the images, in order."""
    right: str
    """A bit for each image, in order, the highest bit first, padded with 0, as base64."""


class SetFigures(Part):
    """Scores on one set, clean."""

    num_images: int
    top1: float
    top1_interval: Interval = None
    ece: float | None = None
    ece_interval: Interval = None


class Score(Part):
    """A figure of a task's model on the run's test images: mIoU or average precision."""

    value: float
    num_images: int
    interval: Interval = None


class Corruptions(Part):
    """Accuracy under corruption."""

    top1: dict[str, float]
    """By corruption and severity: "fog/3"."""
    num_images: int
    mean: float
    interval: Interval = None


class Changes(Part):
    """What became of the answers of another model of the run."""

    of: str
    num_images: int
    lost: int
    gained: int


class Model(Part):
    """One model of a run."""

    digest: str | None = None
    file_bytes: int | None = None
    num_parameters: int | None = None
    sets: dict[str, SetFigures] = {}
    corruptions: Corruptions | None = None
    answers: tuple[Answers, ...] = ()
    changes: Changes | None = None
    scores: dict[str, Score] = {}
    """Of a task: "miou", or "box_ap" and "mask_ap"."""


class Parity(Part):
    """Verdicts of the export."""

    verdict: Literal["passed", "failed", "not_run"]
    reason: str
    default: str
    candidates: dict[str, str]
    """Verdict by name."""


class Ratio(Part):
    """A row's latency relative to the reference."""

    value: float
    interval: tuple[float, float]
    num_rounds: int
    reasons: tuple[str, ...] = ()
    """Why it is not to be believed, whatever became of the milliseconds."""


class Row(Part):
    """One timed model."""

    model: str
    variant: str
    runtime: str
    version: str
    provider: str
    precision: str
    batch: int
    threads: int | None
    scenario: str
    verdict: Literal["valid", "invalid", "not_run"]
    reasons: tuple[str, ...] = ()
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    ratio: Ratio | None = None

    @property
    def name(self) -> str:
        """What the row times and how, without the version of the runtime."""
        parts = [self.model, self.variant, self.runtime, self.provider, self.precision, f"batch {self.batch}"]
        scenario = "" if self.scenario == "single_stream" else self.scenario
        return " ".join(part for part in [*dict.fromkeys(parts), scenario] if part)


class Profile(Part):
    """Latencies of one session on one machine."""

    cpu: str
    cpus: int | None
    system: str
    reference: str | None
    reference_digest: str | None
    rows: tuple[Row, ...]

    @property
    def machine(self) -> str:
        """The machine for people."""
        return f"{self.cpu or 'unknown processor'}, {self.cpus if self.cpus is not None else 'unknown number of'} CPUs"


class Curve(Part):
    """Loss of a training, in tenths of its length."""

    method: str
    num_steps: int
    epochs: float
    means: tuple[float, ...]
    errors: tuple[float, ...]
    """Standard errors of the means."""


class Snapshot(Part):
    """A run in brief."""

    format: Literal[1] = 1
    recipe: str
    made_of: dict[str, str]
    """Digests of the artifacts, by stage, and of the profiles."""
    models: dict[str, Model]
    parity: Parity | None = None
    profiles: tuple[Profile, ...] = ()
    losses: dict[str, Curve] = {}


def text_of(snapshot: Snapshot) -> str:
    """The file's text: the same bytes for the same run."""
    return json.dumps(snapshot.model_dump(mode="json", exclude_defaults=True) | {"format": FORMAT}, indent=1, sort_keys=True) + "\n"


def write_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Write a baseline whole.

    Raises:
        UserError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(path, text_of(snapshot))
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}); give a file in a folder that you may write to") from None


def read_snapshot(path: Path) -> Snapshot:
    """Read a baseline.

    Raises:
        UserError: It cannot be read, is no baseline, or of a format that this version does not know.
    """
    values = read_json(path, "a baseline", "make one with `g2sd baseline update RUN`")
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path}: has format {values.get('format')!r}; wanted a baseline of format {FORMAT}; make it again with `g2sd baseline update`"
        )
    try:
        return Snapshot.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: {where}: {problem['msg'].lower()}; make it again with `g2sd baseline update RUN`") from None


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """An object from a file.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {what} cannot be read from it ({error.strerror}); {remedy}") from None
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); wanted {what}; {remedy}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds {type(values).__name__}; wanted {what}, an object; {remedy}")
    return values
