"""How well the file that ships is calibrated and stands corruption, beside the float model."""

from typing import Any

import numpy as np
import torch

from g2sd_deploy.data.testsets import LabelSpace, Scoring, TestSet
from g2sd_deploy.evaluation.evaluating import Competitor, Evaluator
from g2sd_deploy.evaluation.metrics import full_scores
from g2sd_deploy.evaluation.outcomes import outcomes_of
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.exporting import Job, Tick
from g2sd_deploy.settings import CorruptionSettings
from g2sd_export.shipping.runtimes import open_candidate
from g2sd_export.shipping.ship import Shipment, Way

_KEPT = ("num_images", "top1", "nll", "ece", "intervals")


def standing(job: Job, shipment: Shipment, *, workers: int, seed: int, tick: Tick) -> dict[str, dict[str, Any]] | None:
    """Scores of the float model on torch and of the default of a shipment, on the same images, clean and corrupted.

    Args:
        job: The model, the images and the corruptions.
        shipment: What was made of it.
        workers: Threads that compute.
        seed: Of the corruptions.
        tick: Told (done, total, note).

    Returns:
        For ``float`` and ``shipped``: ``num_images``, ``top1``, ``nll``, ``ece`` and their ``intervals``; with corruptions also
        ``corruptions``, ``mean_corruption_top1`` and its interval. None where the default did not run here, or gave no
        numbers.
    """
    way, labels = shipment.default, np.asarray(job.images.labels)
    if way.runner is None or way.file is None or way.proof is None:
        return None
    answers = way.proof.answers
    logits = {"float": next(iter(answers.values())).logits, "shipped": answers[way.name].logits}
    if not all(len(found) == len(labels) and np.isfinite(found).all() for found in logits.values()):
        return None
    scores = {name: full_scores(outcomes_of(found, labels), num_classes=found.shape[1], seed=seed) for name, found in logits.items()}
    standings = {name: {key: found[key] for key in _KEPT} for name, found in scores.items()}
    if job.settings.robustness is not None:
        for name, found in _corrupted(job, way, job.settings.robustness, workers, seed, tick).items():
            standings[name] |= found
    return standings


def _corrupted(job: Job, way: Way, settings: CorruptionSettings, workers: int, seed: int, tick: Tick) -> dict[str, dict[str, Any]]:
    assert way.file is not None
    pre, names = job.source.preprocessing, job.source.class_names
    runners = {  # of one thread each: images are shared among the workers
        "float": TorchRunner(job.asked.module, pre, device=torch.device("cpu"), threads=1),
        "shipped": open_candidate(way.outcome.candidate, way.file.path, pre, threads=1),
    }
    space = LabelSpace.of(names, len(names))
    evaluator = Evaluator(
        {name: Competitor(runner, space, None, 0, "") for name, runner in runners.items()},
        seed=seed,
        batch_size=None,
        workers=workers,
        tick=tick,
    )
    scoring = Scoring("clean", np.asarray(job.images.labels), names, False, "the images of the proof")
    return evaluator.corrupted(TestSet("test images", job.images, (scoring,), fingerprint=""), settings)
