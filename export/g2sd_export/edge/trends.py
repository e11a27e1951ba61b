"""Does a series rise, fall or jump, or does it stay? Tests by rank, which one outlier does not decide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PERMUTATIONS = 5000


@dataclass(frozen=True)
class Change:
    """How much a series changes, and whether chance explains it.

    Attributes:
        share: Of its median; negative where it falls.
        p_value: Chance of at least this much order in a series that has none.
    """

    share: float
    p_value: float


def trend(values: npt.ArrayLike) -> Change:
    """The change from the first to the last value along a straight line.

    Args:
        values: Shape [N], N at least 3, positive, in the order in which they were measured.

    Returns:
        Theil and Sen's slope (the median of all pairs' slopes) over the whole series, and the p-value of Mann and Kendall's test.
    """
    series = np.asarray(values, dtype=np.float64)
    num = series.size
    assert num >= 3
    first, second = np.triu_indices(num, 1)
    rises = series[second] - series[first]
    slope = float(np.median(rises / (second - first)))
    score = float(np.sign(rises).sum())
    _, ties = np.unique(series, return_counts=True)
    variance = (num * (num - 1) * (2 * num + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = 0.0 if variance <= 0 or score == 0 else (abs(score) - 1) / math.sqrt(variance)  # less one: the score moves in steps
    return Change(slope * (num - 1) / float(np.median(series)), math.erfc(z / math.sqrt(2)))


def jump(values: npt.ArrayLike) -> Change:
    """The largest step from one level to another.

    Args:
        values: Shape [N], N at least 4, positive, in the order in which they were measured.

    Returns:
        Difference of the medians after and before the step, and the p-value of Pettitt's test, by permutation: his formula for it is far
        too large for a dozen values.

    Source: Pettitt, A non-parametric approach to the change-point problem, Applied Statistics 28 (1979).
    """
    series = np.asarray(values, dtype=np.float64)
    num = series.size
    assert num >= 4
    ranks = np.sign(series[:, None] - series[None, :]).sum(axis=1)  # twice the rank, around 0
    place = int(np.argmax(_heights(ranks))) + 1
    permuted = np.random.default_rng(0).permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)
    as_high = int((_heights(permuted).max(axis=1) >= _heights(ranks).max()).sum())
    step = float(np.median(series[place:]) - np.median(series[:place]))
    return Change(step / float(np.median(series)), (1 + as_high) / (1 + _PERMUTATIONS))


def _heights(ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pettitt's statistic at each place where the series can be cut in two."""
    heights: npt.NDArray[np.float64] = np.abs(np.cumsum(ranks, axis=-1)[..., :-1])
    return heights


def is_stationary(values: npt.ArrayLike, *, share: float, p_value: float) -> bool:
    """Whether a series neither goes in one direction nor ends on another level than it began on.

    Args:
        values: Shape [N], N at least 4, positive.
        share: Difference of the medians of its halves, as a share of the median, up to which it stays on its level.
        p_value: Below this its direction is no chance.
    """
    series = np.asarray(values, dtype=np.float64)
    half = series.size // 2
    step = abs(float(np.median(series[half:]) - np.median(series[:half]))) / float(np.median(series))
    return step <= share and trend(series).p_value >= p_value
