"""How many samples a percentile needs, what a series of latencies says, and how far its median can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError

PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}
CONFIDENCE = 0.99
"""That a percentile is not above what is told of it."""
INTERVAL = 95.0
"""Percent that an interval covers."""
_BEYOND = 2  # samples that have to lie beyond a percentile: one alone may be the accident of the session
_RESAMPLES = 1000
_BINS = 40
_HIGHEST = 99.99


def samples_needed(percentile: float, confidence: float = CONFIDENCE) -> int:
    """The fewest samples of which, with this confidence, at least two lie beyond a percentile: 64 for p90, 662 for p99.

    Args:
        percentile: Above 0, at most 99.99.
        confidence: Above 0 and below 1.

    Raises:
        UserError: The percentile lies outside its range.

    Source: MLPerf inference rules, early stopping: the binomial bound.
    """
    if not 0 < percentile <= _HIGHEST:
        raise UserError(f"the percentile is {percentile:g}; it must be above 0 and at most {_HIGHEST:g}")
    beyond = 1 - percentile / 100
    low, high = 1, _BEYOND  # too few, and after the loop enough
    while _chance_of_fewer(high, beyond) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _chance_of_fewer(middle, beyond) > 1 - confidence else (low, middle)
    return high


def _chance_of_fewer(num: int, beyond: float) -> float:
    """Chance that fewer than ``_BEYOND`` of ``num`` samples lie where a share ``beyond`` of all lies."""
    return sum(math.comb(num, count) * beyond**count * (1 - beyond) ** (num - count) for count in range(_BEYOND))


def summarise(samples_ms: npt.ArrayLike, batch: int) -> dict[str, Any]:
    """Percentiles and throughput of a series of latencies.

    Args:
        samples_ms: Latency of one batch each, in ms; not empty.
        batch: Images per batch.

    Returns:
        ``p50_ms p90_ms p99_ms p999_ms`` (linear interpolation between samples; None where there are too few, except for the median),
        ``mean_ms min_ms images_per_s`` (all images over all the time), ``num_samples``, and ``withheld``: by percentile, why it is None.
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    assert samples.size > 0 and batch > 0
    found: dict[str, Any] = {}
    withheld: dict[str, str] = {}
    for key, percentile in PERCENTILES.items():
        needed = samples_needed(percentile)
        found[key] = float(np.percentile(samples, percentile)) if samples.size >= needed or key == "p50_ms" else None
        if found[key] is None:
            withheld[key] = f"{samples.size} of the {needed} samples that it takes"
    mean = float(samples.mean())
    found.update(mean_ms=mean, min_ms=float(samples.min()), images_per_s=1000 * batch / mean, num_samples=int(samples.size))
    return {**found, "withheld": withheld}


def histogram(samples_ms: npt.ArrayLike) -> dict[str, list[float]]:
    """Counts of latencies between edges that grow by a constant factor, so that a long tail and a narrow peak both show."""
    samples = np.asarray(samples_ms, dtype=np.float64)
    low, high = max(float(samples.min()), 1e-6), max(float(samples.max()), 1e-6)
    edges = np.geomspace(low, high, _BINS + 1) if high > low else np.array([low, low * (1 + 1e-9)])
    edges[0], edges[-1] = min(low, float(samples.min())), max(high, edges[-1])  # rounding would lose the ends
    counts, _ = np.histogram(samples, edges)
    return {"edges_ms": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}


def interval_of_median(values: npt.ArrayLike, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of the median of values that are independent of each other, such as rounds', by the bootstrap.

    Args:
        values: One per round; not empty.
        seed: Of the resampling, so that the same values give the same interval.
    """
    series = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, series.size, (_RESAMPLES, series.size))
    low, high = np.percentile(np.median(series[picks], axis=1), _tails())
    return float(low), float(high)


def interval_of_p50(rounds_ms: Sequence[npt.ArrayLike], seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of the median of all samples, by the bootstrap over rounds: samples of one round resemble each other.

    Args:
        rounds_ms: The samples of each round; none is empty.
        seed: Of the resampling.
    """
    rounds = [np.asarray(samples, dtype=np.float64) for samples in rounds_ms]
    samples = np.concatenate(rounds)
    order = np.argsort(samples, kind="stable")
    owner = np.repeat(np.arange(len(rounds)), [part.size for part in rounds])[order]
    samples = samples[order]
    picks = np.random.default_rng(seed).integers(0, len(rounds), (_RESAMPLES, len(rounds)))
    medians = np.empty(_RESAMPLES)
    for index, pick in enumerate(picks):
        reached = np.cumsum(np.bincount(pick, minlength=len(rounds))[owner])
        medians[index] = samples[np.searchsorted(reached, reached[-1] / 2)]
    low, high = np.percentile(medians, _tails())
    return float(low), float(high)


def half_width(interval: tuple[float, float], value: float) -> float:
    """Half of an interval's width, as a share of the value."""
    return (interval[1] - interval[0]) / 2 / value


def _tails() -> tuple[float, float]:
    return (100 - INTERVAL) / 2, (100 + INTERVAL) / 2
