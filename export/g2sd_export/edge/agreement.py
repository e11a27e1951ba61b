"""Do two sets of logits say the same? Used by the proof before shipping and by the self-test on the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import UserError

Verdict = Literal["passed", "failed", "not_run"]

_NEEDED = {"max_abs_logit_diff", "flipped_share"}


@dataclass(frozen=True)
class ParityTolerance:
    """How far a candidate may differ from its reference.

    Attributes:
        max_abs_logit_diff: Largest absolute difference of any logit; 0 or more, in units of the logits.
        flipped_share: Share of images in [0, 1] whose decision may change.
        min_cosine: Smallest cosine between an image's two logit vectors, in [-1, 1]; -1 tolerates any.
        max_mean_kl: Largest mean Kullback-Leibler divergence of the candidate's probabilities from the reference's, in nats;
            None tolerates any.

    Raises:
        UserError: A value lies outside its range.
    """

    max_abs_logit_diff: float = 1e-3
    flipped_share: float = 0.0
    min_cosine: float = -1.0
    max_mean_kl: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_abs_logit_diff) and self.max_abs_logit_diff >= 0):
            raise UserError(f"tolerance: max_abs_logit_diff is {self.max_abs_logit_diff}; it must be a finite number of at least 0")
        if not 0 <= self.flipped_share <= 1:
            raise UserError(f"tolerance: flipped_share is {self.flipped_share}; it must lie between 0 and 1")
        if not -1 <= self.min_cosine <= 1:
            raise UserError(f"tolerance: min_cosine is {self.min_cosine}; it must lie between -1 and 1")
        if self.max_mean_kl is not None and not (math.isfinite(self.max_mean_kl) and self.max_mean_kl >= 0):
            raise UserError(f"tolerance: max_mean_kl is {self.max_mean_kl}; it must be a finite number of at least 0, or null")

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values of the two that are always asked, and of the others where they ask something; ``from_dict`` reads them."""
        idle = {"min_cosine": -1.0, "max_mean_kl": None}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in idle or value != idle[key]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParityTolerance:
        """Read what ``to_dict`` wrote; ``min_cosine`` and ``max_mean_kl`` may be absent, and the latter null.

        Raises:
            UserError: A key is missing or unknown, or a value is no number or lies outside its range.
        """
        keys = {field.name for field in dataclasses.fields(cls)}
        numbers = {key: value for key, value in values.items() if not (key == "max_mean_kl" and value is None)}
        if not _NEEDED <= set(values) <= keys or not all(type(value) in (int, float) for value in numbers.values()):
            wanted = "a number for each of max_abs_logit_diff and flipped_share and, if at all, of min_cosine and max_mean_kl"
            raise UserError(f"tolerance: it holds {dict(values)}; wanted {wanted}")
        return cls(**{key: float(value) for key, value in numbers.items()})


@dataclass(frozen=True)
class Agreement:
    """How two sets of logits for the same images compare.

    Attributes:
        num_images: Images compared.
        flipped: Images whose largest logit is another class.
        flipped_share: ``flipped / num_images``.
        max_abs_logit_diff: Largest absolute difference, in units of the logits.
        mean_abs_logit_diff: Mean absolute difference, in units of the logits.
        min_cosine: Smallest cosine between an image's two logit vectors, in [-1, 1]; 1 where they are equal.
        mean_kl: Mean over images of KL(reference || candidate) between the two softmaxes, in nats.
    """

    num_images: int
    flipped: int
    flipped_share: float
    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    min_cosine: float
    mean_kl: float

    def told(self) -> str:
        """In a few words."""
        return f"largest logit difference {self.max_abs_logit_diff:.2g}, {self.flipped} decisions flipped"


def measure_agreement(reference: npt.NDArray[np.floating[Any]], candidate: npt.NDArray[np.floating[Any]]) -> Agreement:
    """Compare two sets of logits in float64.

    Args:
        reference: [N, num_classes], N at least 1, finite.
        candidate: Of the same shape, finite.

    Returns:
        The numbers, without a judgement.
    """
    assert reference.shape == candidate.shape and reference.ndim == 2 and reference.size > 0
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    difference = np.abs(left - right)
    flipped = int((left.argmax(axis=1) != right.argmax(axis=1)).sum())
    return Agreement(
        num_images=len(left),
        flipped=flipped,
        flipped_share=flipped / len(left),
        max_abs_logit_diff=float(difference.max()),
        mean_abs_logit_diff=float(difference.mean()),
        min_cosine=float(_cosine(left, right).min()),
        mean_kl=float(_divergence(left, right).mean()),
    )


def judge(
    reference: npt.NDArray[np.floating[Any]], candidate: npt.NDArray[np.floating[Any]], tolerance: ParityTolerance
) -> tuple[Verdict, str, Agreement | None]:
    """Decide whether ``candidate`` stands for ``reference``; anything that cannot be compared fails.

    Args:
        reference: Logits [N, num_classes].
        candidate: Logits of the same images.
        tolerance: How far they may differ.

    Returns:
        Verdict, the reason when it is not "passed" (it names the numbers), and the comparison where one was possible.
    """
    if reference.ndim != 2 or reference.shape != candidate.shape:
        return "failed", f"the reference's logits have shape {list(reference.shape)}, the candidate's {list(candidate.shape)}", None
    if reference.size == 0:
        return "not_run", "there are no images to compare", None
    for who, logits in (("reference", reference), ("candidate", candidate)):
        if bad := int((~np.isfinite(logits)).any(axis=1).sum()):
            return "failed", f"the {who}'s logits are NaN or infinite for {bad} of {len(logits)} images", None
    agreement = measure_agreement(reference, candidate)
    reasons = _violations(agreement, tolerance)
    return ("failed" if reasons else "passed"), "; ".join(reasons), agreement


def _violations(agreement: Agreement, tolerance: ParityTolerance) -> list[str]:
    reasons = []
    if agreement.max_abs_logit_diff > tolerance.max_abs_logit_diff:
        reasons.append(f"a logit differs by {agreement.max_abs_logit_diff:.3g}, tolerated {tolerance.max_abs_logit_diff:.3g}")
    if agreement.flipped_share > tolerance.flipped_share:
        share = f"{agreement.flipped} of {agreement.num_images} decisions flip ({agreement.flipped_share:.3%})"
        reasons.append(f"{share}, tolerated {tolerance.flipped_share:.3%}")
    if agreement.min_cosine < tolerance.min_cosine:
        reasons.append(f"the cosine of an image's logits is {agreement.min_cosine:.6g}, wanted at least {tolerance.min_cosine:.6g}")
    if tolerance.max_mean_kl is not None and agreement.mean_kl > tolerance.max_mean_kl:
        reasons.append(f"the mean KL divergence is {agreement.mean_kl:.3g} nats, tolerated {tolerance.max_mean_kl:.3g}")
    return reasons


def _cosine(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cosine per row; equal rows agree (1), a zero row and another do not (0)."""
    product = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine = (left * right).sum(axis=1) / np.where(product == 0, 1, product)
    return np.clip(np.where((left == right).all(axis=1), 1.0, cosine), -1, 1)


def _divergence(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """KL(softmax(left) || softmax(right)) per row, in nats; rounding alone would make it negative near 0."""
    logs = _log_softmax(left), _log_softmax(right)
    divergence: npt.NDArray[np.float64] = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1)
    return divergence.clip(min=0)


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted: npt.NDArray[np.float64] = logits - logits.max(axis=1, keepdims=True)
    total: npt.NDArray[np.float64] = np.exp(shifted).sum(axis=1, keepdims=True)
    return shifted - np.log(total)
