"""Profile stage: latency of the teacher, the student and the file that ships, on this machine's CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from g2sd_deploy.artifact import Made
from g2sd_deploy.predictors import Predictor, bundle_predictor, classifier_predictor
from g2sd_deploy.settings import ProfileSettings
from g2sd_deploy.stages.context import BUNDLE, CLASSIFIER_FILE, Context
from g2sd_export.edge.timing import measure_latency, summarise


def run(context: Context) -> Made:
    """Time every predictor at every batch size."""
    settings = context.recipe.profile
    assert settings is not None
    cpu = torch.device("cpu")
    predictors = [
        (name, classifier_predictor(context.inputs[name].file(CLASSIFIER_FILE), cpu))
        for name in ("teacher", "student")
        if name in context.inputs
    ]
    predictors.append(("student", bundle_predictor(context.inputs["export"].folder / BUNDLE)))
    return Made({}, timing={"rows": time_predictors(predictors, settings, context.progress.update)})


def time_predictors(
    predictors: list[tuple[str, Predictor]], settings: ProfileSettings, tick: Callable[[int, int, str], None]
) -> list[dict[str, Any]]:
    """Latency rows: the network alone, on prepared input that stays the same.

    Args:
        predictors: Name and model; one runner exists at a time, so that idle threads of one do not disturb another.
        settings: Batches, threads, warm-up and repeats.
        tick: Told (done, total, note) after each series.
    """
    cases = [(name, predictor, batch) for name, predictor in predictors for batch in settings.batches]
    rows = []
    for done, (name, predictor, batch) in enumerate(cases, 1):
        row = _time_one(predictor, batch, settings)
        rows.append({"model": name} | row)
        tick(done, len(cases), f"{name} on {row['runtime']}, batch {batch}")
    return rows


def _time_one(predictor: Predictor, batch: int, settings: ProfileSettings) -> dict[str, Any]:
    runner, pre = predictor.open(settings.threads), predictor.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (batch, pre.image_px, pre.image_px, pre.num_channels), dtype=np.uint8)
    inputs = runner.prepare(pixels)
    samples_ms = measure_latency(lambda: runner.forward(inputs), warmup=settings.warmup, repeats=settings.repeats)
    described = {"runtime": runner.name, "version": runner.version, "batch": batch, "threads": settings.threads, "warmup": settings.warmup}
    return described | summarise(samples_ms, batch)
