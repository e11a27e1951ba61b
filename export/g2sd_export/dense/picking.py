"""Which images a bundle keeps for its self-test, and how far another machine may be from the answers for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..edge.dense.agreement import BoxAgreement, box_agreement, pixel_agreement
from ..edge.dense.outputs import CLASSES
from ..edge.dense.task import DenseTask
from ..edge.dense.tolerance import BoxTolerance, DenseTolerance, PixelTolerance
from .questions import Questions, ask_of, chosen

Answer = Mapping[str, npt.NDArray[Any]]

# As for classifiers (``device_tolerance``): another CPU adds up in another order, and rounds other numbers the other way.
_SPREAD_MARGIN = 4.0
_ROUNDING_MARGIN = 2.0
# A flat region, or two classes as likely as each other, may change sides as a whole: one pixel in a thousand is nobody's answer.
_LEAST_PIXELS = PixelTolerance(changed_share=0.001, changed_share_of_image=0.005)
_LEAST_BOXES = BoxTolerance(unmatched_share=0.0, max_score_diff=0.001, max_box_shift_px=0.05, changed_mask_share=0.002)


def pick_windows(questions: Questions, answers: Sequence[Answer], tolerance: DenseTolerance, num: int) -> list[int]:
    """Square inputs for the self-test, spread over those on which every file says what torch says.

    Args:
        questions: The images; one square of each is looked at, the first.
        answers: Of torch and of every file that ships, to all square inputs.
        tolerance: What a file may differ by on its own sample.
        num: How many, at most.

    Returns:
        Places among the square inputs, ascending; all that are looked at where the files agree on none.
    """
    first = [start for start, _ in questions.bounds]
    agreed = [place for place in first if all(_agrees(answers[0], other, place, questions.task, tolerance) for other in answers[1:])]
    # A detector's sample in which there is nothing to find would prove little.
    told = [
        place for place in agreed if questions.task.kind == "segmentation" or answers[0]["scores"][place].max() >= questions.task.min_score
    ]
    usable = told or agreed or first
    picks = np.linspace(0, len(usable) - 1, min(num, len(usable))).round().astype(int)
    return [usable[pick] for pick in picks.tolist()]


def difference_of(reference: Answer, candidate: Answer, task: DenseTask) -> DenseTolerance:
    """The least tolerance under which one answer stands for another."""
    if task.kind == "segmentation":
        pixels = pixel_agreement(list(reference[CLASSES]), list(candidate[CLASSES]))
        return PixelTolerance(pixels.changed_share, pixels.changed_share_of_image)
    found: BoxAgreement = box_agreement(reference, candidate, task.min_score)
    return BoxTolerance(found.unmatched_share, min(1.0, found.max_score_diff), found.max_box_shift_px, found.changed_mask_share)


def device_tolerance(
    opened: Callable[[int], Any], windows: npt.NDArray[np.uint8], golden: Answer, reference: Answer, task: DenseTask
) -> DenseTolerance:
    """How far another machine of the same kind may be from a file's own answers: measured by threads and batch sizes on this one.

    Args:
        opened: Opens the file with so many threads, anew each time.
        windows: uint8 [N, px, px, c]: the sample.
        golden: What the file answered here.
        reference: What the model that was trained answers; its distance is the size of the file's rounding errors.
        task: What the network does.
    """
    others = [ask_of(opened(threads).infer, windows, task, batch_size=size) for threads, size in itertools.product((1, 2), (1, 4))]
    spread = [(difference_of(golden, other, task), _SPREAD_MARGIN) for other in others]
    found = [*spread, (difference_of(reference, golden, task), _ROUNDING_MARGIN)]
    least: DenseTolerance = _LEAST_PIXELS if task.kind == "segmentation" else _LEAST_BOXES
    values = least.to_dict()
    for difference, margin in found:
        values = {key: max(values[key], margin * value) for key, value in difference.to_dict().items()}
    capped = {key: value if key == "max_box_shift_px" else min(1.0, value) for key, value in values.items()}
    return type(least)(**capped)


def _agrees(reference: Answer, candidate: Answer, place: int, task: DenseTask, tolerance: DenseTolerance) -> bool:
    found = difference_of(chosen(reference, [place]), chosen(candidate, [place]), task).to_dict()
    return all(value <= limit for value, limit in zip(found.values(), tolerance.to_dict().values(), strict=True))
