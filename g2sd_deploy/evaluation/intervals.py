"""95 % confidence intervals of shares and means, and of means over cases that show the same images."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64
from scipy.special import stdtrit

Interval = tuple[float, float]
Case = Hashable

NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %


def wilson_interval(hits: int, num: int) -> Interval:
    """Interval of a share, from counts.

    Args:
        hits: 0 to `num`.
        num: Trials, at least 1.

    Returns:
        Low and high, 0 to 1. They hold the observed share, and do not shrink to nothing where it is 0 or 1.

    Raises:
        ValueError: No trial, or more hits than trials.

    Source: Wilson 1927, as recommended by Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".
    """
    if num < 1 or not 0 <= hits <= num:
        raise ValueError(f"{hits} hits of {num} trials are no share: 0 <= hits <= trials and at least one trial wanted")
    share, squared = hits / num, NORMAL_QUANTILE**2
    centre = (share + squared / (2 * num)) / (1 + squared / num)
    half = NORMAL_QUANTILE / (1 + squared / num) * math.sqrt(share * (1 - share) / num + squared / (4 * num**2))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == num else centre + half)


def mean_interval(values: Float64[np.ndarray, "num"], *, low: float = -math.inf, high: float = math.inf) -> Interval | None:
    """Student's t interval of the mean of independent values.

    Args:
        values: At least one.
        low: Smallest mean that is possible.
        high: Largest mean that is possible.

    Returns:
        Low and high, cut to what is possible; None of one value, whose spread is unknown.

    Raises:
        ValueError: No value.
    """
    if not len(values):
        raise ValueError("there are no values to average")
    if len(values) == 1:
        return None
    return around(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1, low=low, high=high)


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t with this many degrees of freedom."""
    return float(stdtrit(freedom, 0.975))


def around(centre: float, error: float, freedom: int, *, low: float = -math.inf, high: float = math.inf) -> Interval:
    """Centre -/+ the t quantile times the standard error, cut to low and high."""
    half = t_quantile(freedom) * error
    return max(low, centre - half), min(high, centre + half)


class CaseTotals:
    """Weighted sums of the means of several cases (as corruptions) that show the same images, with intervals.

    An image that is hard in one case tends to be hard in all, so images are the independent units and not answers. Answers may come
    in any order and portions; of an image only one running number a sum is kept, so memory is that of the images, however many
    cases there are. A case's mean is over the images that it has; the interval's width is from the images that no case lacks.

    Args:
        weights: Of every case, what its mean weighs in each sum.

    Raises:
        ValueError: No case, or cases with other numbers of weights.
    """

    def __init__(self, weights: Mapping[Case, Sequence[float]]) -> None:
        if len({len(of_case) for of_case in weights.values()}) != 1:
            raise ValueError("weights of at least one case wanted, as many of each")
        self._weights = {case: np.asarray(of_case, dtype=np.float64) for case, of_case in weights.items()}
        self._hits = dict.fromkeys(weights, 0.0)
        self._num = dict.fromkeys(weights, 0)
        self._rows: dict[Hashable, int] = {}
        self._sums = np.zeros((0, len(next(iter(self._weights.values())))))
        self._seen = np.zeros(0, dtype=np.int64)

    def add(self, case: Case, values: Bool[np.ndarray, "num"] | Float64[np.ndarray, "num"], keys: Iterable[Hashable]) -> None:
        """Add some images of a case; of each case and image once.

        Args:
            case: One of those with weights.
            values: One per image, as whether it was right.
            keys: What tells images apart, as file names or places in the set.

        Raises:
            ValueError: Keys that repeat or do not fit the values.
        """
        rows = np.array([self._rows.setdefault(key, len(self._rows)) for key in keys], dtype=np.int64)
        if len(rows) != len(values) or len(np.unique(rows)) < len(rows):
            raise ValueError(f"{len(values)} values of {len(np.unique(rows))} different images ({len(rows)} keys): one of each wanted")
        new = len(self._rows) - len(self._seen)
        self._sums = np.concatenate([self._sums, np.zeros((new, self._sums.shape[1]))]) if new else self._sums
        self._seen = np.concatenate([self._seen, np.zeros(new, dtype=np.int64)]) if new else self._seen
        self._sums[rows] += values[:, np.newaxis] * self._weights[case]
        self._seen[rows] += 1
        self._hits[case] += float(values.sum())
        self._num[case] += len(values)

    def case_mean(self, case: Case) -> float:
        """Mean of the values of a case.

        Raises:
            ValueError: The case has no image.
        """
        if not self._num[case]:
            raise ValueError(f"no image of {case} was added")
        return self._hits[case] / self._num[case]

    def total(self, index: int = 0, *, low: float = -math.inf, high: float = math.inf) -> tuple[float, Interval | None]:
        """A sum and its interval.

        Args:
            index: Which of the weights.
            low: Smallest sum that is possible.
            high: Largest sum that is possible.

        Returns:
            The sum; low and high, or None where fewer than two images are in all cases.

        Raises:
            ValueError: A case has no image.
        """
        value = math.fsum(float(of_case[index]) * self.case_mean(case) for case, of_case in self._weights.items())
        sums = self._sums[self._seen == len(self._weights), index]
        if len(sums) < 2:
            return value, None
        return value, around(value, float(sums.std(ddof=1)) / math.sqrt(len(sums)), len(sums) - 1, low=low, high=high)
