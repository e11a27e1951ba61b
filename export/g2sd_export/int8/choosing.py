"""Which quantised file stands for the model: inside the accuracy budget, and only if it is faster than float."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .packing import Scheme
from .quantise import Images, Method, Quantised, Source, candidates
from .sensitivity import Sensitivity, worst

TIE = 0.03
"""Latencies that differ by less than this share are a tie, which the more accurate file or number format wins."""


@dataclass(frozen=True)
class Score:
    """What was measured of a file.

    Attributes:
        drop_points: Percentage points of the task's metric lost against float; negative where it gained.
        latency_ms: Of the file on the target's runtime; None where it was not timed.
        flipped: Share in [0, 1] of decisions that differ from the float model's.
    """

    drop_points: float
    latency_ms: float | None = None
    flipped: float = 0.0


@dataclass(frozen=True)
class Choice:
    """What was decided.

    Attributes:
        accepted: The file that ships; None where float does.
        reason: Why, with the numbers, in one sentence.
        scores: Each file that was made, with what was measured of it.
        missing: Methods without a file, and why.
    """

    accepted: Quantised | None
    reason: str
    scores: tuple[tuple[Quantised, Score], ...]
    missing: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        scored = [
            {**file.to_dict(), "drop_points": score.drop_points, "flipped": score.flipped, "latency_ms": score.latency_ms}
            for file, score in self.scores
        ]
        accepted = self.accepted.method if self.accepted else None
        return {"accepted": accepted, "reason": self.reason, "candidates": scored, "missing": dict(self.missing)}


def choose(
    files: Sequence[Quantised],
    score: Callable[[Quantised], Score],
    *,
    budget_points: float = 0.3,
    float_latency_ms: float | None = None,
    metric: str = "top-1",
) -> Choice:
    """Measure quantised files and take one, or none.

    Args:
        files: As ``candidates`` gives them.
        score: Measures one; called once for each that has a file.
        budget_points: Percentage points of the metric that may be lost.
        float_latency_ms: What the float model takes on the same runtime; None where nothing is timed.
        metric: Its name, for people.

    Returns:
        The fastest one inside the budget, the most accurate of those that are as fast within 3 %; none if float is as fast.
    """
    missing = tuple((file.method, file.why_not) for file in files if file.info is None)
    scores = tuple((file, score(file)) for file in files if file.info is not None)
    if not scores:
        return Choice(None, f"INT8 is not used: no file was made ({'; '.join(f'{name}: {why}' for name, why in missing)})", (), missing)
    inside = [(file, got) for file, got in scores if math.isfinite(got.drop_points) and got.drop_points <= budget_points]
    if not inside:
        file, got = min(scores, key=lambda each: _rank(each[1]))
        lost = f"the best of {len(scores)}, {_name(file)}, loses {got.drop_points:.2f} points of {metric}"
        return Choice(None, f"INT8 is not used: {lost}, and the budget is {budget_points:g}", scores, missing)
    fastest = min((got.latency_ms for _, got in inside if got.latency_ms is not None), default=None)
    near = [each for each in inside if fastest is None or (each[1].latency_ms or math.inf) <= fastest * (1 + TIE)]
    file, got = min(near, key=lambda each: _rank(each[1]))
    if got.latency_ms is None or float_latency_ms is None:
        return Choice(file, f"{_name(file)} loses the least, {got.drop_points:.2f} points of {metric}", scores, missing)
    times = f"{got.latency_ms:.3g} ms, float {float_latency_ms:.3g} ms"
    if got.latency_ms >= float_latency_ms * (1 - TIE):
        return Choice(None, f"INT8 is not used: it is not faster ({_name(file)} takes {times})", scores, missing)
    return Choice(file, f"{_name(file)} takes {times}, and loses {got.drop_points:.2f} points of {metric}", scores, missing)


def rescued(
    source: Source,
    images: Images,
    method: Method,
    score: Callable[[Quantised], Score],
    *,
    scheme: Scheme,
    folder: Path,
    order: Sequence[Sensitivity],
    most: int,
    budget_points: float = 0.3,
) -> list[Quantised]:
    """Keep more and more of the most sensitive layers in float until a file is inside the budget.

    Args:
        source: The float model with its calibration images.
        images: The calibration images.
        method: Whose file is to be rescued.
        score: Measures one file.
        scheme: Who computes.
        folder: Where files are written; each attempt has its own sub-folder.
        order: Groups, the worst first.
        most: How many may stay float.
        budget_points: Percentage points of the metric that may be lost.

    Returns:
        The attempts in order; the last is inside the budget, or no attempt is. Empty if no group stands out.
    """
    groups = worst(order, min(most, len(order) - 1))  # a file in which all layers stay is no INT8 file
    attempts: list[Quantised] = []
    for count in dict.fromkeys(min(2**power, len(groups)) for power in range(len(groups).bit_length() + 1) if groups):
        made = candidates(source, images, scheme=scheme, methods=[method], folder=folder / f"float{count}", keep=groups[:count])
        attempts += made
        if made[0].info is None or score(made[0]).drop_points <= budget_points:
            break
    return attempts


def _rank(score: Score) -> tuple[float, float, float]:
    drop = score.drop_points if math.isfinite(score.drop_points) else math.inf
    return drop, score.flipped, score.latency_ms or math.inf


def _name(file: Quantised) -> str:
    return f"{file.method} with {len(file.kept)} layers in float" if file.kept else file.method
