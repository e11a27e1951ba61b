"""The INT8 file of a model: every quantiser of the target on the same training images, judged on others, the best one taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..deployable import deployable_onnx
from ..edge.errors import UserError
from ..edge.runner import Runner
from ..int8.choosing import Choice, Score, choose, rescued
from ..int8.quantise import Quantised, Source, candidates
from ..int8.sensitivity import sensitivities
from ..proof import BATCH
from ..targets import Candidate
from .material import TrainingImages
from .race import race
from .runtimes import open_candidate, why_not

if TYPE_CHECKING:
    from .workshop import Workshop

_POINTS = 100
_NUM_SENSITIVE = 32
"""Images on which the cost of single layers is measured."""
_CPU = Candidate(runtime="onnxruntime", precision="int8")


def accepted_int8(shop: Workshop) -> Path:
    """Quantise, judge, and where no file keeps the budget, leave the most sensitive layers in float.

    Files are judged on training images that were not calibrated with, never on those of the proof: the best of several would else be
    chosen by the images that then say how good it is.

    Raises:
        UserError: There are no training images, or no file keeps the accuracy budget.
    """
    calibration, held_out = shop.material.calibration, shop.material.held_out
    if calibration is None or held_out is None:
        raise UserError("INT8 needs training images to calibrate with and others to be judged on, and there are too few; name more")
    plan, budget = shop.target.int8, shop.target.accuracy_budget_points
    source = Source(_pixels(shop), calibration.images)
    judge = _Judge(shop, held_out)
    folder = shop.scratch / "int8"
    files = candidates(source, calibration.images, scheme=plan.scheme, methods=plan.methods, folder=folder, tick=_noted(shop, "quantising"))
    choice = choose(files, judge.of(files), budget_points=budget)
    if choice.accepted is None and plan.max_float_layers and choice.scores:
        found, _ = min(choice.scores, key=lambda each: each[1].drop_points)
        order = sensitivities(source, held_out.images[:_NUM_SENSITIVE], scheme=plan.scheme, tick=_noted(shop, "finding sensitive layers"))
        shop.notes["sensitivity"] = [{"layer": one.group, "error": one.error, "flipped": one.flipped} for one in order]
        attempts = rescued(
            source,
            calibration.images,
            found.method,  # type: ignore[arg-type]
            judge.one,
            scheme=plan.scheme,
            folder=folder,
            order=order,
            most=plan.max_float_layers,
            budget_points=budget,
        )
        choice = choose([*files, *attempts], judge.of([*files, *attempts]), budget_points=budget)
    shop.notes["int8"] = _plain(choice, calibration, held_out)
    shop.remarks["int8"] = choice.reason
    if choice.accepted is None:
        raise UserError(choice.reason)
    return choice.accepted.path


def _pixels(shop: Workshop) -> Path:
    """The float file that INT8 is made from: the student's own, or that of quantisation-aware distillation."""
    if shop.material.quantised_onnx is None:
        return shop.pixels
    return deployable_onnx(shop.material.quantised_onnx, shop.material.preprocessing, path=shop.scratch / "quantised.onnx").path


class _Judge:
    """Accuracy and latency of quantised files on the target's runtime, or on ONNX Runtime's CPU where that is not here."""

    def __init__(self, shop: Workshop, held_out: TrainingImages) -> None:
        self.shop, self.images, self.labels = shop, held_out.images, held_out.labels
        wanted = [one for one in shop.target.candidates if one.precision == "int8" and not one.on_gpu and not why_not(one)]
        self.candidate = wanted[0] if wanted else _CPU
        self.timed = bool(wanted)
        self.reference = _answers(open_candidate(_CPU, shop.pixels, shop.material.preprocessing, threads=shop.target.threads), self.images)
        self._scores: dict[str, Score] = {}

    def of(self, files: Sequence[Quantised]) -> Any:
        """A function from a file to its score; all of them are timed in turn, so that their latencies compare."""
        runners = {str(file.path): self._open(file) for file in files if file.info is not None}
        found = race(runners, self.shop.race_settings) if self.timed and runners else {}
        for name, runner in runners.items():
            self._scores[name] = self._scored(runner, float(found[name]["p50_ms"]) if name in found else None)
        return lambda file: self._scores[str(file.path)]

    def one(self, file: Quantised) -> Score:
        """Score of one file, not timed."""
        return self._scored(self._open(file), None)

    def _open(self, file: Quantised) -> Runner:
        return open_candidate(self.candidate, file.path, self.shop.material.preprocessing, threads=self.shop.target.threads)

    def _scored(self, runner: Runner, latency_ms: float | None) -> Score:
        answers = _answers(runner, self.images)
        if not np.isfinite(answers).all():
            return Score(float("nan"), latency_ms, 1.0)
        before, after = self.reference.argmax(axis=1), answers.argmax(axis=1)
        lost = float((before == self.labels).mean() - (after == self.labels).mean())
        return Score(_POINTS * lost, latency_ms, float((before != after).mean()))


def _answers(runner: Runner, images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.concatenate([runner.infer(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def _plain(choice: Choice, calibration: TrainingImages, held_out: TrainingImages) -> dict[str, Any]:
    """What was tried and measured, without latencies."""
    found = choice.to_dict()
    rows = [{key: value for key, value in row.items() if key != "latency_ms"} for row in found["candidates"]]
    return {
        "accepted": found["accepted"],
        "candidates": rows,
        "missing": found["missing"],
        "num_calibrated": len(calibration.ids),
        "num_judged": len(held_out.ids),
    }


def _noted(shop: Workshop, note: str) -> Any:
    return lambda done, total, name: shop.told(done, max(1, total), f"{note}: {name}" if name else note)
