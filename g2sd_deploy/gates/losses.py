"""The loss-curve gate: tenth by tenth, a training's loss stays in a band around the baseline's."""

import json
import math
from pathlib import Path
from statistics import fmean, stdev

from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.outcome import Gate, not_run
from g2sd_deploy.gates.settings import LossGate
from g2sd_deploy.gates.snapshot import Curve, Snapshot

NUM_PARTS = 10
_ERRORS = 3.0  # standard errors of the difference that count as noise: 20 bounds of a curve are looked at


def curve_of(history: Path, method: str, num_steps: int) -> Curve | None:
    """Sum up a training's history.

    The training is cut into ten parts of equal length. Each is told by its mean loss and the standard error of that mean, from the losses
    that were recorded in it: one every few steps, of one batch each.

    Args:
        history: A line of JSON with `step`, `epoch` and `loss` for each recorded step.
        method: How the loss was made.
        num_steps: Steps of the whole training.

    Returns:
        The curve; None where a part holds fewer than two losses.

    Raises:
        UserError: The file does not hold a history.
    """
    try:
        rows = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
        losses = [(int(row["step"]), float(row["loss"])) for row in rows]
        epochs = float(rows[-1]["epoch"]) if rows else 0.0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{history}: no loss curve can be read from it ({error}); run the training again") from None
    parts: list[list[float]] = [[] for _ in range(NUM_PARTS)]
    for step, loss in losses:
        parts[min(NUM_PARTS - 1, step * NUM_PARTS // max(1, num_steps))].append(loss)
    if any(len(part) < 2 or not all(map(math.isfinite, part)) for part in parts):
        return None
    errors = tuple(stdev(part) / math.sqrt(len(part)) for part in parts)
    return Curve(method=method, num_steps=num_steps, epochs=epochs, means=tuple(map(fmean, parts)), errors=errors)


def loss_gates(before: Snapshot, after: Snapshot, settings: LossGate) -> list[Gate]:
    """A gate for every training of the baseline."""
    return [_gate(stage, before.losses.get(stage), after.losses.get(stage), settings) for stage in before.losses | after.losses]


def _gate(stage: str, before: Curve | None, after: Curve | None, settings: LossGate) -> Gate:
    if before is None or after is None:
        return not_run("loss", stage, f"the {'baseline' if before is None else 'run'} has no loss curve of {stage}")
    if before.method != after.method:
        return not_run("loss", stage, f"losses of {before.method!r} and {after.method!r} do not compare")
    if len(before.means) != len(after.means):
        return not_run("loss", stage, f"the baseline has {len(before.means)} parts and the run {len(after.means)}")
    ratios = [own / base for own, base in zip(after.means, before.means, strict=True) if base]
    figures = {"final_loss": after.means[-1], "baseline_final_loss": before.means[-1], "ratios": ratios}
    outside = [text for part in range(len(after.means)) if (text := _outside(part, before, after, settings))]
    change = f"{before.means[-1]:.4g} → {after.means[-1]:.4g} in the last tenth"
    length = f"; {after.num_steps} steps instead of {before.num_steps}" if before.num_steps != after.num_steps else ""
    if outside:
        more = f" and {len(outside) - 1} more tenths" if len(outside) > 1 else ""
        return Gate("loss", stage, "failed", f"{outside[0]}{more}; {change}{length}", figures)
    below = sum(own < base for own, base in zip(after.means, before.means, strict=True))
    return Gate("loss", stage, "passed", f"inside the band ({below} of {len(after.means)} tenths lower); {change}{length}", figures)


def _outside(part: int, before: Curve, after: Curve, settings: LossGate) -> str:
    """What is wrong with one tenth; empty where it lies inside."""
    base, own = before.means[part], after.means[part]
    noise = _ERRORS * math.hypot(before.errors[part], after.errors[part])
    ceiling = base + settings.max_rise * abs(base) + noise
    floor = -math.inf if settings.max_fall is None else base - settings.max_fall * abs(base) - noise
    if own > ceiling:
        return f"tenth {part + 1}: {own:.4g} is above {ceiling:.4g}, the baseline's {base:.4g} + {100 * settings.max_rise:g} % + noise"
    if own < floor:
        return f"tenth {part + 1}: {own:.4g} is below {floor:.4g}, the baseline's {base:.4g} - {100 * (settings.max_fall or 0):g} % - noise"
    return ""
