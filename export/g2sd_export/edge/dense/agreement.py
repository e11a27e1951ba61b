"""Do two answers for pixels or objects say the same? Used by the proof before shipping and by the self-test on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Mapping, Union

import numpy as np
import numpy.typing as npt

from ..agreement import Verdict
from .outputs import CLASSES
from .task import DenseTask
from .tolerance import BoxTolerance, DenseTolerance, PixelTolerance

MIN_IOU = 0.5
"""Least overlap of two boxes that mean the same object."""

Answer = Mapping[str, "npt.NDArray[Any]"]
"""What ``answer_of`` gives: ``classes`` [N, h, w]; or ``boxes``, ``scores``, ``labels`` and ``masks`` of N images."""


@dataclass(frozen=True)
class PixelAgreement:
    """How two maps of classes compare.

    Attributes:
        num_images: Images compared.
        num_pixels: Pixels compared.
        changed: Pixels that have another class.
        changed_share: ``changed / num_pixels``.
        changed_share_of_image: The same for the image where it is largest.
    """

    num_images: int
    num_pixels: int
    changed: int
    changed_share: float
    changed_share_of_image: float

    def told(self) -> str:
        """In a few words."""
        return f"{self.changed} of {self.num_pixels} pixels changed, at most {self.changed_share_of_image:.2%} of an image"


@dataclass(frozen=True)
class BoxAgreement:
    """How two lists of objects compare.

    Attributes:
        num_images: Images compared.
        num_objects: Objects that either reports, counted in each.
        unmatched: Those without a partner: of their class, with boxes that overlap by ``MIN_IOU``.
        unmatched_share: ``unmatched / num_objects``; 0 where there are none.
        max_score_diff: Largest difference of the scores of two partners.
        max_box_shift_px: Largest difference of a border of their boxes, in pixels.
        changed_mask_share: Share of the cells of the partners' masks that are on another side of 0.5.
    """

    num_images: int
    num_objects: int
    unmatched: int
    unmatched_share: float
    max_score_diff: float
    max_box_shift_px: float
    changed_mask_share: float

    def told(self) -> str:
        """In a few words."""
        differences = f"score {self.max_score_diff:.2g}, border {self.max_box_shift_px:.2g} px, mask {self.changed_mask_share:.2%}"
        return f"{self.unmatched} of {self.num_objects} objects without a partner, largest differences: {differences}"


DenseAgreement = Union[PixelAgreement, BoxAgreement]


def pixel_agreement(reference: Sequence[npt.NDArray[np.uint8]], candidate: Sequence[npt.NDArray[np.uint8]]) -> PixelAgreement:
    """Compare maps of classes.

    Args:
        reference: [h, w] of each image, at least one.
        candidate: Of the same shapes.
    """
    assert len(reference) == len(candidate) > 0 and all(one.shape == other.shape for one, other in zip(reference, candidate))
    changed = [int((one != other).sum()) for one, other in zip(reference, candidate)]
    sizes = [one.size for one in reference]
    return PixelAgreement(
        num_images=len(sizes),
        num_pixels=sum(sizes),
        changed=sum(changed),
        changed_share=sum(changed) / sum(sizes),
        changed_share_of_image=max(count / size for count, size in zip(changed, sizes)),
    )


def box_agreement(reference: Answer, candidate: Answer, min_score: float) -> BoxAgreement:
    """Compare lists of objects, which are paired greedily, the reference's surest first, each with the box that overlaps it most.

    Args:
        reference: ``boxes`` [N, K, 4], ``scores`` [N, K], ``labels`` [N, K] and ``masks`` [N, K, m, m].
        candidate: Of the same images; K may differ.
        min_score: What is reported. An object that only one of them reports may still have its partner below, so that a score next to the
            limit is a difference of scores and not a lost object.
    """
    num_objects = num_paired = changed_cells = num_cells = 0
    score_diff = shift = 0.0
    for one, other in zip(_images(reference), _images(candidate)):
        pairs = _pairs(one, other)
        told = [(left, right) for left, right in pairs if max(one["scores"][left], other["scores"][right]) >= min_score]
        num_objects += sum(int((image["scores"] >= min_score).sum()) for image in (one, other))
        for left, right in told:
            num_paired += int(one["scores"][left] >= min_score) + int(other["scores"][right] >= min_score)
            score_diff = max(score_diff, abs(float(one["scores"][left]) - float(other["scores"][right])))
            shift = max(shift, float(np.abs(one["boxes"][left].astype(np.float64) - other["boxes"][right]).max()))
            changed_cells += int(((one["masks"][left] >= 0.5) != (other["masks"][right] >= 0.5)).sum())
            num_cells += one["masks"][left].size
    return BoxAgreement(
        num_images=len(reference["scores"]),
        num_objects=num_objects,
        unmatched=num_objects - num_paired,
        unmatched_share=(num_objects - num_paired) / num_objects if num_objects else 0.0,
        max_score_diff=score_diff,
        max_box_shift_px=shift,
        changed_mask_share=changed_cells / num_cells if num_cells else 0.0,
    )


def judge_dense(
    reference: Answer, candidate: Answer, task: DenseTask, tolerance: DenseTolerance
) -> tuple[Verdict, str, DenseAgreement | None]:
    """Decide whether ``candidate`` stands for ``reference``; anything that cannot be compared fails.

    Args:
        reference: What ``answer_of`` gives for N images.
        candidate: The same of another form of the network.
        task: What it does.
        tolerance: How far they may differ; of the task's kind.

    Returns:
        Verdict, the reason when it is not "passed" (it names the numbers), and the comparison where one was possible.
    """
    if (task.kind == "detection") != isinstance(tolerance, BoxTolerance):
        return "failed", f"the tolerance is not one of {task.kind}", None
    if problem := _incomparable(reference, candidate, task):
        return "failed", problem, None
    if len(next(iter(reference.values()))) == 0:
        return "not_run", "there are no images to compare", None
    agreement: DenseAgreement
    if isinstance(tolerance, PixelTolerance):
        agreement = pixel_agreement(list(reference[CLASSES]), list(candidate[CLASSES]))
        reasons = list(_pixel_violations(agreement, tolerance))
    else:
        agreement = box_agreement(reference, candidate, task.min_score)
        reasons = list(_box_violations(agreement, tolerance))
    return ("failed" if reasons else "passed"), "; ".join(reasons), agreement


def _pixel_violations(found: PixelAgreement, tolerance: PixelTolerance) -> Iterator[str]:
    if found.changed_share > tolerance.changed_share:
        what = f"{found.changed} of {found.num_pixels} pixels change their class ({found.changed_share:.3%})"
        yield f"{what}, tolerated {tolerance.changed_share:.3%}"
    if found.changed_share_of_image > tolerance.changed_share_of_image:
        what = f"{found.changed_share_of_image:.3%} of the pixels of one image change their class"
        yield f"{what}, tolerated {tolerance.changed_share_of_image:.3%}"


def _box_violations(found: BoxAgreement, tolerance: BoxTolerance) -> Iterator[str]:
    if found.unmatched_share > tolerance.unmatched_share:
        what = f"{found.unmatched} of {found.num_objects} objects have no partner ({found.unmatched_share:.3%})"
        yield f"{what}, tolerated {tolerance.unmatched_share:.3%}"
    if found.max_score_diff > tolerance.max_score_diff:
        yield f"a score differs by {found.max_score_diff:.3g}, tolerated {tolerance.max_score_diff:.3g}"
    if found.max_box_shift_px > tolerance.max_box_shift_px:
        yield f"a box differs by {found.max_box_shift_px:.3g} pixels, tolerated {tolerance.max_box_shift_px:.3g}"
    if found.changed_mask_share > tolerance.changed_mask_share:
        yield f"{found.changed_mask_share:.3%} of the cells of masks change sides, tolerated {tolerance.changed_mask_share:.3%}"


def _incomparable(reference: Answer, candidate: Answer, task: DenseTask) -> str:
    if set(reference) != set(candidate):
        return f"the reference gives {', '.join(sorted(reference))}, the candidate {', '.join(sorted(candidate))}"
    for key, one in reference.items():
        left, right = (shape[:1] + shape[2:] if task.kind == "detection" else shape for shape in (one.shape, candidate[key].shape))
        if left != right:
            return f"the reference's {key} have shape {list(one.shape)}, the candidate's {list(candidate[key].shape)}"
    return ""


def _images(answer: Answer) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Objects of each image: those that are not there to fill up, the surest first."""
    for index, scores in enumerate(answer["scores"]):
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > 0]
        yield {key: values[index][order] for key, values in answer.items()}


def _pairs(one: Mapping[str, npt.NDArray[Any]], other: Mapping[str, npt.NDArray[Any]]) -> list[tuple[int, int]]:
    overlap = box_iou(one["boxes"], other["boxes"])
    overlap[one["labels"][:, None] != other["labels"]] = 0
    pairs = []
    for left, row in enumerate(overlap):
        if row.size and row.max() >= MIN_IOU:
            right = int(row.argmax())
            pairs.append((left, right))
            overlap[:, right] = 0
    return pairs


def box_iou(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Shared area over joint area of boxes [n, 4] and [m, 4]: float64 [n, m]; 0 for boxes without an area."""
    one, other = left.astype(np.float64)[:, None], right.astype(np.float64)
    sides = np.minimum(one[..., 2:], other[:, 2:]) - np.maximum(one[..., :2], other[:, :2])
    shared: npt.NDArray[np.float64] = sides.clip(min=0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(axis=-1) for boxes in (one, other)]
    joint: npt.NDArray[np.float64] = areas[0] + areas[1] - shared
    return shared / np.where(joint > 0, joint, 1)
