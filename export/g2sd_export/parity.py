"""Is the exported model the same model? Asked on real images, answered with a verdict that fails closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64, UInt8

from .edge.agreement import Agreement, ParityTolerance, Verdict, judge
from .edge.runner import Runner, describe

__all__ = ["ParityResult", "ParityTolerance", "compare"]


@dataclass(frozen=True)
class ParityResult:
    """Outcome of a parity check.

    Attributes:
        verdict: "passed", "failed" or "not_run".
        reason: Why it did not pass, with the numbers; empty when passed.
        num_images: Images that both models were asked about.
        agreement: How the logits compare; None where they could not be compared.
        top1_reference: Accuracy of the reference, in [0, 1]; None where its logits could not be compared.
        top1_candidate: Accuracy of the candidate, likewise.
        tolerance: What was tolerated.
        reference: Runtime and version of the reference.
        candidate: Runtime, version and provider of the candidate.
    """

    verdict: Verdict
    reason: str
    num_images: int
    agreement: Agreement | None
    top1_reference: float | None
    top1_candidate: float | None
    tolerance: ParityTolerance
    reference: str
    candidate: str

    def to_dict(self) -> dict[str, Any]:
        """Plain, flat JSON values; a number that could not be computed is None."""
        numbers = ("flipped", "flipped_share", "max_abs_logit_diff", "mean_abs_logit_diff", "min_cosine")
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "num_images": self.num_images,
            **{key: getattr(self.agreement, key, None) for key in numbers},
            "top1_reference": self.top1_reference,
            "top1_candidate": self.top1_candidate,
            "tolerance": self.tolerance.to_dict(),
            "reference": self.reference,
            "candidate": self.candidate,
        }


def compare(
    reference: Runner,
    candidate: Runner,
    images: UInt8[np.ndarray, "num height width channels"],
    labels: Int64[np.ndarray, " labels"],
    *,
    tolerance: ParityTolerance,
    batch_size: int = 64,
    tick: Callable[[int, int], None] | None = None,
) -> ParityResult:
    """Run both models over the same images and judge whether the candidate stands for the reference.

    Each model prepares the images itself, so a wrong mean or standard deviation is caught too.

    Args:
        reference: The model that was evaluated.
        candidate: The model that would ship.
        images: Real images of the size that both want.
        labels: Their true classes, for the accuracy of both.
        tolerance: How far the two may differ.
        batch_size: Images per call; the last batch may be smaller, which exercises the free batch size.
        tick: Told the calls that are done, and all of one model, from 0 on; first of the reference, then of the candidate.

    Returns:
        The verdict with its numbers: "failed" for NaN or infinite logits, unequal shapes or differences above the
        tolerance, "not_run" for an empty set.

    Raises:
        ValueError: The number of labels is not that of the images, or ``batch_size`` is below 1.
    """
    if len(images) != len(labels) or batch_size < 1:
        raise ValueError(
            f"parity: {len(images)} images, {len(labels)} labels, batches of {batch_size}; wanted a label per image and batches of 1 up"
        )
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    left, right = (_infer_all(runner, batches, tick) for runner in (reference, candidate))
    verdict, reason, agreement = _judge_all(batches, left, right, tolerance)
    return ParityResult(
        verdict=verdict,
        reason=reason,
        num_images=len(images),
        agreement=agreement,
        top1_reference=_top1(left, labels) if agreement else None,
        top1_candidate=_top1(right, labels) if agreement else None,
        tolerance=tolerance,
        reference=describe(reference),
        candidate=describe(candidate),
    )


def _infer_all(
    runner: Runner, batches: list[npt.NDArray[np.uint8]], tick: Callable[[int, int], None] | None
) -> list[npt.NDArray[np.float32]]:
    logits = []
    for done, batch in enumerate(batches):
        if tick is not None:
            tick(done, len(batches))
        logits.append(runner.infer(batch))
    if tick is not None:
        tick(len(batches), len(batches))
    return logits


def _judge_all(
    batches: list[npt.NDArray[np.uint8]],
    left: list[npt.NDArray[np.float32]],
    right: list[npt.NDArray[np.float32]],
    tolerance: ParityTolerance,
) -> tuple[Verdict, str, Agreement | None]:
    """Judge batch by batch that each image has its answer, then all answers together."""
    if not batches:
        return "not_run", "there are no images to compare", None
    for images, one, other in zip(batches, left, right, strict=True):
        wanted = (len(images), *left[0].shape[1:2])
        if one.shape != wanted or other.shape != wanted:
            found = f"the reference gives logits of shape {list(one.shape)} and the candidate of {list(other.shape)}"
            return "failed", f"for {len(images)} images {found}; wanted one row of equal length per image", None
    return judge(np.concatenate(left), np.concatenate(right), tolerance)


def _top1(logits: list[npt.NDArray[np.float32]], labels: npt.NDArray[np.int64]) -> float:
    return float((np.concatenate(logits).argmax(axis=1) == labels).mean())
