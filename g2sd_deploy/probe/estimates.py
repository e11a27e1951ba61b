"""From a trial's times and sizes to those of the whole run: arithmetic alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MS = 1000


@dataclass(frozen=True)
class Estimate:
    """What one stage of the whole run takes; zero where it is up to date.

    Attributes:
        stage: Its name.
        runs: Whether the run would do it.
        reason: Why, or why not.
        seconds: Time.
        processes: That hold a device for that time.
        steps: Optimiser steps of a training.
        steps_tried: Those of the trial.
        step_ms: Time of one.
        images_per_s: Of all processes.
        waits: Share of a step that waits for images.
        peak_mib: Most memory of one process.
        disk_bytes: What the stage keeps.
        checkpoint_bytes: What lies on the disk, beside that, while it trains.
    """

    stage: str
    runs: bool
    reason: str
    seconds: float = 0.0
    processes: int = 1
    steps: int | None = None
    steps_tried: int | None = None
    step_ms: float | None = None
    images_per_s: float | None = None
    waits: float | None = None
    peak_mib: float = 0.0
    disk_bytes: int = 0
    checkpoint_bytes: int = 0

    @property
    def hours(self) -> float:
        """Time of all processes: what is paid for."""
        return self.seconds * self.processes / 3600


@dataclass(frozen=True)
class Totals:
    """Sums, and the largest where stages follow one another in the same room."""

    seconds: float
    hours: float
    peak_mib: float
    disk_bytes: int
    checkpoint_bytes: int


def totals_of(estimates: Sequence[Estimate]) -> Totals:
    """Of all stages."""
    return Totals(
        seconds=sum(one.seconds for one in estimates),
        hours=sum(one.hours for one in estimates),
        peak_mib=max((one.peak_mib for one in estimates), default=0.0),
        disk_bytes=sum(one.disk_bytes for one in estimates),
        checkpoint_bytes=max((one.checkpoint_bytes for one in estimates), default=0),
    )


def step_ms_of(figures: Mapping[str, Any]) -> float:
    """A step computes while the loader's workers prepare later ones, so the slower of the two decides.

    Args:
        figures: `compute_ms` and `loader_ms` of the trial.
    """
    return max(float(figures["compute_ms"]), float(figures["loader_ms"]))


def waits_of(figures: Mapping[str, Any]) -> float:
    """Share of a step in which nothing is computed for want of images."""
    step = step_ms_of(figures)
    return 1 - float(figures["compute_ms"]) / step if step else 0.0


def training_seconds(trial_seconds: float, steps_tried: int, steps: int, step_ms: float) -> float:
    """What a trial took beyond its steps (networks, processes, first steps, weights) comes once; the steps come as often as there are."""
    once = max(0.0, trial_seconds - steps_tried * step_ms / _MS)
    return once + steps * step_ms / _MS


def stretched_seconds(trial_seconds: float, parts: Sequence[tuple[float, float]]) -> float:
    """Time of a stage whose parts grow with the number of images; the rest of it does not.

    Args:
        trial_seconds: The whole stage in the trial.
        parts: Of each part that grows: its time in the trial, and how many times longer it is in the run.
    """
    return trial_seconds + sum(seconds * (factor - 1) for seconds, factor in parts)


def profile_seconds(trial_seconds: float, num_series: int, series_tried_s: float, series_s: float) -> float:
    """Most time of the latency stage: the trial's, and what its series were cut short by.

    Args:
        num_series: Models on runtimes, with each batch and scenario.
        series_tried_s: Most time of each in the trial.
        series_s: Most time of each in the run.
    """
    return trial_seconds + num_series * max(0.0, series_s - series_tried_s)


def full_bytes(files: Mapping[str, int], factors: Mapping[str, float]) -> int:
    """Size of an artifact.

    Args:
        files: Bytes of each file in the trial, by its name within the artifact.
        factors: How many times larger it is in the run, by the beginning of its name; the others keep their size.
    """
    return sum(round(size * next((f for start, f in factors.items() if name.startswith(start)), 1.0)) for name, size in files.items())
