"""Scores of a network that answers for every pixel or every object, whatever runs it: torch, ONNX Runtime, OpenVINO.

Images are prepared and answers are read by what ships to the device, so the figures are of what a user will see.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from g2sd_deploy.data.dense.annotations import Annotated
from g2sd_deploy.data.images import BadImage, Skipped
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.evaluation.average_precision import PrecisionTally
from g2sd_deploy.evaluation.segmentation import SegmentationTally
from g2sd_export.edge.dense.detections import detections_of
from g2sd_export.edge.dense.placement import Placement
from g2sd_export.edge.dense.preparing import prepared
from g2sd_export.edge.dense.stitching import class_map
from g2sd_export.edge.dense.task import DenseTask

Answer = tuple[np.ndarray, ...]
Infer = Callable[[UInt8[np.ndarray, "batch px px channels"]], Answer]
"""A network: of a batch of square inputs the logits (or classes), or the boxes, scores, labels and masks; one row an input."""
Tick = Callable[[int, int], None]
"""Called with the images that are done and those wanted."""

_MOST_SKIPPED = 20
_NAMED = 3


@runtime_checkable
class AnnotatedImages(Protocol):
    """What scoring asks of `data.dense.annotations.DenseSamples`."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The image, for messages."""
        ...

    def read(self, index: int) -> Annotated:
        """An image and its truth, or BadImage."""
        ...


@dataclass(frozen=True)
class Scoring:
    """How a set is gone through.

    Attributes:
        seed: Of the interval of average precision, for which images are drawn anew.
        max_bad: Images that may be unusable; they are left out and counted.
        batch_size: Square inputs of a forward pass; at most so many and one image's more are held in memory.
    """

    seed: int = 0
    max_bad: int = 0
    batch_size: int = 8


def score_segmenter(
    infer: Infer, samples: AnnotatedImages, task: DenseTask, class_names: Sequence[str], tick: Tick, scoring: Scoring | None = None
) -> dict[str, Any]:
    """Figures of the classes of pixels at the images' own sizes.

    Args:
        infer: Answers with logits [batch, classes, s, s] or with classes, uint8 [batch, px, px].
        samples: Images with semantic maps.
        task: How they become the network's input.
        class_names: In the order of the network's classes.
        tick: Told of the progress.
        scoring: How the set is gone through.

    Returns:
        `num_images`, `num_skipped`, `skipped` (names and reasons, at most 20), and what `SegmentationTally.scores` says.

    Raises:
        UserError: The set has no semantic maps, or other classes than the network.
        RunFailed: Too many images are unusable, none is left, or the answers are no numbers.
    """
    scoring = scoring or Scoring()
    tally, skipped = SegmentationTally(len(class_names)), list[Skipped]()
    for name, annotated, placement, answer in _answered(infer, samples, task, scoring, _Progress(tick, len(samples), skipped)):
        if annotated.classes is None:
            raise UserError(f"{name} has no semantic map; a segmenter is scored on a set that says the class of every pixel")
        if answer[0].ndim == 4 and answer[0].shape[1] != len(class_names):
            raise UserError(f"the network tells {answer[0].shape[1]} classes and the set has {len(class_names)}; give a set of its classes")
        told = class_map(answer[0], placement)
        if told.max() >= len(class_names):
            raise UserError(f"the network told class {told.max()} of {name} and the set has {len(class_names)}; give a set of its classes")
        tally.add(told, annotated.classes)
    return _about(len(tally), skipped) | tally.scores(class_names)


def score_detector(
    infer: Infer, samples: AnnotatedImages, task: DenseTask, class_names: Sequence[str], tick: Tick, scoring: Scoring | None = None
) -> dict[str, Any]:
    """Figures of boxes and masks at the images' own sizes.

    Args:
        infer: Answers with boxes [batch, K, 4], scores [batch, K], labels [batch, K] and masks [batch, K, m, m].
        samples: Images with objects.
        task: How they become the network's input, and from which score on an object counts as told.
        class_names: In the order of the network's labels.
        tick: Told of the progress.
        scoring: How the set is gone through.

    Returns:
        `num_images`, `num_skipped`, `skipped` (names and reasons, at most 20), and what `PrecisionTally.scores` says.

    Raises:
        UserError: The set has no objects, or other classes than the network.
        RunFailed: Too many images are unusable, none is left, or the answers are no numbers.
    """
    scoring = scoring or Scoring()
    tally, skipped = PrecisionTally(class_names), list[Skipped]()
    for name, annotated, placement, answer in _answered(infer, samples, task, scoring, _Progress(tick, len(samples), skipped)):
        if annotated.instances is None:
            raise UserError(f"{name} has no objects marked; a detector is scored on a set with boxes and masks")
        boxes, scores, labels, masks = (of[0] for of in answer)
        found = detections_of(boxes, scores, labels, masks, placement, task.min_score)
        if len(found) and not 0 <= found.labels.min() <= found.labels.max() < len(class_names):
            raise UserError(
                f"the network told classes {found.labels.min()} to {found.labels.max()} of {name} and the set has {len(class_names)}, "
                "counted from 0; give a set of its classes"
            )
        tally.add(found, annotated.instances)
    return _about(len(tally), skipped) | tally.scores(seed=scoring.seed)


