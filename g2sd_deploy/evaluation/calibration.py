"""How far a model's confidence can be trusted: calibration error, reliability, and the risk of its most confident answers.

Every function takes the confidence [N] (largest probability) and whether the answer was right [N], and does not depend on the order
of the images, tied ones included.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from scipy.special import xlogy

from g2sd_deploy.evaluation.intervals import Interval, t_quantile, wilson_interval

NUM_BINS = 15
NUM_RESAMPLES = 1_000
_TELLABLE = 2.0  # standard errors from which a bin counts as miscalibrated


@dataclass(frozen=True)
class CalibrationBins:
    """Images grouped by confidence.

    Attributes:
        edges: Upper edges of all bins but the last, rising. An image lies in the first bin whose edge is not below its confidence.
        num: Images of each bin.
        confidence: Sum of their confidences.
        correct: Correct answers among them.
    """

    edges: Float64[np.ndarray, " edges"]
    num: Int64[np.ndarray, " bins"]
    confidence: Float64[np.ndarray, " bins"]
    correct: Int64[np.ndarray, " bins"]


def equal_width_bins(
    confidence: Float64[np.ndarray, "num"], correct: Bool[np.ndarray, "num"], *, num_bins: int = NUM_BINS
) -> CalibrationBins:
    """Bins of equal width: bin m of M holds the images whose confidence lies in (m/M, (m+1)/M].

    Raises:
        ValueError: Fewer than one bin, or no image.
    """
    _check(confidence, num_bins)
    return _binned(confidence, correct, np.arange(1, num_bins) / num_bins)


def equal_mass_bins(
    confidence: Float64[np.ndarray, "num"], correct: Bool[np.ndarray, "num"], *, num_bins: int = NUM_BINS
) -> CalibrationBins:
    """Bins of (as nearly as possible) equally many images, cut at quantiles of the confidence.

    Images of equal confidence are never parted: all go to the lowest bin that any of them reaches, and bins between may stay empty.
    So a model that says 1.0 for half of its answers has one large bin, and the order of the images does not matter.

    Raises:
        ValueError: Fewer than one bin, or no image.

    Source: Nixon et al. 2019, arXiv 1904.01685, adaptive binning; of the first class only, as in Guo et al.
    """
    _check(confidence, num_bins)
    last = np.ceil(np.arange(1, num_bins) * len(confidence) / num_bins).astype(np.int64) - 1
    return _binned(confidence, correct, np.sort(confidence)[last])


def expected_calibration_error(bins: CalibrationBins) -> float:
    """Mean distance between confidence and accuracy over bins, weighted by their images, 0 to 1.

    Chance alone lifts it: 200 images of a perfectly calibrated model have some 0.08, 5,000 have 0.016.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    return float(np.abs(bins.correct - bins.confidence).sum() / bins.num.sum())


