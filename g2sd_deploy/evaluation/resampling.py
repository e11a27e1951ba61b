"""Intervals of figures that are no mean over images: what they are when the images are others.

Such a figure is biased where classes are rare, and a percentile of resamples is so twice; both intervals take the bias off.
"""

import math

import numpy as np
from jaxtyping import Float64, Int64

from g2sd_deploy.evaluation.intervals import Interval, around
from g2sd_deploy.randomness import uniform


def times_drawn(seed: int, stream: str, resamples: range, num: int) -> Int64[np.ndarray, "resamples {num}"]:
    """How often each image is in each resample, drawn with replacement.

    Args:
        seed: Of the resampling.
        stream: What the resamples are for.
        resamples: Numbers of those that are wanted; a resample depends on its own number only.
        num: Images, at least 1; as many are drawn.
    """
    draws = uniform(seed, stream, 0, np.arange(resamples.start, resamples.stop, dtype=np.int64), num)
    rows = np.arange(len(resamples))[:, np.newaxis] * num
    places = (draws * num).astype(np.int64) + rows
    return np.bincount(places.ravel(), minlength=len(resamples) * num).reshape(-1, num).astype(np.int64)


def bootstrap_interval(observed: float, resampled: Float64[np.ndarray, " resamples"], num: int) -> Interval | None:
    """95 % interval of a share from resamples of its images.

    Args:
        observed: The figure, 0 to 1.
        resampled: The figure of each resample; not a number where it has none.
        num: Images.

    Returns:
        Student's t interval by the spread of the resamples, around the figure without the bias that they show; it holds the figure.
        None where fewer than two resamples have the figure.

    Of average precision it covers the true value in 90 to 95 of 100 simulated sets with 200 or 1,000 images of up to 10 classes, and in 75
    to 86 where a class has a handful of objects; the percentiles of the same resamples in 45 to 95 (docs/decisions.md).

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 10 (bias) and 13 (intervals).
    """
    told = resampled[np.isfinite(resampled)]
    if num < 2 or len(told) < 2:
        return None
    bias = float(told.mean()) - observed
    return _holding(observed, around(observed - bias, float(told.std(ddof=1)), num - 1, low=0.0, high=1.0))


def jackknife_interval(observed: float, without: Float64[np.ndarray, "num"]) -> Interval | None:
    """95 % interval of a share that is a smooth function of sums over images.

    Args:
        observed: The figure, 0 to 1.
        without: The figure without each of the images.

    Returns:
        Student's t interval around the figure without its bias; it holds the figure. None of fewer than two images, or where the figure
        hangs on one of them.

    Of mean intersection over union it covers the true value in 93 to 97 of 100 simulated sets (50 to 1,000 images, 5 to 150 classes), and
    in 79 to 90 where classes have one image or none; the percentile bootstrap in 27 to 98 (docs/decisions.md).

    Source: Quenouille 1956, "Notes on bias in estimation"; Tukey 1958.
    """
    num = len(without)
    if num < 2 or not np.isfinite(without).all():
        return None
    bias = (num - 1) * (float(without.mean()) - observed)
    error = math.sqrt((num - 1) / num * float(((without - without.mean()) ** 2).sum()))
    return _holding(observed, around(observed - bias, error, num - 1, low=0.0, high=1.0))


def _holding(observed: float, interval: Interval) -> Interval:
    return min(observed, interval[0]), max(observed, interval[1])
