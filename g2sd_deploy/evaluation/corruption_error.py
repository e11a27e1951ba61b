"""Errors under corruptions: the plain mean, and the two that ImageNet-C weighs by AlexNet's errors."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from g2sd_deploy.evaluation.intervals import CaseTotals, Interval

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Mean over the five severities, by name: public code exists that pairs the bare list with corruptions in another order.

Source: google-research/augmix, imagenet.py, "taken from hendrycks/robustness".
"""

ALEXNET_CLEAN_ERROR = 0.43478
"""Source: torchvision's AlexNet_Weights.IMAGENET1K_V1, the weights that the errors above were measured with (top-1 56.522)."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""For tuning: they count in no mean."""

SEVERITIES = (1, 2, 3, 4, 5)
SUMMARIES = ("mean_error", "mce", "relative_mce")
CLEAN = "clean"

Weights = dict[Hashable, float]


def corruption_summary(
    errors: Mapping[str, Mapping[int, float]], *, alexnet: bool, clean_error: float | None = None
) -> dict[str, float | None]:
    """What a model's errors come to.

    Args:
        errors: Top-1 error, 0 to 1, by corruption and severity.
        alexnet: Whether these are the images of ImageNet-C, whose errors AlexNet's may divide.
        clean_error: Top-1 error on the clean images, 0 to 1; None where it is not known.

    Returns:
        `mean_error`, the mean over corruptions of the mean over severities, without the extra ones; `mce`, the mean over corruptions
        of the error divided by AlexNet's (1 is as bad as AlexNet); `relative_mce`, the same of what corruption adds to the clean
        error. None where it cannot be known: the last two want all 15 corruptions at all 5 severities of ImageNet-C.

    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261, section 4.1; their tables show percent.
    """
    known: dict[Hashable, float] = {(name, severity): error for name, by in errors.items() for severity, error in by.items()}
    if clean_error is not None:
        known[CLEAN] = clean_error
    all_weights = summary_weights(known, alexnet=alexnet)
    return {
        summary: sum(weight * known[case] for case, weight in weights.items()) if weights else None
        for summary, weights in all_weights.items()
    }


def summary_weights(cases: Iterable[Hashable], *, alexnet: bool) -> dict[str, Weights]:
    """What the error of each case weighs in each summary.

    Args:
        cases: Pairs of a corruption and a severity; CLEAN where the error on clean images is known.
        alexnet: As in `corruption_summary`.

    Returns:
        By summary, the weights of its cases; empty where the cases are too few for it.
    """
    severities: dict[str, list[int]] = {}
    has_clean = False
    for case in cases:
        has_clean |= case == CLEAN
        if isinstance(case, tuple) and case[0] not in EXTRA_CORRUPTIONS:
            severities.setdefault(case[0], []).append(case[1])
    plain = dict.fromkeys(severities, 1.0)
    weights = {"mean_error": _weights(severities, plain), "mce": Weights(), "relative_mce": Weights()}
    if alexnet and {name: tuple(sorted(of_name)) for name, of_name in severities.items()} == dict.fromkeys(ALEXNET_ERRORS, SEVERITIES):
        weights["mce"] = _weights(severities, ALEXNET_ERRORS)
        if has_clean:
            added = {name: error - ALEXNET_CLEAN_ERROR for name, error in ALEXNET_ERRORS.items()}
            relative = _weights(severities, added)
            weights["relative_mce"] = {**relative, CLEAN: -sum(relative.values())}
    return weights


class CorruptionErrors:
    """Errors of one model under corruptions, added up image by image, with intervals that know that the images are the same.

    Args:
        cases: Pairs of a corruption and a severity that will be added; CLEAN where clean answers will be.
        alexnet: As in `corruption_summary`.

    Raises:
        ValueError: No case.
    """

    def __init__(self, cases: Iterable[Hashable], *, alexnet: bool) -> None:
        self._cases = tuple(dict.fromkeys(cases))
        self._weights = summary_weights(self._cases, alexnet=alexnet)
        self._totals = CaseTotals({case: [self._weights[name].get(case, 0.0) for name in SUMMARIES] for case in self._cases})

    def add(self, case: Hashable, correct: Bool[np.ndarray, "num"], keys: Iterable[Hashable]) -> None:
        """Add answers to some images of a case; of each case and image once.

        Args:
            case: One of the cases.
            correct: Whether each answer was right.
            keys: What tells images apart and is the same in every case, as `class/file name`.

        Raises:
            ValueError: Keys that repeat or do not fit the answers.
        """
        self._totals.add(case, ~correct, keys)

    def error(self, case: Hashable) -> float:
        """Share of wrong answers in a case.

        Raises:
            ValueError: The case has no image.
        """
        return self._totals.case_mean(case)

    def summary(self) -> dict[str, Any]:
        """As `corruption_summary`, and under `intervals` the 95 % interval of each, AlexNet's errors taken as known.

        Raises:
            ValueError: A case has no image.
        """
        values: dict[str, float | None] = {}
        intervals: dict[str, list[float] | None] = {}
        for index, name in enumerate(SUMMARIES):
            if not self._weights[name]:
                values[name], intervals[name] = None, None
                continue
            value, interval = self._total(index, name)
            values[name], intervals[name] = value, None if interval is None else list(interval)
        return {**values, "intervals": intervals}

    def _total(self, index: int, name: str) -> tuple[float, Interval | None]:
        if name == "relative_mce":  # below 0 for a model that corruption helps
            return self._totals.total(index)
        return self._totals.total(index, low=0.0, high=sum(self._weights[name].values()))


def _weights(severities: Mapping[str, list[int]], divisors: Mapping[str, float]) -> Weights:
    """Weights of the mean over corruptions of (mean over severities / divisor)."""
    return {
        (name, severity): 1 / (len(severities) * len(of_name) * divisors[name])
        for name, of_name in severities.items()
        for severity in of_name
    }
