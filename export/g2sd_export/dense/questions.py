"""Real images as square inputs of a network, and what a network answered for all of them: asked once, compared as often as one likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8

from ..answers import Count, digest_of
from ..edge.dense.detections import Detections, detections_of
from ..edge.dense.network import Infer
from ..edge.dense.outputs import CLASSES, DETECTION_OUTPUTS, answer_of
from ..edge.dense.placement import Placement
from ..edge.dense.preparing import prepared
from ..edge.dense.stitching import class_map
from ..edge.dense.task import DenseTask
from ..edge.errors import UserError
from ..edge.runner import describe

BATCH = 4
"""Square inputs per call."""


@dataclass(frozen=True)
class Questions:
    """Images, cut into the squares that a network sees.

    Attributes:
        task: How they were cut.
        windows: uint8 [M, px, px, c]: of all images, in order.
        placements: Where each image went; as many windows as it has are its own.
    """

    task: DenseTask
    windows: UInt8[np.ndarray, "num height width channels"]
    placements: tuple[Placement, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the squares."""
        return digest_of(self.windows)

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First window of each image, and the first one behind it."""
        ends = np.cumsum([len(placement.windows) for placement in self.placements]).tolist()
        return list(zip([0, *ends], ends, strict=False))


def questions_of(images: Iterable[UInt8[np.ndarray, "height width channels"]], task: DenseTask) -> Questions:
    """Cut images, each of its own size, as the task says.

    Args:
        images: uint8 [h, w, c].
        task: What the network does.
    """
    cut = [prepared(pixels, task) for pixels in images]
    px = task.image_px
    none = np.zeros((0, px, px, task.num_channels), np.uint8)
    return Questions(task, np.concatenate([none, *(windows for _, windows in cut)]), tuple(placement for placement, _ in cut))


@dataclass(frozen=True)
class DenseAnswers:
    """All that one form of a network answered.

    Attributes:
        runtime: Runtime, version and, where there is a choice of it, provider.
        images: SHA-256 of the square inputs.
        answer: By name, as ``answer_of`` gives it, of all square inputs; empty where there is a problem. What lies beside an image, in the
            padding, is class 0.
        maps: Of a segmenter the class of each pixel of each image.
        problem: What kept an image from getting its answer, as a verb and its object; empty where none did.
    """

    runtime: str
    images: str
    answer: Mapping[str, npt.NDArray[Any]]
    maps: tuple[UInt8[np.ndarray, "height width"], ...] = ()
    problem: str = ""

    def results(self, questions: Questions) -> Iterator[npt.NDArray[np.uint8] | Detections]:
        """The answer for each image, at its own size: a map of classes, or what was detected."""
        if questions.task.kind == "segmentation":
            yield from self.maps
            return
        for (start, _), placement in zip(questions.bounds, questions.placements, strict=True):
            boxes, scores, labels, masks = (self.answer[name][start] for name in DETECTION_OUTPUTS)
            yield detections_of(boxes, scores, labels, masks, placement, questions.task.min_score)


def answers_to(network: Any, questions: Questions, *, batch_size: int, count: Count) -> DenseAnswers:
    """Ask a network about every image.

    Args:
        network: With ``name``, ``version`` and ``infer``: uint8 [b, px, px, c] to a tuple of arrays.
        questions: The images.
        batch_size: Square inputs per call; the last call may have fewer.
        count: Told of each call.

    Returns:
        The answers, or the problem: a network that gave up, or gave another number of answers.
    """
    parts: list[dict[str, npt.NDArray[Any]]] = []
    maps = _Maps(questions)
    total = calls_of(questions, batch_size)
    for done in range(total):
        batch = questions.windows[done * batch_size : (done + 1) * batch_size]
        try:
            outputs = network.infer(batch)
            problem = "" if {len(output) for output in outputs} == {len(batch)} else _misshapen(outputs, len(batch))
        except UserError as error:
            outputs, problem = (), f"gives up: {error}"
        count.add(total - done if problem else 1)
        if problem:
            return DenseAnswers(describe(network), questions.digest, {}, problem=problem)
        parts.append(answer_of(outputs, questions.task))
        maps.add(outputs)
    if not parts:
        return DenseAnswers(describe(network), questions.digest, {}, problem="was asked about no image")
    answer = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if CLASSES in answer:
        _blank_padding(answer[CLASSES], questions.placements)
    return DenseAnswers(describe(network), questions.digest, answer, tuple(maps.done))


def calls_of(questions: Questions, batch_size: int) -> int:
    """Calls that it takes to ask everything."""
    return -(-len(questions.windows) // batch_size)


def chosen(answer: Mapping[str, npt.NDArray[Any]], picks: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
    """Some of the square inputs' answers."""
    return {key: values[list(picks)] for key, values in answer.items()}


def ask_of(infer: Infer, windows: npt.NDArray[np.uint8], task: DenseTask, *, batch_size: int = BATCH) -> dict[str, npt.NDArray[Any]]:
    """What is compared of a network's answers to square inputs.

    Args:
        infer: The network.
        windows: uint8 [N, px, px, c], N at least 1.
        task: What it does.
        batch_size: Square inputs per call.
    """
    starts = range(0, len(windows), batch_size)
    parts = [answer_of(infer(windows[start : start + batch_size]), task) for start in starts]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


class _Maps:
    """Puts the windows of each image together as soon as all of them are answered, so that no logits are kept longer."""

    def __init__(self, questions: Questions) -> None:
        self.questions, self.done = questions, list[npt.NDArray[np.uint8]]()
        self._waiting: list[npt.NDArray[Any]] = []

    def add(self, outputs: Sequence[npt.NDArray[Any]]) -> None:
        """Outputs of the next windows."""
        if self.questions.task.kind != "segmentation":
            return
        self._waiting.extend(outputs[0])
        while len(self.done) < len(self.questions.placements):
            placement = self.questions.placements[len(self.done)]
            if len(self._waiting) < len(placement.windows):
                return
            own, self._waiting = self._waiting[: len(placement.windows)], self._waiting[len(placement.windows) :]
            self.done.append(class_map(np.stack(own), placement))


def _blank_padding(classes: npt.NDArray[np.uint8], placements: Sequence[Placement]) -> None:
    """Class 0 beside the image: what a network says there is nobody's answer."""
    places = [(placement, window) for placement in placements for window in placement.windows]
    for one, (placement, (top, left)) in zip(classes, places, strict=True):
        one[max(0, placement.resized[0] - top) :] = 0
        one[:, max(0, placement.resized[1] - left) :] = 0


def _misshapen(outputs: Sequence[npt.NDArray[Any]], num_images: int) -> str:
    return f"gives arrays of shapes {[list(output.shape) for output in outputs]} for {num_images} images; wanted one answer per image"
