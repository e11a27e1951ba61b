"""Scores of a set from its images' outcomes, ready for JSON: accuracy, likelihood, calibration, selective risk, agreement.

Pure functions of arrays: no files, no settings, no clock. Means are taken in float64, over images in the order given.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from g2sd_deploy.evaluation.calibration import (
    area_under_risk_coverage,
    calibration_error_interval,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    reliability,
    risk_coverage_curve,
    risk_coverage_interval,
)
from g2sd_deploy.evaluation.intervals import Interval, mean_interval, wilson_interval
from g2sd_deploy.evaluation.outcomes import Outcomes


def brief_scores(outcomes: Outcomes) -> dict[str, float | int | None]:
    """The six numbers of a model on a set.

    Args:
        outcomes: At least one image.

    Returns:
        `num_images`; `top1` and `top5`, shares of images with a right class first and among the first five, 0 to 1; `nll`, mean
        negative log-likelihood of the right class, in nats; `brier`, mean Brier score over classes, 0 to 2; `ece`, expected
        calibration error over 15 bins of equal width, 0 to 1. `nll` and `brier` are None where an image may have several right classes.

    Raises:
        ValueError: No image.
    """
    if not len(outcomes):
        raise ValueError("there is nothing to score: no image")
    one_label = bool((outcomes.label >= 0).all())
    return {
        "num_images": len(outcomes),
        "top1": float(outcomes.correct.mean()),
        "top5": float((outcomes.rank < 5).mean()),
        "nll": float(outcomes.nll.mean()) if one_label else None,
        "brier": float(outcomes.brier.mean()) if one_label else None,
        "ece": expected_calibration_error(equal_width_bins(outcomes.top1_prob, outcomes.correct)),
    }


def full_scores(outcomes: Outcomes, *, num_classes: int, seed: int = 0) -> dict[str, Any]:
    """All scores of a model on a set, each with its 95 % interval.

    Args:
        outcomes: At least one image.
        num_classes: Classes of the set; labels are 0 to one less.
        seed: Of the intervals that are resampled.

    Returns:
        What `brief_scores` gives, and: `ece_equal_mass`, the calibration error over 15 bins of equally many images; `aurc`, the area
        under the risk-coverage curve, 0 to 1; `intervals`, [low, high] of each of these seven (Wilson for shares, Student's t for
        means, see calibration.py for the rest; None of an unknown score, and of a mean of one image); `per_class` with `num`, `top1`
        and `intervals` by class (None for classes without images; the whole is None where an image may have several right classes);
        `reliability`, rows of the diagram; `risk_coverage`, the curve; `agreement` with the teacher: `same`, the share of images with
        the same first class, `kl`, mean KL(teacher || model) in nats, and their `intervals` (None without a teacher).

    Raises:
        ValueError: No image, or a label beyond the classes.
    """
    scores: dict[str, Any] = brief_scores(outcomes)
    confidence, correct = outcomes.top1_prob, outcomes.correct
    width, mass = equal_width_bins(confidence, correct), equal_mass_bins(confidence, correct)
    known = scores["nll"] is not None
    return {
        **scores,
        "ece_equal_mass": expected_calibration_error(mass),
        "aurc": area_under_risk_coverage(confidence, correct),
        "intervals": {
            "top1": _share_interval(correct),
            "top5": _share_interval(outcomes.rank < 5),
            "nll": _listed(mean_interval(outcomes.nll, low=0.0)) if known else None,
            "brier": _listed(mean_interval(outcomes.brier, low=0.0, high=2.0)) if known else None,
            "ece": _listed(calibration_error_interval(width, seed=seed)),
            "ece_equal_mass": _listed(calibration_error_interval(mass, seed=seed)),
            "aurc": _listed(risk_coverage_interval(confidence, correct)),
        },
        "per_class": _per_class(outcomes, num_classes) if known else None,
        "reliability": reliability(width),
        "risk_coverage": risk_coverage_curve(confidence, correct),
        "agreement": _agreement(outcomes),
    }


def _per_class(outcomes: Outcomes, num_classes: int) -> dict[str, list[Any]]:
    if (largest := int(outcomes.label.max())) >= num_classes:
        raise ValueError(f"label {largest} is outside 0..{num_classes - 1}, the range of {num_classes} classes")
    nums = np.bincount(outcomes.label, minlength=num_classes).tolist()
    hits = np.bincount(outcomes.label[outcomes.correct], minlength=num_classes).tolist()
    pairs = list(zip(hits, nums, strict=True))
    return {
        "num": nums,
        "top1": [hit / num if num else None for hit, num in pairs],
        "intervals": [_listed(wilson_interval(hit, num)) if num else None for hit, num in pairs],
    }


def _agreement(outcomes: Outcomes) -> dict[str, Any] | None:
    if outcomes.same is None or outcomes.kl is None:
        return None
    return {
        "same": float(outcomes.same.mean()),
        "kl": float(outcomes.kl.mean()),
        "intervals": {"same": _share_interval(outcomes.same), "kl": _listed(mean_interval(outcomes.kl, low=0.0))},
    }


def _share_interval(hits: NDArray[np.bool_]) -> list[float]:
    return list(wilson_interval(int(hits.sum()), len(hits)))


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
