"""Latency of several runners in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..edge.measuring import MeasureSettings, Subject, Watch, measure
from ..edge.runner import Runner

_KEPT = ("verdict", "reasons", "p50_ms", "p90_ms", "p99_ms", "mean_ms", "min_ms", "images_per_s", "num_samples")


@dataclass(frozen=True)
class RaceSettings:
    """How long to measure.

    Attributes:
        batch: Images per call.
        seconds: The most time for each runner: a choice among runtimes takes less certainty than a number to publish.
        percentile: The highest that is wanted; with enough samples for it, and a precise median, it ends earlier.
    """

    batch: int = 1
    seconds: float = 4.0
    percentile: float = 90.0


def race(
    runners: Mapping[str, Runner],
    settings: RaceSettings = RaceSettings(),
    *,
    watch: Watch | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Time the networks in turn, A B C, B C A.

    Args:
        runners: By name, at least one; all of them stay open, and none runs while another is timed.
        settings: How long.
        watch: Reads the machine; None watches this one.
        tick: Told the undisturbed rounds so far, and how many there will be at least.

    Returns:
        By name: ``verdict`` and ``reasons`` (is the number to be believed?), ``p50_ms p90_ms p99_ms`` (None with too few samples for it),
        ``mean_ms min_ms images_per_s num_samples``; ``spread``, the range of the rounds' medians over their median; and ``batch``.
    """
    subjects = [
        Subject(name, settings.batch, partial(runner.forward, runner.prepare(_images(runner, settings.batch))))
        for name, runner in runners.items()
    ]
    session = measure(subjects, MeasureSettings(settings.percentile, settings.seconds), watch=watch, tick=tick)
    return {name: _summary(row, settings.batch) for name, row in session.rows.items()}


def _summary(row: Mapping[str, Any], batch: int) -> dict[str, Any]:
    medians = np.array(row["round_p50_ms"])
    return {**{key: row[key] for key in _KEPT}, "spread": float(np.ptp(medians) / np.median(medians)), "batch": batch}


def _images(runner: Runner, batch: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pre = runner.preprocessing
    return np.random.default_rng(0).integers(0, 256, (batch, pre.image_px, pre.image_px, pre.num_channels), dtype=np.uint8)
