"""How well the file that ships is calibrated and stands corruption, beside the float model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from g2sd_deploy.data.testsets import LabelSpace, Scoring, TestSet
from g2sd_deploy.evaluation.evaluating import Competitor, Evaluator
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.exporting import Job
from g2sd_export.shipping.runtimes import open_candidate
from g2sd_export.shipping.ship import Shipment

_SET = "clean"
_KEPT = ("num_images", "top1", "nll", "ece", "intervals")


def standing(
    job: Job, shipment: Shipment, *, workers: int, seed: int, tick: Callable[[int, int, str], None]
) -> dict[str, dict[str, Any]] | None:
    """Scores of the float model on torch and of the default of a shipment, on the same images, clean and corrupted.

    Args:
        job: The model, the images and the corruptions.
        shipment: What was made of it.
        workers: Threads that compute.
        seed: Of the corruptions.
        tick: Told (done, total, note).

    Returns:
        For ``float`` and ``shipped``: ``num_images``, ``top1``, ``nll``, ``ece`` and their ``intervals``; with corruptions also
        ``corruptions``, ``mean_corruption_top1`` and its interval. None where the default did not run here.
    """
    way = shipment.default
    if way.runner is None or way.file is None:
        return None
    pre = job.source.preprocessing
    runners = {  # of one thread each: images are shared among the workers
        "float": TorchRunner(job.source.module, pre, device=torch.device("cpu"), threads=1),
        "shipped": open_candidate(way.outcome.candidate, way.file.path, pre, threads=1),
    }
    names = job.source.class_names
    space = LabelSpace.of(names, len(names))
    evaluator = Evaluator(
        {name: Competitor(runner, space, None, 0, "") for name, runner in runners.items()},
        seed=seed,
        batch_size=None,
        workers=workers,
        tick=tick,
    )
    test = job.test.subset(job.settings.max_images)
    scoring = Scoring(_SET, np.asarray(test.labels), names, False, "the images of the proof")
    images = TestSet("test images", test, (scoring,), fingerprint="")
    found = {name: {key: sets[_SET][key] for key in _KEPT} for name, sets in evaluator.score([images]).models.items()}
    if job.settings.robustness is not None:
        for name, scores in evaluator.corrupted(images, job.settings.robustness).items():
            found[name] |= scores
    return found