@dataclass(frozen=True)
class _Progress:
    """What is told on the way, and what was left out."""

    tick: Tick
    total: int
    skipped: list[Skipped]


@dataclass(frozen=True)
class _Waiting:
    """An image that waits for its batch."""

    name: str
    annotated: Annotated
    placement: Placement
    windows: np.ndarray


def _answered(
    infer: Infer, samples: AnnotatedImages, task: DenseTask, scoring: Scoring, progress: _Progress
) -> Iterator[tuple[str, Annotated, Placement, Answer]]:
    """Each usable image with the network's answers for its windows; several images share a forward pass."""
    num_outputs = 1 if task.kind == "segmentation" else 4
    done = 0
    progress.tick(0, progress.total)
    for group in _groups(samples, task, scoring, progress.skipped):
        answer = _inferred(infer, np.concatenate([image.windows for image in group]), scoring.batch_size, num_outputs)
        start = 0
        for image in group:
            stop = start + len(image.windows)
            yield image.name, image.annotated, image.placement, tuple(of[start:stop] for of in answer)
            start, done = stop, done + 1
        progress.tick(done + len(progress.skipped), progress.total)
    progress.tick(progress.total, progress.total)
    if not done:
        raise RunFailed(f"none of the {progress.total} images can be scored")


def _groups(samples: AnnotatedImages, task: DenseTask, scoring: Scoring, skipped: list[Skipped]) -> Iterator[list[_Waiting]]:
    """Images that together fill a batch."""
    group: list[_Waiting] = []
    for index in range(len(samples)):
        try:
            group.append(_waiting(samples, index, task))
        except BadImage as bad:
            skipped.append(Skipped(index, samples.name(index), str(bad)))
            if len(skipped) > scoring.max_bad:
                raise _too_many_bad(scoring, skipped) from None
        if sum(len(image.windows) for image in group) >= scoring.batch_size:
            yield group
            group = []
    if group:
        yield group


def _waiting(samples: AnnotatedImages, index: int, task: DenseTask) -> _Waiting:
    annotated = samples.read(index)
    try:
        placement, windows = prepared(annotated.pixels, task)
    except UserError as error:  # of the image's shape
        raise BadImage(str(error)) from None
    return _Waiting(samples.name(index), annotated, placement, windows)


def _inferred(infer: Infer, windows: UInt8[np.ndarray, "num px px channels"], batch_size: int, num_outputs: int) -> Answer:
    """The network's answers, checked: of as many inputs, and numbers."""
    parts = [_checked(infer(batch), len(batch), num_outputs) for batch in _cut(windows, batch_size)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _cut(windows: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(windows), batch_size):
        yield windows[start : start + batch_size]


def _checked(answer: Answer, num: int, num_outputs: int) -> Answer:
    if len(answer) != num_outputs or any(len(of) != num for of in answer):
        shapes = [list(of.shape) for of in answer]
        raise RunFailed(f"the network answers {num} inputs with {shapes}; wanted {num_outputs} outputs with a row for each input")
    if any(of.dtype.kind == "f" and not np.isfinite(of).all() for of in answer):
        raise RunFailed("the network's answers are not all finite numbers; it has diverged, or its precision is too low")
    return answer


def _too_many_bad(scoring: Scoring, skipped: Sequence[Skipped]) -> RunFailed:
    told = "; ".join(f"{bad.name}: {bad.reason}" for bad in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    count = f"{len(skipped)} bad image{'s' if len(skipped) > 1 else ''}"
    return RunFailed(
        f"{told}{more}: {count}, and at most {scoring.max_bad} are allowed; mend the set, or have them left out and counted (--max-bad)"
    )


def _about(num_images: int, skipped: Sequence[Skipped]) -> dict[str, Any]:
    told = [{"name": bad.name, "reason": bad.reason} for bad in skipped[:_MOST_SKIPPED]]
    return {"num_images": num_images, "num_skipped": len(skipped), "skipped": told}
