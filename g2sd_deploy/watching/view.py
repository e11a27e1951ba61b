"""What a viewer knows of a run at one moment, as frozen types. Ages are in seconds of the viewer's clock and never negative."""

from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "running", "stopped", "done", "failed", "blocked", "earlier"]
"""`earlier`: finished, but something that it builds on, or its settings, changed since, so it may run again. `blocked`: builds on a
stage that failed. `stopped`: was begun, and no process of this machine is at work on it."""
FINISHED: tuple[State, ...] = ("done", "failed", "blocked")
HolderState = Literal["alive", "gone", "elsewhere", "unknown"]


@dataclass(frozen=True)
class Holder:
    """The process that writes the run; `elsewhere` and `unknown` where this machine cannot tell whether it lives."""

    state: HolderState
    host: str = ""
    pid: int | None = None
    since: str = ""


@dataclass(frozen=True)
class Training:
    """A training in progress.

    Attributes:
        done_steps: Optimiser steps behind the newest row.
        num_steps: Of the whole stage; None in rows that do not say.
        smoothed_loss: Mean of the last rows.
        images_per_s: Of the last rows, else of the whole training.
        losses: Every finite loss so far, in order.
        row_age_s: Since the newest row; None where that is not known.
        is_late: No row for much longer than there was between the last ones.
    """

    done_steps: int
    num_steps: int | None
    epoch: float
    num_epochs: float | None
    loss: float
    smoothed_loss: float
    losses: tuple[float, ...]
    lr: float | None
    images_per_s: float | None
    seconds_left: float | None
    row_age_s: float | None
    is_late: bool

    @property
    def share(self) -> float | None:
        """Of the steps, in [0, 1]."""
        return min(1.0, self.done_steps / self.num_steps) if self.num_steps else None


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of a stage."""

    num_steps: int
    age_s: float


@dataclass(frozen=True)
class StageView:
    """One stage.

    Attributes:
        seconds: What it took, or has taken so far; None where that is not known.
        note: What came of it, or where its loss has to be.
    """

    name: str
    state: State
    seconds: float | None = None
    note: str = ""
    training: Training | None = None
    checkpoint: Checkpoint | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunView:
    """A run; `remarks` are sentences on clocks and on files that cannot be read."""

    folder: str
    recipe: str
    command: str
    stages: tuple[StageView, ...]
    holder: Holder
    remarks: tuple[str, ...]

    @property
    def current(self) -> StageView | None:
        """The stage in work, else the one that was stopped."""
        found = {stage.state: stage for stage in reversed(self.stages)}
        return found.get("running") or found.get("stopped")

    @property
    def ended(self) -> bool:
        """Nothing is left to do, and no process is known to think otherwise."""
        return bool(self.stages) and all(stage.state in FINISHED for stage in self.stages) and self.holder.state != "alive"
