"""Is the loss where it has to be? A generic stage whose teacher cannot teach looks busy and learns nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from g2sd_deploy.settings import LossBandSettings

_NOTHING_LEARNT = "predicting nothing costs 0.247"

Rows = Sequence[Mapping[str, Any]]


def loss_band_problem(rows: Rows, num_steps: int, band: LossBandSettings) -> str:
    """What the newest row of the history shows to be wrong; empty where it shows nothing.

    Args:
        rows: History so far, with `step` and `loss`.
        num_steps: Steps of the whole stage.
        band: Where the loss has to be.
    """
    if len(rows) == 1:
        return _start_problem(rows[0]["loss"], band)
    return _progress_problem(_mean_when_due(rows, num_steps, band), band) if _is_due(rows, num_steps, band) else ""


def loss_band_verdict(rows: Rows, num_steps: int, band: LossBandSettings) -> dict[str, str]:
    """Verdict on a history that showed no problem."""
    due = [end for end in range(2, len(rows) + 1) if _is_due(rows[:end], num_steps, band)]
    if not due:
        return {"verdict": "not_run", "reason": f"the run was too short: no loss was logged at {band.after:.0%} of its {num_steps} steps"}
    mean = _mean_when_due(rows[: due[0]], num_steps, band)
    return {"verdict": "passed", "reason": f"the loss was {mean:.3f} after {band.after:.0%} of the steps, under {band.below}"}


def _is_due(rows: Rows, num_steps: int, band: LossBandSettings) -> bool:
    """Whether the newest row is the first at or after the stated share of the steps."""
    return bool(rows[-1]["step"] >= band.after * num_steps > rows[-2]["step"])


def _mean_when_due(rows: Rows, num_steps: int, band: LossBandSettings) -> float:
    """Mean loss from nine tenths of the way on."""
    window: list[float] = [row["loss"] for row in rows if row["step"] >= 0.9 * band.after * num_steps]
    return sum(window) / len(window)


def _start_problem(first: float, band: LossBandSettings) -> str:
    low, high = band.start
    if low <= first <= high:
        return ""
    return (
        f"the first loss is {first:.3f}, outside generic.loss_band.start [{low}, {high}] ({_NOTHING_LEARNT}); most likely the teacher's "
        "features are constant or not finite; check it with g2sd teacher verify"
    )


def _progress_problem(mean: float, band: LossBandSettings) -> str:
    if mean < band.below:
        return ""
    return (
        f"after {band.after:.0%} of the steps the loss is {mean:.3f}, not under generic.loss_band.below {band.below} ({_NOTHING_LEARNT}); "
        "most likely the teacher's decoder was never trained (a file without decoder weights, filled up at random: pull "
        "mae_pretrain_full_vit_base), or base_lr is far too low or too high; generic.loss_band=null trains on regardless"
    )
