"""Evaluation stage: teacher, student and baseline on the same test images, clean and corrupted."""

from functools import partial
from typing import Any

import numpy as np

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.corruptions import corruption_note
from g2sd_deploy.evaluation.metrics import agreement, classification_metrics, top1_confidence
from g2sd_deploy.evaluation.scoring import logits_of, mean_top1, score_corruptions
from g2sd_deploy.predictors import Predictor, classifier_predictor
from g2sd_deploy.settings import EvaluateSettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, Context, Dataset, open_dataset
from g2sd_export.edge.runner import Runner

_MODELS = ("teacher", "student", "baseline")
_BYTES_PER_MIB = 2**20


def run(context: Context) -> Made:
    """Score every classifier of the run."""
    settings = context.recipe.evaluate
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    predictors = {
        name: classifier_predictor(context.inputs[name].file(CLASSIFIER_FILE), context.device) for name in _MODELS if name in context.inputs
    }
    runners = {name: predictor.open(None) for name, predictor in predictors.items()}
    logits = {
        name: logits_of(runner, dataset.test.images, settings.batch_size, partial(context.progress.update, note=name))
        for name, runner in runners.items()
    }
    models = {name: _clean_scores(predictors[name], logits[name], dataset.test.labels) for name in predictors}
    for name, values in logits.items():
        top1, confidence = top1_confidence(values)
        np.savez_compressed(
            context.folder / f"predictions-{name}.npz",
            index=np.arange(len(values)),
            label=dataset.test.labels,
            top1=top1,
            prob_top1=confidence.astype(np.float32),
        )
    metrics: dict[str, Any] = {"models": models}
    if "teacher" in logits:
        metrics["agreement"] = {name: agreement(values, logits["teacher"]) for name, values in logits.items() if name != "teacher"}
    if settings.corruptions is not None:
        metrics |= _corruption_scores(context, dataset, settings, runners, models)
    return Made(metrics)


def _clean_scores(predictor: Predictor, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    return {
        "num_parameters": predictor.num_parameters,
        "model_mib": predictor.model_bytes / _BYTES_PER_MIB,
        "clean": classification_metrics(logits, labels).to_dict(),
    }


def _corruption_scores(
    context: Context, dataset: Dataset, settings: EvaluateSettings, runners: dict[str, Runner], models: dict[str, Any]
) -> dict[str, Any]:
    """Add each model's robustness to its scores; returns what is common to all."""
    asked = settings.corruptions
    assert asked is not None
    scores = score_corruptions(
        runners,
        dataset.test,
        names=asked.names,
        severities=asked.severities,
        max_images=asked.max_images,
        batch_size=settings.batch_size,
        seed=context.recipe.seed,
        tick=context.progress.update,
    )
    for name, found in scores.items():
        models[name] |= {"corruptions": found, "mean_corruption_top1": mean_top1(found)}
    return {
        "num_corruption_images": min(asked.max_images, len(dataset.test)),
        "corruption_note": corruption_note(dataset.preprocessing.image_px),
    }
