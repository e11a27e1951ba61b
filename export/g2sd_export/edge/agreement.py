"""Do two sets of logits say the same? Used by the parity check before shipping and by the self-test on the device."""

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


@dataclass(frozen=True)
class ParityTolerance:
    """How far a candidate may differ from its reference.

    Attributes:
        max_abs_logit_diff: Largest absolute difference of any logit; 0 or more, in units of the logits.
        flipped_share: Share of images in [0, 1] whose decision may change.

    Raises:
        UserError: A value lies outside its range.
    """

    max_abs_logit_diff: float = 1e-3
    flipped_share: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_abs_logit_diff) and self.max_abs_logit_diff >= 0):
            raise UserError(f"tolerance: max_abs_logit_diff is {self.max_abs_logit_diff}; it must be a finite number of at least 0")
        if not 0 <= self.flipped_share <= 1:
            raise UserError(f"tolerance: flipped_share is {self.flipped_share}; it must lie between 0 and 1")

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values; the inverse of ``from_dict``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParityTolerance:
        """Read what ``to_dict`` wrote.

        Raises:
            UserError: A key is missing or unknown, or a value is no number or lies outside its range.
        """
        keys = [field.name for field in dataclasses.fields(cls)]
        if set(values) != set(keys) or not all(type(value) in (int, float) for value in values.values()):
            raise UserError(f"tolerance: it holds {dict(values)}; wanted a number for each of {' and '.join(keys)}")
        return cls(**{key: float(values[key]) for key in keys})


@dataclass(frozen=True)
class Agreement:
    """How two sets of logits for the same images compare.

    Attributes:
        num_images: Images compared.
        flipped: Images whose largest logit is another class.
        flipped_share: ``flipped / num_images``.
        max_abs_logit_diff: Largest absolute difference, in units of the logits.
        mean_abs_logit_diff: Mean absolute difference, in units of the logits.
        min_cosine: Smallest cosine between an image's two logit vectors, in [-1, 1].
    """

    num_images: int
    flipped: int
    flipped_share: float
    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    min_cosine: float


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
    return reasons


def _cosine(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Cosine per row; two zero rows agree (1), a zero row and another do not (0)."""
    norms = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1)
    product = norms[0] * norms[1]
    both_zero = (norms[0] == 0) & (norms[1] == 0)
    cosine = (left * right).sum(axis=1) / np.where(product == 0, 1, product)
    return np.clip(np.where(both_zero, 1.0, cosine), -1, 1)
