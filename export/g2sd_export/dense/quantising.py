"""The INT8 file of a segmenter or a detector: judged by the metrics of its task, on training images with their truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..answers import Count
from ..edge.dense.agreement import BoxAgreement, DenseAgreement, PixelAgreement, judge_dense
from ..edge.dense.network import Network
from ..edge.dense.outputs import answer_of
from ..edge.errors import UserError
from ..int8.calibration import inputs_of
from ..int8.choosing import Score
from ..int8.quantise import Source
from ..int8.sensitivity import Sensitivity, costs_of_groups, outputs_of
from ..shipping.quantising import ON_CPU, within_budget
from ..shipping.workshop import Workshop
from ..targets import Candidate
from .exam import open_network, tolerance_of
from .proof import Metric
from .questions import BATCH, DenseAnswers, Questions, answers_to

if TYPE_CHECKING:
    import onnx

_POINTS = 100
_METRICS = {"segmentation": "mIoU", "detection": "AP"}
_NUM_SENSITIVE = 32
"""Most square inputs on which the cost of single layers is measured, of the size that ``inputs_of`` counts in."""


@dataclass(frozen=True)
class HeldOut:
    """Training images that nothing was calibrated with.

    Attributes:
        questions: The images, cut as the task says.
        metric: Scores what was found in them.
    """

    questions: Questions
    metric: Metric


def dense_int8(held_out: HeldOut | None, class_names: tuple[str, ...]) -> Callable[[Workshop], Path]:
    """What makes the INT8 file of a workshop.

    Args:
        held_out: What a quantised file is judged on; None where there are no training images.
        class_names: In the order of the classes.

    Returns:
        A function for ``Formats.int8``.
    """
    return lambda shop: within_budget(shop, shop.pixels, held_out, lambda images: _Judge(shop, images, class_names))


class _Judge:
    """Metrics of a task on held-out training images, beside those of the float file."""

    def __init__(self, shop: Workshop, held_out: HeldOut, class_names: tuple[str, ...]) -> None:
        self.shop, self.questions, self.class_names = shop, held_out.questions, class_names
        self.task, self._metric, limits = held_out.questions.task, held_out.metric, shop.target.limits("int8")
        self.metric, self.budget_points = _METRICS[self.task.kind], limits.max_metric_drop_points
        self.num_images, self.tolerance = len(self.questions.placements), tolerance_of(limits, self.task)
        self.reference = self._asked(self.opened(ON_CPU, shop.pixels))
        scores = self._metric(self.reference.results(self.questions))
        self.scores = {key: score for key, score in scores.items() if score is not None}
        if not self.scores:
            raise UserError("INT8 is judged on training images with their truth, and those that were held out have none; name others")

    def opened(self, candidate: Candidate, path: Path) -> Network:
        return open_network(candidate, path, self.task, len(self.class_names), threads=self.shop.target.threads)

    def score(self, runner: Network) -> Score:
        answers = self._asked(runner)
        if answers.problem:
            return Score(float("nan"), flipped=1.0)
        after = self._metric(answers.results(self.questions))
        lost = max(_POINTS * (score - (after[key] or 0.0)) for key, score in self.scores.items())
        return Score(lost, flipped=_changed(self._agreement(self.reference.answer, answers.answer)))

    def sensitivities(self, source: Source, tick: Any) -> list[Sensitivity]:
        windows = self.questions.windows[: inputs_of(_NUM_SENSITIVE, self.task.image_px)]
        reference = self._answer(source.model, windows)

        def cost(model: onnx.ModelProto) -> tuple[float, float]:
            share = _changed(self._agreement(reference, self._answer(model, windows)))
            return share**0.5, share  # shares add up, where errors' squares should

        return costs_of_groups(source, cost, scheme=self.shop.target.int8.scheme, tick=tick)

    def _asked(self, network: Network) -> DenseAnswers:
        return answers_to(network, self.questions, batch_size=BATCH, count=Count(None, 0))

    def _answer(self, model: onnx.ModelProto, windows: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        return answer_of(outputs_of(model, windows, batch_size=BATCH), self.task)

    def _agreement(self, reference: Mapping[str, npt.NDArray[Any]], answer: Mapping[str, npt.NDArray[Any]]) -> DenseAgreement | None:
        return judge_dense(reference, answer, self.task, self.tolerance)[2]


def _changed(agreement: DenseAgreement | None) -> float:
    """Share of the pixels that change their class; or of the objects without a partner, and of the cells of masks that change sides."""
    if isinstance(agreement, PixelAgreement):
        return agreement.changed_share
    if isinstance(agreement, BoxAgreement):
        return min(1.0, agreement.unmatched_share + agreement.changed_mask_share)
    return 1.0
