"""From rounds to the row of a subject: percentiles, ratio, energy, phases, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .energy import Meter, energy_of
from .rounds import Record, Round
from .sampling import half_width, histogram, interval_of_median, interval_of_p50, samples_needed, summarise
from .session import MeasureSettings, Subject
from .trends import jump, trend

DRIFT_SHARE = 0.05
"""Of the median: a trend or a jump of the rounds' medians up to this is let pass."""
DRIFT_P_VALUE = 0.01
RATIO_SLACK = 1.5
"""Times the wanted precision of a ratio, above which it is no result."""
P50_PRECISION = 0.05
"""Half of the 95 % interval of the median, as a share of it, above which it is no result."""
PHASE_CALLS = 20
_PERCENT = 100


def medians(rounds: Sequence[Round], name: str) -> list[float]:
    """Median latency of a subject in each round, in ms."""
    return [float(np.median(one.turns[name].latencies_ms)) for one in rounds]


def ratios(rounds: Sequence[Round], name: str, reference: str) -> list[float]:
    """Of the medians of two subjects in each round."""
    return [mine / other for mine, other in zip(medians(rounds, name), medians(rounds, reference))]


def is_enough(rounds: Sequence[Round], names: Sequence[str], settings: MeasureSettings) -> bool:
    """Whether rounds hold the samples that the percentile takes, and tell medians and ratios as precisely as was wanted."""
    needed = samples_needed(settings.percentile)
    for name in names:
        if sum(len(one.turns[name].latencies_ms) for one in rounds) < needed:
            return False
        if _width(medians(rounds, name)) > P50_PRECISION:
            return False
        if settings.reference not in (None, name) and _width(ratios(rounds, name, settings.reference or "")) > settings.ratio_precision:
            return False
    return True


def row_of(
    subject: Subject, record: Record, settings: MeasureSettings, disturbances: Sequence[str], meter: Meter, scenario: str = "single_stream"
) -> dict[str, Any]:
    """The measured part of a row, from ``scenario`` on.

    Args:
        subject: Whose.
        record: All rounds.
        settings: What was wanted.
        disturbances: Why the machine was not undisturbed for long enough, as ``disturbed`` says it.
        meter: What read the energy.
        scenario: How it was loaded.
    """
    rounds = record.shown
    turns = [one.turns[subject.name] for one in rounds]
    samples = np.concatenate([turn.latencies_ms for turn in turns])
    p50_interval = interval_of_p50([turn.latencies_ms for turn in turns])
    numbers = summarise(samples, subject.batch)
    ratio = _ratio(subject.name, rounds, settings, disturbances)
    reasons = list(disturbances)
    if not reasons:  # what little is there otherwise cannot tell whether it is steady
        reasons = [*unsteady(medians(rounds, subject.name)), *_imprecise(numbers["p50_ms"], p50_interval)]
        reasons += [] if ratio is None else ratio["reasons"]
    return {
        "scenario": scenario,
        "verdict": "invalid" if reasons else "valid",
        "reasons": reasons,
        **numbers,
        "p50_interval_ms": list(p50_interval),
        "round_p50_ms": medians(rounds, subject.name),
        "round_index": [one.index for one in rounds],
        "histogram": histogram(samples),
        "ratio": ratio,
        "phases": phases_of(subject),
        "energy": energy_of(meter, [(turn.num_images, turn.energy_j) for turn in turns]),
    }


def unsteady(series: Sequence[float], what: str = "the latency") -> list[str]:
    """Why values of rounds are not those of one steady state."""
    drift, step = trend(series), jump(series)
    if drift.p_value < DRIFT_P_VALUE and abs(drift.share) > DRIFT_SHARE:
        return [f"{what} drifted by {_PERCENT * drift.share:+.0f} % over the rounds"]
    if step.p_value < DRIFT_P_VALUE and abs(step.share) > DRIFT_SHARE:
        return [f"{what} jumped by {_PERCENT * step.share:+.0f} % between rounds"]
    return []


def phases_of(subject: Subject) -> dict[str, Any]:
    """Copies to the device, computing, and copies back, each the median of some calls."""
    if subject.phases is None:
        return {"verdict": "not_run", "reason": "the runtime works in the host's memory, or does not time copies apart"}
    calls: list[Mapping[str, float]] = [subject.phases() for _ in range(PHASE_CALLS)]
    return {"verdict": "measured", **{key: float(np.median([call[key] for call in calls])) for key in calls[0]}}


def _ratio(name: str, rounds: Sequence[Round], settings: MeasureSettings, disturbances: Sequence[str]) -> dict[str, Any] | None:
    """What slows everything alike cancels in it, so it has reasons of its own not to be believed."""
    if settings.reference in (None, name):
        return None
    found = ratios(rounds, name, settings.reference or "")
    value, interval = float(np.median(found)), interval_of_median(found)
    reasons = list(disturbances)
    if not reasons:
        reasons = unsteady(found, f"the ratio to {settings.reference}")
        width, wanted = half_width(interval, value), RATIO_SLACK * settings.ratio_precision
        if width > wanted:
            known = f"known to within {_PERCENT * width:.1f} % only (wanted {_PERCENT * wanted:g} %)"
            reasons.append(f"the ratio to {settings.reference} is {known}")
    return {"to": settings.reference, "value": value, "interval": list(interval), "reasons": reasons}


def _imprecise(p50_ms: float, interval: tuple[float, float]) -> list[str]:
    width = half_width(interval, p50_ms)
    if width <= P50_PRECISION:
        return []
    return [f"the median is known to within {_PERCENT * width:.1f} % only (wanted {_PERCENT * P50_PRECISION:g} %)"]


def _width(values: Sequence[float]) -> float:
    return half_width(interval_of_median(values), float(np.median(values)))
