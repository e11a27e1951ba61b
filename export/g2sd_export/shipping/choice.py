"""Which of several ways to run a model ships: the fastest that keeps the accuracy; a number format of fewer bits only if it wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..edge.agreement import Verdict
from ..int8.choosing import TIE
from ..targets import Candidate

_BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "fp8": 8}


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        candidate: Runtime and number format.
        verdict: Of its proof and its accuracy.
        reason: Why it did not pass, or why it was or was not chosen.
        top1: Accuracy in [0, 1]; None where it did not run.
        drop_points: Percentage points of top-1 lost against the torch model; negative where it gained.
        flipped: Decisions that differ from the torch model's.
        p50_ms: Median latency of a batch of one; None where it was not timed.
        file_bytes: Size of its model file; None where there is none.
        chosen: Whether it is the bundle's default.
        figures: Of a model that is no classifier, in place of ``top1``, ``drop_points`` and ``flipped``: its own numbers, by name.
    """

    candidate: Candidate
    verdict: Verdict
    reason: str
    top1: float | None = None
    drop_points: float | None = None
    flipped: int | None = None
    p50_ms: float | None = None
    file_bytes: int | None = None
    chosen: bool = False
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of the candidate."""
        return self.candidate.name

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        figures = self.figures or {"top1": self.top1, "drop_points": self.drop_points, "flipped": self.flipped}
        return {
            "name": self.name,
            "precision": self.candidate.precision,
            "runtime": self.candidate.runtime,
            "verdict": self.verdict,
            "reason": self.reason,
            **figures,
            "p50_ms": self.p50_ms,
            "file_bytes": self.file_bytes,
            "chosen": self.chosen,
        }


def choose(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Mark the one that ships and say of every other one why it does not; of several as fast, the one of more bits ships.

    Args:
        outcomes: In the target's order.

    Returns:
        The same ones with ``chosen`` and ``reason``; nothing is chosen where none passed. Where none that passed was timed, the first of
        them is taken, as the target's order says.
    """
    passed = [outcome for outcome in outcomes if outcome.verdict == "passed"]
    if not passed:
        return list(outcomes)
    timed = [outcome for outcome in passed if outcome.p50_ms is not None]
    best = _fastest(timed) if timed else passed[0]
    return [_judged(outcome, best) for outcome in outcomes]


def _fastest(timed: Sequence[Outcome]) -> Outcome:
    least = min(outcome.p50_ms or 0.0 for outcome in timed)
    near = [outcome for outcome in timed if (outcome.p50_ms or 0.0) <= least * (1 + TIE)]
    return max(near, key=lambda outcome: (_BITS[outcome.candidate.precision], -(outcome.p50_ms or 0.0)))


def _judged(outcome: Outcome, best: Outcome) -> Outcome:
    if outcome is best:
        timed = outcome.p50_ms is not None
        return replace(outcome, chosen=True, reason="the fastest inside the accuracy budget" if timed else "first in the target's order")
    if outcome.verdict != "passed":
        return outcome
    if outcome.p50_ms is None or best.p50_ms is None:
        return replace(outcome, reason=f"{best.name} comes first in the target's order")
    ratio = outcome.p50_ms / best.p50_ms
    if ratio < 1 + TIE:
        return replace(outcome, reason=f"as fast as {best.name}, which keeps more bits")
    return replace(outcome, reason=f"{outcome.p50_ms:.3g} ms is {ratio:.2f} times the {best.p50_ms:.3g} ms of {best.name}")
