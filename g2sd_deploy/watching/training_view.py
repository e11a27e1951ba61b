"""The rows of a training, as far as they were written: where it is, how fast, and how long it will take."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from g2sd_deploy.settings import LossBandSettings
from g2sd_deploy.training.loss_band import loss_band_problem
from g2sd_deploy.watching.view import Training

NUM_SMOOTHED = 20
"""Rows whose mean loss is shown, and whose times tell the speed."""
_LATE_AFTER_S = 60.0
_LATE_AFTER_ROWS = 5
Row = Mapping[str, Any]


def number(value: object) -> float | None:
    """A finite number of a file that may hold anything."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def moment(value: object) -> datetime | None:
    """A time with its zone, as files hold it."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else None


def rows_of(rows: Sequence[Row], stage: str) -> list[Row]:
    """Rows of a stage with a step and a loss; where steps begin again (a training that went back to a checkpoint), the later ones."""
    kept: list[Row] = []
    for row in rows:
        if row.get("stage") != stage or number(row.get("step")) is None or not isinstance(row.get("loss"), int | float):
            continue
        while kept and kept[-1]["step"] >= row["step"]:
            kept.pop()
        kept.append(row)
    return kept


def training_of(rows: Sequence[Row], settings: Mapping[str, Any], row_age_s: float | None) -> Training:
    """What the rows say.

    Args:
        rows: Of one stage, at least one, as `rows_of` gives them.
        settings: Of the stage, as the recipe resolved them.
        row_age_s: Since the newest row was written.
    """
    last = rows[-1]
    num_steps, done = number(last.get("num_steps")), int(last["step"]) + 1
    step_s = _seconds_per_step(rows)
    batch = number(settings.get("batch_size"))
    left_s = step_s * (num_steps - done) if step_s and num_steps else None
    every = done - 1 - int(rows[-2]["step"]) if len(rows) > 1 else 1
    late_after_s = max(_LATE_AFTER_S, _LATE_AFTER_ROWS * every * step_s) if step_s else _LATE_AFTER_S
    is_late = row_age_s is not None and row_age_s > late_after_s
    return Training(
        done_steps=done,
        num_steps=int(num_steps) if num_steps else None,
        epoch=number(last.get("epoch")) or 0.0,
        num_epochs=number(settings.get("epochs")),
        loss=float(last["loss"]),
        smoothed_loss=_mean([float(row["loss"]) for row in rows[-NUM_SMOOTHED:]]),
        losses=tuple(loss for row in rows if (loss := number(row["loss"])) is not None),
        lr=number(last.get("lr")),
        images_per_s=batch / step_s if batch and step_s else number(last.get("images_per_s")),
        seconds_left=None if left_s is None or is_late else max(0.0, left_s - (row_age_s or 0.0)),
        row_age_s=row_age_s,
        is_late=is_late,
    )


def band_note(settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Where the loss has to be, and what became of it; empty where nothing is asked."""
    num_steps = number(rows[-1].get("num_steps"))
    if not isinstance(settings.get("loss_band"), Mapping) or num_steps is None:
        return ""
    try:
        band = LossBandSettings.model_validate(settings["loss_band"])
    except ValidationError:  # of another version
        return ""
    if problem := loss_band_problem(rows, int(num_steps), band):
        return f"loss band: {problem}"
    asked = f"under {band.below:g} after {band.after:.0%} of the steps"
    return f"loss band: {asked}, {'held' if rows[-1]['step'] >= band.after * num_steps else 'not yet asked'}"


def _seconds_per_step(rows: Sequence[Row]) -> float | None:
    """Of the last rows of this attempt, by the clock of the machine that trains; rows that a checkpoint knew have no time."""
    timed: list[tuple[int, datetime]] = []
    for row in reversed(rows[-NUM_SMOOTHED - 1 :]):
        when = moment(row.get("time"))
        if when is None or (timed and when > timed[-1][1]):
            break
        timed.append((int(row["step"]), when))
    if len(timed) < 2:
        return None
    seconds = (timed[0][1] - timed[-1][1]).total_seconds()
    return seconds / (timed[0][0] - timed[-1][0]) if seconds > 0 else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
