"""What is measured together, how long, and what comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UserError
from .sampling import samples_needed

_AMOUNT = re.compile(r"\d+")


@dataclass(frozen=True)
class Subject:
    """One thing that is timed.

    Attributes:
        name: Unlike that of every other subject of the session.
        batch: Images per call.
        call: Runs one batch; returns when its work is done and the answer is on the host.
        phases: Runs one batch and times its parts: ``to_device_ms``, ``compute_ms`` and ``from_device_ms``; None where it cannot tell them
            apart.
    """

    name: str
    batch: int
    call: Callable[[], object]
    phases: Callable[[], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class MeasureSettings:
    """How much is wanted, and how long it may take.

    Attributes:
        percentile: The highest that is wanted: measuring goes on until there are enough samples for it.
        seconds: The most time for each subject, warm-up apart; rounds that were disturbed count.
        ratio_precision: Half of the 95 % interval of each ratio, as a share of it, at which measuring may end; half as much again is let
            pass where time is up first.
        reference: Name of the subject that ratios refer to; None for no ratios.

    Raises:
        UserError: A number lies outside its range.
    """

    percentile: float = 99.0
    seconds: float = 30.0
    ratio_precision: float = 0.02
    reference: str | None = None

    def __post_init__(self) -> None:
        samples_needed(self.percentile)
        if not self.seconds > 0:
            raise UserError(f"the seconds to measure are {self.seconds:g}; they must be above 0")
        if not 0 < self.ratio_precision < 1:
            raise UserError(f"the precision of a ratio is {self.ratio_precision:g}; it must be above 0 and below 1")


@dataclass(frozen=True)
class Session:
    """What was measured.

    Attributes:
        rows: By subject: the measured part of a profile's row, from ``scenario`` on.
        conditions: Verdict on the machine, with what was void and why, and its state before and after.
    """

    rows: dict[str, dict[str, Any]]
    conditions: dict[str, Any]


def check_subjects(subjects: Sequence[Subject], settings: MeasureSettings) -> None:
    """Refuse subjects that no session can have.

    Raises:
        UserError: There are none, two have the same name, or the reference is not among them.
    """
    names = [subject.name for subject in subjects]
    if not names:
        raise UserError("there is nothing to measure; name at least one model")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{', '.join(twice)} would be measured twice under one name; leave one of them out")
    if settings.reference is not None and settings.reference not in names:
        raise UserError(f"the reference {settings.reference!r} is not among what is measured: {', '.join(names)}")


def join_conditions(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The conditions of sessions that followed each other, as those of one: as bad as the worst of them.

    Args:
        parts: In order; none where nothing could be measured.
    """
    if not parts:
        reason = "nothing was measured"
        return {"verdict": "not_run", "reasons": [reason], "num_rounds": 0, "num_void": 0, "voids": {}, "before": {}, "after": {}}
    verdicts = [part["verdict"] for part in parts]
    return {
        "verdict": next((verdict for verdict in ("invalid", "not_run") if verdict in verdicts), "valid"),
        "reasons": list(dict.fromkeys(reason for part in parts for reason in part["reasons"])),
        "num_rounds": sum(part["num_rounds"] for part in parts),
        "num_void": sum(part["num_void"] for part in parts),
        "voids": _joined_voids(parts),
        "before": parts[0]["before"],
        "after": parts[-1]["after"],
    }


def _joined_voids(parts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Reasons that differ only in their amount are one, with the largest of them."""
    found: dict[str, tuple[str, int]] = {}
    for reason, count in (item for part in parts for item in part["voids"].items()):
        key = _AMOUNT.sub("", reason)
        text, before = found.get(key, ("", 0))
        found[key] = (max(text, reason, key=lambda one: int((_AMOUNT.findall(one) or ["0"])[0])), before + count)
    return dict(found.values())
