"""Brief scores of many cases (corruptions, shares of removed patches), added up batch by batch, without keeping what each image got."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from g2sd_deploy.evaluation.calibration import CalibrationBins, equal_width_bins, expected_calibration_error
from g2sd_deploy.evaluation.corruption_error import CorruptionErrors, corruption_summary
from g2sd_deploy.evaluation.intervals import wilson_interval
from g2sd_deploy.evaluation.outcomes import Outcomes

_TOP = 5


@dataclass
class Tally:
    """Sums over the images of one case that have come so far."""

    num: int = 0
    hits: int = 0
    hits5: int = 0
    nll: float = 0.0
    brier: float = 0.0
    bins: CalibrationBins | None = None

    def add(self, outcomes: Outcomes) -> None:
        """Count some images, at least one."""
        self.num += len(outcomes)
        self.hits += int(outcomes.correct.sum())
        self.hits5 += int((outcomes.rank < _TOP).sum())
        self.nll += float(outcomes.nll.sum())
        self.brier += float(outcomes.brier.sum())
        more = equal_width_bins(outcomes.top1_prob, outcomes.correct)
        self.bins = more if self.bins is None else _joined(self.bins, more)

    def scores(self) -> dict[str, float | int | None]:
        """The same as `brief_scores` of all images at once, up to the order of sums.

        Raises:
            ValueError: No image has come.
        """
        if self.bins is None:
            raise ValueError("there is nothing to score: no image")
        one_label = self.nll == self.nll  # NaN where an image may have several right classes
        return {
            "num_images": self.num,
            "top1": self.hits / self.num,
            "top5": self.hits5 / self.num,
            "nll": self.nll / self.num if one_label else None,
            "brier": self.brier / self.num if one_label else None,
            "ece": expected_calibration_error(self.bins),
        }

    def top1_interval(self) -> list[float]:
        """95 % interval of top-1."""
        return list(wilson_interval(self.hits, self.num))


def _joined(one: CalibrationBins, other: CalibrationBins) -> CalibrationBins:
    return replace(one, num=one.num + other.num, confidence=one.confidence + other.confidence, correct=one.correct + other.correct)


class CorruptionTallies:
    """One model under several corruptions.

    Args:
        cases: Corruption and severity of each case.
        alexnet: Whether these are the stored images of ImageNet-C, whose errors AlexNet's may divide.
    """

    def __init__(self, cases: Sequence[tuple[str, int]], *, alexnet: bool) -> None:
        self._tallies = {case: Tally() for case in cases}
        self._errors = CorruptionErrors(cases, alexnet=alexnet)
        self._alexnet = alexnet

    def add(self, case: tuple[str, int], outcomes: Outcomes, keys: Iterable[int]) -> None:
        """Count some images of a case; `keys` tell images apart and are the same in every case."""
        self._tallies[case].add(outcomes)
        self._errors.add(case, outcomes.correct, keys)

    def corruptions(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
        """Brief scores by corruption and severity (as text, for JSON)."""
        found: dict[str, dict[str, dict[str, float | int | None]]] = {}
        for (name, severity), tally in self._tallies.items():
            found.setdefault(name, {})[str(severity)] = tally.scores()
        return found

    def summary(self, clean_error: float | None = None) -> dict[str, Any]:
        """As `CorruptionErrors.summary`; the relative error, which needs the error on clean images, has no interval."""
        errors: dict[str, dict[int, float]] = {}
        for name, severity in self._tallies:
            errors.setdefault(name, {})[severity] = self._errors.error((name, severity))
        relative = corruption_summary(errors, alexnet=self._alexnet, clean_error=clean_error)["relative_mce"]
        return self._errors.summary() | {"relative_mce": relative}

    def mean_top1(self) -> tuple[float, list[float] | None]:
        """Mean over all cases of top-1, and its 95 % interval."""
        found = self._errors.summary()
        interval = found["intervals"]["mean_error"]
        return 1 - found["mean_error"], None if interval is None else [1 - interval[1], 1 - interval[0]]
