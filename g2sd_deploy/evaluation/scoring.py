"""Run a predictor over images and score what it says."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from g2sd_deploy.data.corruptions import CorruptionName
from g2sd_deploy.data.corruptions.api import corrupt
from g2sd_deploy.data.images import ImageSet, evenly_spread
from g2sd_deploy.evaluation.metrics import classification_metrics
from g2sd_export.edge.runner import Runner


def logits_of(
    runner: Runner, images: UInt8[np.ndarray, "num height width channels"], batch_size: int, tick: Callable[[int, int], None] | None = None
) -> Float32[np.ndarray, "num classes"]:
    """Logits of every image, in order; the last batch may be smaller. `tick` is told the images that are done, and all, from 0 on."""
    parts: list[Float32[np.ndarray, "batch classes"]] = []
    for start in range(0, len(images), batch_size):
        if tick is not None:
            tick(start, len(images))
        parts.append(runner.infer(np.ascontiguousarray(images[start : start + batch_size])))
    if tick is not None:
        tick(len(images), len(images))
    return np.concatenate(parts)


def score_corruptions(
    runners: dict[str, Runner],
    images: ImageSet,
    *,
    names: tuple[CorruptionName, ...],
    severities: tuple[int, ...],
    max_images: int,
    batch_size: int,
    seed: int,
    tick: Callable[[int, int, str], None],
) -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
    """Metrics of every model on the same corrupted images.

    Args:
        runners: Models by name; they share one preprocessing size.
        images: Clean test images; an image keeps its corruption whatever `max_images` is, for its index seeds it.
        names: Corruptions.
        severities: 1 to 5.
        max_images: Images to corrupt, spread evenly over the set.
        batch_size: Images per forward pass.
        seed: Another seed draws other noise.
        tick: Told (done, total, note) at the start, and after each corrupted set.

    Returns:
        Metrics by model, corruption and severity (as a string, for JSON).
    """
    picks = evenly_spread(len(images), min(max_images, len(images)))
    clean, labels = np.ascontiguousarray(images.images[picks]), images.labels[picks]
    scores: dict[str, dict[str, dict[str, dict[str, float | int]]]] = {model: {name: {} for name in names} for model in runners}
    cases = [(name, severity) for name in names for severity in severities]
    tick(0, len(cases), "corrupted images")
    for done, (name, severity) in enumerate(cases, 1):
        corrupted = corrupt(clean, name, severity, keys=[int(i) for i in picks], seed=seed)
        for model, runner in runners.items():
            metrics = classification_metrics(logits_of(runner, corrupted, batch_size), labels)
            scores[model][name][str(severity)] = metrics.to_dict()
        tick(done, len(cases), f"{name} severity {severity}")
    return scores


def mean_top1(scores: dict[str, dict[str, dict[str, Any]]]) -> float:
    """Top-1 over all corruptions and severities of one model, each weighing the same."""
    return float(np.mean([case["top1"] for severities in scores.values() for case in severities.values()]))