def calibration_error_interval(bins: CalibrationBins, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Interval:
    """95 % interval of the calibration error that this binning would show on endlessly many images.

    The error is a sum of distances, which chance lifts most where the true distances are small. Resampling the images lifts it a
    second time: the percentile bootstrap of a calibrated model covers the true 0 never, and the basic bootstrap in 30 to 75 of 100
    sets. How much chance added depends on the truth, so three truths that fit the data are resampled (images over bins, then answers
    within each), and the widest limits are taken: bins calibrated unless they are off by more than two standard errors; accuracies as
    observed; and accuracies one standard error farther from the confidence (in quadrature).

    Covers the true value in 94 to 100 of 100 simulated sets (200 to 5,000 images, calibrated in two ways and miscalibrated in seven,
    both binnings; docs/decisions.md). The price is width: up to 1.7 times that of the basic bootstrap where bins are barely off.
    The observed error is biased upwards and may lie outside.

    Args:
        bins: The images, binned.
        seed: Of the resampling.
        num_resamples: Of each truth.

    Returns:
        Low and high, 0 to 1.
    """
    held = bins.num > 0
    num = bins.num[held]
    confidence, accuracy = bins.confidence[held] / num, bins.correct[held] / num
    gap = accuracy - confidence
    smoothed = (bins.correct[held] + confidence) / (num + 1)  # or a bin without an error would have no spread
    variance = smoothed * (1 - smoothed) / num
    calibrated = np.abs(gap) <= _TELLABLE * np.sqrt(confidence * (1 - confidence) / num)
    farther = confidence + np.sign(gap) * np.sqrt(gap**2 + variance)
    random = np.random.default_rng(seed)
    limits = []
    for truth in (np.where(calibrated, confidence, accuracy), accuracy, np.clip(farther, 0, 1)):
        counts = random.multinomial(num.sum(), num / num.sum(), num_resamples)
        drawn = np.abs(random.binomial(counts, truth) - counts * confidence).sum(axis=1) / num.sum()
        lifted = np.quantile(drawn, [0.975, 0.025]) - (num * np.abs(truth - confidence)).sum() / num.sum()
        limits.append(expected_calibration_error(bins) - lifted)
    return float(np.clip(min(low for low, _ in limits), 0, 1)), float(np.clip(max(high for _, high in limits), 0, 1))


def reliability(bins: CalibrationBins) -> list[dict[str, Any]]:
    """Rows of a reliability diagram.

    Returns:
        Of each bin its `low` and `high` edge (0 and 1 at the ends), `num` of images, mean `confidence` and `accuracy`; None where empty.
    """
    edges = [0.0, *bins.edges.tolist(), 1.0]
    return [
        {
            "low": edges[i],
            "high": edges[i + 1],
            "num": num,
            "confidence": float(bins.confidence[i]) / num if num else None,
            "accuracy": int(bins.correct[i]) / num if num else None,
        }
        for i, num in enumerate(bins.num.tolist())
    ]


def area_under_risk_coverage(confidence: Float64[np.ndarray, "num"], correct: Bool[np.ndarray, "num"]) -> float:
    """Mean over k = 1..N of the share of errors among the k most confident answers, 0 to 1; less is better.

    Where the k-th answer ties with others, its place among them is taken as random: each of the tied counts the mean error of all.
    A confidence that says nothing has the error rate of the model.

    Raises:
        ValueError: No image.

    Source: Geifman et al. 2019, arXiv 1805.08206.
    """
    return float(_risks(confidence, correct).mean())


def risk_coverage_interval(confidence: Float64[np.ndarray, "num"], correct: Bool[np.ndarray, "num"]) -> Interval:
    """95 % interval of the area under the risk-coverage curve, without resampling.

    The standard error is that of the infinitesimal jackknife (what each image moves the area by, ranks included); the interval is
    symmetric in the logarithm, by Student's t with as many degrees of freedom as there are errors, for it is the errors that vary.
    It ends where no order of the images could lead, if the error rate is in Wilson's interval; without any error, or without any
    correct answer, those ends are all that is known.

    Covers the true value in 93 to 99 of 100 simulated sets (200 to 5,000 images, error rates of 1 to 32 %; docs/decisions.md). The
    percentile bootstrap covers less wherever errors are few: in 66 to 88 of 100 sets with about ten or fewer.

    Returns:
        Low and high, 0 to 1.

    Raises:
        ValueError: No image.
    """
    area, num, num_errors = area_under_risk_coverage(confidence, correct), len(correct), int((~correct).sum())
    fewest, most = wilson_interval(num_errors, num)
    # the area if all errors came last, and if all came first
    smallest, largest = fewest + float(xlogy(1 - fewest, 1 - fewest)), most - float(xlogy(most, most))
    if num_errors in (0, num):
        return smallest, largest
    order, group = _by_falling_confidence(confidence)
    wrong, sizes = ~correct[order], np.bincount(group)
    places = np.arange(1, num + 1)
    direct = np.cumsum((1 / places)[::-1])[::-1]  # sum over k >= place of 1/k: the weight of an error at this place
    pushed = np.cumsum(((np.bincount(group, wrong) / sizes)[group] / places)[::-1])[::-1]  # what it takes from those it moves down
    moved = wrong * (np.bincount(group, direct) / sizes)[group] - (np.bincount(group, pushed) / sizes)[group]
    spread = float(moved.std(ddof=1)) / math.sqrt(num) / area
    factor = math.exp(min(t_quantile(num_errors) * spread, 700.0))
    return max(smallest, area / factor), min(largest, area * factor)


def risk_coverage_curve(
    confidence: Float64[np.ndarray, "num"], correct: Bool[np.ndarray, "num"], *, num_points: int = 100
) -> dict[str, list[float]]:
    """Share of errors among the most confident answers, at evenly spread coverages.

    Returns:
        `coverage` (rising, the last is 1) and `risk`, both 0 to 1, at most `num_points` each.

    Raises:
        ValueError: No image.
    """
    risks = _risks(confidence, correct)
    places = np.unique(np.ceil(np.arange(1, num_points + 1) * len(risks) / num_points).astype(np.int64))
    return {"coverage": (places / len(risks)).tolist(), "risk": risks[places - 1].tolist()}


def _check(confidence: NDArray[np.float64], num_bins: int = 1) -> None:
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, wanted at least 1")
    if not len(confidence):
        raise ValueError("there is nothing to score: no image")


def _binned(confidence: NDArray[np.float64], correct: NDArray[np.bool_], edges: NDArray[np.float64]) -> CalibrationBins:
    bins, num_bins = np.searchsorted(edges, confidence, side="left"), len(edges) + 1
    return CalibrationBins(
        edges=edges,
        num=np.bincount(bins, minlength=num_bins),
        confidence=np.bincount(bins, weights=confidence, minlength=num_bins),
        correct=np.bincount(bins[correct], minlength=num_bins),
    )


def _by_falling_confidence(confidence: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the images, and at each place of it the number of the group of ties."""
    order = np.argsort(-confidence, kind="stable")
    falls = np.diff(confidence[order]) != 0
    return order, np.concatenate([[0], np.cumsum(falls)])


def _risks(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of errors among the first k answers, k = 1..N; within a group of ties the errors are spread evenly."""
    _check(confidence)
    order, group = _by_falling_confidence(confidence)
    errors = np.bincount(group, ~correct[order])
    ends = np.cumsum(np.bincount(group))
    places = np.arange(1, len(confidence) + 1)
    risks: NDArray[np.float64] = np.interp(places, np.append(0, ends), np.append(0, np.cumsum(errors))) / places
    return risks
