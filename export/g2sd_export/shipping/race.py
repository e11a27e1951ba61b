"""Latency of several runners in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..edge.runner import Runner
from ..edge.timing import measure_in_turns, summarise

ROUNDS = 7
"""Turns of each runner; an odd number has a middle one."""
CALLS = 12
"""Timed calls of a turn."""
_WARMUP = 3


@dataclass(frozen=True)
class RaceSettings:
    """How long to measure.

    Attributes:
        batch: Images per call.
        rounds: Turns of each runner.
        calls: Timed calls of a turn; a few more before them are not timed.
    """

    batch: int = 1
    rounds: int = ROUNDS
    calls: int = CALLS


def race(
    runners: Mapping[str, Runner], settings: RaceSettings = RaceSettings(), *, tick: Callable[[int, int], None] | None = None
) -> dict[str, dict[str, float | int]]:
    """Time the networks in turn, A B C A B C.

    Args:
        runners: By name; all of them stay open, and none runs while another is timed.
        settings: How long.
        tick: Told the turns that are done, and all of them.

    Returns:
        By name: what ``summarise`` gives of all calls, with ``p50_ms`` replaced by the median over turns of each turn's median, which one
        disturbed turn does not move; ``spread`` is the range of the turns' medians over their median; and ``batch``.
    """
    prepared = {name: runner.prepare(_images(runner, settings.batch)) for name, runner in runners.items()}
    runs = {name: partial(runner.forward, prepared[name]) for name, runner in runners.items()}
    samples = measure_in_turns(runs, [settings.calls] * settings.rounds, warmup=_WARMUP, tick=tick)
    return {name: _summary(turns, settings.batch) for name, turns in samples.items()}


def _summary(turns: list[list[float]], batch: int) -> dict[str, float | int]:
    medians = np.array([np.median(turn) for turn in turns])
    middle = float(np.median(medians))
    found = summarise([sample for turn in turns for sample in turn], batch)
    return {**found, "p50_ms": middle, "spread": float(np.ptp(medians)) / middle, "batch": batch}


def _images(runner: Runner, batch: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pre = runner.preprocessing
    return np.random.default_rng(0).integers(0, 256, (batch, pre.image_px, pre.image_px, pre.num_channels), dtype=np.uint8)
