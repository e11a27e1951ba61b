"""Folders of runs as they look from outside, at any moment of their life."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import g2sd_deploy
import g2sd_export

STAGES: Mapping[str, Sequence[str]] = {
    "data": [],
    "teacher": ["data"],
    "generic": ["data", "teacher"],
    "specific": ["data", "generic", "teacher"],
    "export": ["data", "specific"],
    "report": ["data", "export", "generic", "specific", "teacher"],
}
START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BAND = {"start": [0.1, 1.0], "below": 0.2, "after": 0.5}


def at(seconds: float) -> str:
    """A time of the machine that trains, as files hold it."""
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RunFolder:
    """A run's folder that a test fills as a run would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resolved: dict[str, Any] = {"name": "tiny", **{name: {} for name in STAGES}}
        self.resolved["generic"] = {"epochs": 4.0, "batch_size": 64, "loss_band": BAND}

    def begin(self, stages: Mapping[str, Sequence[str]] = STAGES) -> "RunFolder":
        """As a run that was just started."""
        self.folder.mkdir(exist_ok=True)
        record = {"recipe": "tiny", "command": "g2sd run tiny", "resolved": self.resolved, "stages": stages}
        (self.folder / "run.json").write_text(json.dumps(record))
        return self

    def finish(self, stage: str, *, failure: str = "", seconds: float = 3.0, finished_s: float = 0.0, **changed: Any) -> "RunFolder":
        """As a stage that ended."""
        (self.folder / f".{stage}.unfinished").rmdir() if (self.folder / f".{stage}.unfinished").is_dir() else None
        (self.folder / stage).mkdir(exist_ok=True)
        marker = {
            "digest": f"digest of {stage}",
            "parents": {parent: f"digest of {parent}" for parent in STAGES[stage]},
            "config": {stage: self.resolved[stage] | {"unset": None}},
            "metrics": {},
            "failure": failure,
            "seconds": seconds,
            "finished_at": at(finished_s),
        }
        (self.folder / stage / "artifact.json").write_text(json.dumps(marker | changed))
        return self

    def work_on(self, stage: str) -> "RunFolder":
        """As a stage that began."""
        (self.folder / f".{stage}.unfinished").mkdir()
        return self

    def add(self, *rows: Mapping[str, Any], file: str = "metrics.jsonl") -> "RunFolder":
        """Append rows."""
        with (self.folder / file).open("a") as opened:
            opened.write("".join(json.dumps(row) + "\n" for row in rows))
        return self

    def train(self, stage: str, steps: Sequence[int], *, loss: float = 0.3, first_s: float = 0.0, num_steps: int = 100) -> "RunFolder":
        """Rows of a training that does a step in 0.1 s; the one of `steps[0]` is written at `first_s`."""
        return self.add(*(self.row(stage, step, loss, first_s + 0.1 * (step - steps[0]), num_steps) for step in steps))

    @staticmethod
    def row(stage: str, step: int, loss: float = 0.3, time_s: float | None = 0.0, num_steps: int = 100) -> dict[str, Any]:
        """A row as training writes it; without a time as one that a checkpoint knew."""
        found = {"stage": stage, "step": step, "epoch": step / 25, "loss": loss, "lr": 1e-3, "num_steps": num_steps}
        return found if time_s is None else {**found, "images_per_s": 500.0, "time": at(time_s)}

    def hold(self, host: str, pid: int = 7, since_s: float = -10.0) -> "RunFolder":
        """As a process of some machine that holds the lock, or did."""
        (self.folder / ".lock").write_text(json.dumps({"host": host, "pid": pid, "since": at(since_s)}) + "\n")
        return self


class Clock:
    """Both clocks of a viewer, in seconds after START; a test sets them."""

    def __init__(self) -> None:
        self.now_s = self.tick_s = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    def tick(self) -> float:
        return 1000.0 + self.tick_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.tick_s += seconds


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "out")


@pytest.fixture(name="at")
def _at() -> Callable[[float], str]:
    return at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For a process of its own: where the packages are."""
    roots = {str(Path(str(package.__file__)).parent.parent) for package in (g2sd_deploy, g2sd_export)}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots)), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def g2sd_line() -> Callable[..., list[str]]:
    """`g2sd ARGUMENTS` as the words of a command."""
    return lambda *arguments: [sys.executable, "-m", "g2sd_deploy", *map(str, arguments)]
