"""The INT8 file of a model: every quantiser of the target on the same training images, judged on others, the best one taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ..deployable import deployable_onnx
from ..edge.errors import UserError
from ..edge.runner import Runner
from ..int8.choosing import Choice, Score, choose, rescued
from ..int8.quantise import Quantised, Source, candidates
from ..int8.sensitivity import Sensitivity, sensitivities
from ..proof import BATCH
from ..targets import Candidate
from .material import TrainingImages
from .race import race
from .runtimes import open_candidate, why_not

if TYPE_CHECKING:
    from .workshop import Workshop

HeldOut = TypeVar("HeldOut")
"""Training images that nothing was calibrated with, as a judge takes them."""

_POINTS = 100
_NUM_SENSITIVE = 32
"""Images on which the cost of single layers is measured."""
ON_CPU = Candidate(runtime="onnxruntime", precision="int8")
"""What judges a quantised file where the target's own runtime is not here."""


class Judge(Protocol):
    """Says what a quantised file costs, on training images that it was not calibrated with: the best of several would else be chosen by
    the images that then say how good it is."""

    @property
    def metric(self) -> str:
        """What is lost, for people."""
        ...

    @property
    def budget_points(self) -> float:
        """Percentage points of it that may be lost."""
        ...

    @property
    def num_images(self) -> int:
        """Images that are asked about."""
        ...

    def opened(self, candidate: Candidate, path: Path) -> Any:
        """What runs a file on a candidate's runtime, as ``race`` times it."""
        ...

    def score(self, runner: Any) -> Score:
        """What it costs, without its latency."""
        ...

    def sensitivities(self, source: Source, tick: Any) -> list[Sensitivity]:
        """What quantising each group of layers alone costs, the worst first."""
        ...


def accepted_int8(shop: Workshop) -> Path:
    """The INT8 file of a classifier, judged by top-1; see ``within_budget``.

    Raises:
        UserError: There are no training images, or no file keeps the accuracy budget.
    """
    return within_budget(shop, _pixels(shop), shop.material.held_out, lambda held_out: _Top1(shop, held_out))


def within_budget(shop: Workshop, source_onnx: Path, held_out: HeldOut | None, judge_of: Callable[[HeldOut], Judge]) -> Path:
    """Quantise, judge, and where no file keeps the budget, leave the most sensitive layers in float.

    Args:
        shop: The target, and the images to calibrate with; is told how the file was made.
        source_onnx: The float file.
        held_out: What files are judged on; None where there are no such images.
        judge_of: Their judge, on these images.

    Raises:
        UserError: There are no images to calibrate with or to be judged on, or no file keeps the judge's budget.
    """
    calibration, plan = shop.material.calibration, shop.target.int8
    if calibration is None or held_out is None:
        raise UserError("INT8 needs training images to calibrate with and others to be judged on, and there are too few; name more")
    source, judge = Source(source_onnx, calibration.images), judge_of(held_out)
    trial, budget = _Trial(shop, judge), judge.budget_points
    folder = shop.scratch / "int8"
    files = candidates(source, calibration.images, scheme=plan.scheme, methods=plan.methods, folder=folder, tick=_noted(shop, "quantising"))
    choice = choose(files, trial.of(files), budget_points=budget, metric=judge.metric)
    if choice.accepted is None and plan.max_float_layers and choice.scores:
        found, _ = min(choice.scores, key=lambda each: each[1].drop_points)
        order = judge.sensitivities(source, _noted(shop, "finding sensitive layers"))
        shop.notes["sensitivity"] = [{"layer": one.group, "error": one.error, "flipped": one.flipped} for one in order]
        attempts = rescued(
            source,
            calibration.images,
            found.method,  # type: ignore[arg-type]
            trial.one,
            scheme=plan.scheme,
            folder=folder,
            order=order,
            most=plan.max_float_layers,
            budget_points=budget,
        )
        choice = choose([*files, *attempts], trial.of([*files, *attempts]), budget_points=budget, metric=judge.metric)
    shop.notes["int8"] = _plain(choice, calibration, judge)
    shop.remarks["int8"] = choice.reason
    if choice.accepted is None:
        raise UserError(choice.reason)
    return choice.accepted.path


class _Trial:
    """Cost and latency of quantised files on the target's runtime, or on ONNX Runtime's CPU where that is not here."""

    def __init__(self, shop: Workshop, judge: Judge) -> None:
        self.shop, self.judge = shop, judge
        wanted = [one for one in shop.target.candidates if one.precision == "int8" and not one.on_gpu and not why_not(one)]
        self.candidate, self.timed = (wanted or [ON_CPU])[0], bool(wanted)
        self._scores: dict[str, Score] = {}

    def of(self, files: Sequence[Quantised]) -> Any:
        """A function from a file to its score; all of them are timed in turn, so that their latencies compare."""
        runners = {str(file.path): self._open(file) for file in files if file.info is not None}
        found = race(runners, self.shop.race_settings) if self.timed and runners else {}
        for name, runner in runners.items():
            score = self.judge.score(runner)
            self._scores[name] = replace(score, latency_ms=float(found[name]["p50_ms"])) if name in found else score
        return lambda file: self._scores[str(file.path)]

    def one(self, file: Quantised) -> Score:
        """Score of one file, not timed."""
        return self.judge.score(self._open(file))

    def _open(self, file: Quantised) -> Any:
        return self.judge.opened(self.candidate, file.path)


def _pixels(shop: Workshop) -> Path:
    """The float file that INT8 is made from: the student's own, or that of quantisation-aware distillation."""
    if shop.material.quantised_onnx is None:
        return shop.pixels
    return deployable_onnx(shop.material.quantised_onnx, shop.material.preprocessing, path=shop.scratch / "quantised.onnx").path


class _Top1:
    """Top-1 of a classifier's files."""

    metric = "top-1"

    def __init__(self, shop: Workshop, held_out: TrainingImages) -> None:
        self.shop, self.images, self.labels = shop, held_out.images, held_out.labels
        self.budget_points, self.num_images = shop.target.accuracy_budget_points, len(held_out.ids)
        self.reference = _answers(self.opened(ON_CPU, shop.pixels), self.images)

    def opened(self, candidate: Candidate, path: Path) -> Runner:
        return open_candidate(candidate, path, self.shop.material.preprocessing, threads=self.shop.target.threads)

    def score(self, runner: Runner) -> Score:
        answers = _answers(runner, self.images)
        if not np.isfinite(answers).all():
            return Score(float("nan"), flipped=1.0)
        before, after = self.reference.argmax(axis=1), answers.argmax(axis=1)
        lost = float((before == self.labels).mean() - (after == self.labels).mean())
        return Score(_POINTS * lost, flipped=float((before != after).mean()))

    def sensitivities(self, source: Source, tick: Any) -> list[Sensitivity]:
        return sensitivities(source, self.images[:_NUM_SENSITIVE], scheme=self.shop.target.int8.scheme, tick=tick)


def _answers(runner: Runner, images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.concatenate([runner.infer(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def _plain(choice: Choice, calibration: TrainingImages, judge: Judge) -> dict[str, Any]:
    """What was tried and measured, without latencies."""
    found = choice.to_dict()
    rows = [{key: value for key, value in row.items() if key != "latency_ms"} for row in found["candidates"]]
    return {
        "accepted": found["accepted"],
        "candidates": rows,
        "missing": found["missing"],
        "num_calibrated": len(calibration.ids),
        "num_judged": judge.num_images,
    }


def _noted(shop: Workshop, note: str) -> Any:
    return lambda done, total, name: shop.told(done, max(1, total), f"{note}: {name}" if name else note)
