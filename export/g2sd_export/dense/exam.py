"""The exam of a segmenter or a detector, and the files that are made of one: what shipping asks of the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..edge.dense.network import Network, onnx_network, openvino_network
from ..edge.dense.task import DenseTask
from ..edge.dense.tolerance import BoxTolerance, DenseTolerance, PixelTolerance
from ..edge.errors import UserError
from ..edge.manifest import Precision
from ..edge.opening import refuse_other_metadata
from ..proof import Link, Proof
from ..shipping.choice import Outcome
from ..shipping.runtimes import settings_of
from ..shipping.workshop import ModelFile
from ..targets import Candidate, DenseLimits, Target
from .proof import DenseHop, DenseWhole, Scorer, prove_dense
from .questions import DenseAnswers, Questions


@dataclass(frozen=True)
class DenseExam:
    """Real images, answered by maps of classes or by boxes.

    Attributes:
        questions: The images, cut as the task says.
        class_names: In the order of the classes.
        target: Limits of each number format.
        score: The metrics of answers.
    """

    questions: Questions
    class_names: tuple[str, ...]
    target: Target
    score: Scorer

    @property
    def no_figures(self) -> dict[str, Any]:
        """What is told of a candidate that was not asked."""
        names = ("miou",) if self.questions.task.kind == "segmentation" else ("ap", "mask_ap")
        return {**{f"{name}_candidate": None for name in names}, "drop_points": None}

    def refusal(self, candidate: Candidate) -> str:
        """Why there is no such file of a segmenter or a detector; empty where there may be."""
        return _refusal(candidate, self.questions.task)

    def tolerance(self, precision: Precision) -> DenseTolerance:
        """How far a link of this number format may be from the one before it."""
        return tolerance_of(self.target.limits(precision), self.questions.task)

    def on_cpu(self, path: Path) -> Network:
        """A graph on ONNX Runtime's CPU.

        Raises:
            UserError: It does not load, or was made for another task.
        """
        return self._checked(path, onnx_network(path, self.questions.task, len(self.class_names), threads=self.target.threads))

    def opened(self, candidate: Candidate, path: Path) -> Network:
        """A candidate's file on its runtime.

        Raises:
            UserError: The runtime refuses it, takes no networks of this kind, or the file was made for another task.
        """
        return self._checked(path, open_network(candidate, path, self.questions.task, len(self.class_names), threads=self.target.threads))

    def prove(
        self, chain: Sequence[Link], precision: Precision, *, budget: bool, tick: Callable[[int, int], None]
    ) -> Proof[DenseHop, DenseAnswers]:
        """Ask and judge a chain, its last link also by the metrics of the task where there is a budget."""
        drop = self.target.limits(precision).max_metric_drop_points if budget else None
        return prove_dense(chain, self.questions, self.score, DenseWhole(self.tolerance(precision), drop), tick=tick)

    def outcome(self, candidate: Candidate, file: ModelFile, proof: Proof[DenseHop, DenseAnswers]) -> Outcome:
        """What a proof says of a candidate: metrics, points lost, and how far its answers are."""
        whole = proof.whole
        figures: dict[str, Any] = {**whole.figures, "drop_points": max(whole.drops.values(), default=None)}
        return Outcome(candidate, proof.verdict, proof.reason, file_bytes=file.num_bytes, figures=figures)

    def _checked(self, path: Path, network: Network) -> Network:
        wanted = {"class_names": list(self.class_names), "task": self.questions.task.to_dict()}
        refuse_other_metadata(path.name, network.metadata, wanted)
        return network


def calibrates(target: Target, task: DenseTask) -> bool:
    """Whether a candidate of a target is made with training images, for this task."""
    return any(candidate.precision == "int8" and not _refusal(candidate, task) for candidate in target.candidates)


def _refusal(candidate: Candidate, task: DenseTask) -> str:
    if candidate.runtime.startswith("tensorrt"):
        return f"{candidate.runtime} is built for classifiers only; a {task.kind} network runs on ONNX Runtime or OpenVINO"
    if candidate.precision == "fp8" or (candidate.precision == "int8" and candidate.on_gpu):
        return f"{candidate.name} is made of classifiers only; a {task.kind} network has FP16 on a GPU"
    return ""


def tolerance_of(limits: DenseLimits, task: DenseTask) -> DenseTolerance:
    """What of a target's limits is about the answers of a task."""
    if task.kind == "segmentation":
        return PixelTolerance(limits.changed_share, limits.changed_share_of_image)
    shift_px = limits.max_box_shift * task.image_px
    return BoxTolerance(limits.unmatched_share, limits.max_score_diff, shift_px, limits.changed_mask_share)


def open_network(candidate: Candidate, path: Path, task: DenseTask, num_classes: int, *, threads: int) -> Network:
    """A file on a candidate's runtime and nothing else.

    Raises:
        UserError: The runtime refuses the file, or runs classifiers only.
    """
    match candidate.runtime:
        case "onnxruntime":
            return onnx_network(path, task, num_classes, threads=threads, provider=candidate.provider)
        case "openvino":
            return openvino_network(path, task, num_classes, threads=threads, **settings_of(candidate))
        case runtime:
            raise UserError(f"{runtime} runs classifiers only")
