"""Quantise stage: the student, computed with rounded weights and activations, learns on from its teacher and from its float self."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.decoding import decoded
from g2sd_deploy.data.images import Skipped
from g2sd_deploy.data.selection import Selection, random_selection
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.methods.classification import ClassifierLearner, ClassifierLoss
from g2sd_deploy.methods.specific import soft_distillation_loss
from g2sd_deploy.methods.views import LabelledViews
from g2sd_deploy.models.checkpoint import ClassifierFile, load_classifier, save_classifier
from g2sd_deploy.models.fake_quant import QuantisedClassifier, RangeObserver, points_of
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.settings import QuantiseSettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, RANGES_FILE, Context, Dataset, frozen, open_dataset
from g2sd_deploy.stages.fitting import fit, labelled_views_of, make_feed, training_result
from g2sd_deploy.stages.task_losses import task_loss
from g2sd_deploy.training.optimizer import build_optimizer
from g2sd_deploy.training.record import TrainLog
from g2sd_export.edge.preprocess import Preprocessing, normalise

_BATCH = 32
_ENOUGH = 0.5
"""Share of what rounding cost that has to be won back."""


def run(context: Context) -> Made:
    """Calibrate, train, and tell how much of what rounding cost was won back."""
    settings = context.recipe.quantise
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    num_held_out = settings.num_held_out(len(dataset.train))
    held_out, trained = random_selection(dataset.train, num_held_out, seed=context.recipe.seed, stream="held_out")
    student = load_classifier(context.inputs["student"].file(CLASSIFIER_FILE)).model
    from_main = context.runtime.ranks.from_main
    ranges = from_main(partial(_calibrated, context, settings, student, trained, dataset.preprocessing))
    decide = partial(_decisions, context, held_out, dataset.preprocessing)
    found = {"float": from_main(partial(decide, student, "float student"))}
    found["before"] = from_main(partial(decide, QuantisedClassifier(student, ranges, settings.bits), "quantised, before"))
    log = _train(context, settings, student, ranges, replace(dataset, train=trained))
    path = context.folder / CLASSIFIER_FILE
    save_classifier(path, ClassifierFile(student, dataset.preprocessing, dataset.class_names))
    _write_ranges(context.folder / RANGES_FILE, settings, student, ranges)
    shipped = QuantisedClassifier(load_classifier(path).model, ranges, settings.bits)
    found["after"] = from_main(partial(decide, shipped, "quantised, after"))
    figures = held_out_figures(found, np.asarray(held_out.labels))
    if warning := shortfall_of(figures, settings.bits):
        context.warn(warning)
    made = training_result(context, log, student, path, "quantisation-aware distillation")
    return replace(made, metrics=made.metrics | {"bits": settings.bits, "held_out": figures})


def _train(context: Context, settings: QuantiseSettings, student: Classifier, ranges: Tensor, dataset: Dataset) -> TrainLog:
    """Train the student in place."""
    spec = student.encoder.spec
    optimizer = build_optimizer(student, settings, depth=spec.depth, layer_decay=settings.layer_decay, no_decay=student.no_weight_decay)
    return fit(
        context,
        ClassifierLearner(QuantisedClassifier(student, ranges, settings.bits), _loss_of(context, settings)),
        optimizer,
        make_feed(context, dataset, settings),
        lambda batch: labelled_views_of(context, batch, settings, spec.depth, student.num_classes),
        ema_decay=settings.ema_decay,
    )


def _loss_of(context: Context, settings: QuantiseSettings) -> ClassifierLoss:
    """The specific method's loss, and the divergence of each head from the float student's."""
    method = context.recipe.specific
    assert method is not None
    taught = task_loss(context, method, settings.precision)
    before = frozen(context, load_classifier(context.inputs["student"].file(CLASSIFIER_FILE)).model, settings.precision)
    weight, temperature = settings.float_weight, settings.temperature

    def of(logits: Tensor, dist_logits: Tensor | None, views: LabelledViews) -> Tensor:
        with torch.no_grad():
            wanted = before.forward_heads(views.images)
        apart = [
            soft_distillation_loss(own, None, views.targets, other, temperature=temperature, alpha=1.0)
            for own, other in zip((logits, dist_logits), wanted, strict=True)
            if own is not None and other is not None
        ]
        return (1 - weight) * taught(logits, dist_logits, views) + weight * torch.stack(apart).mean()

    return of


def _calibrated(context: Context, settings: QuantiseSettings, student: Classifier, trained: Selection, fit: Preprocessing) -> Tensor:
    """Ranges of the student's activations on some of the training images, prepared as test images are."""
    chosen, _ = random_selection(trained, settings.calibration_images, seed=context.recipe.seed, stream="calibration")
    observer = RangeObserver(student.eval().to(context.device))
    for _, pixels in _batches(context, chosen, fit, "calibration"):
        observer.look(torch.from_numpy(normalise(pixels, fit)).to(context.device))
    return observer.ranges(of_all=settings.ranges == "all")


def _decisions(context: Context, images: Selection, fit: Preprocessing, model: nn.Module, note: str) -> dict[int, int]:
    """Class that a model decides for, of every image that can be used."""
    runner = TorchRunner(model, fit, device=context.device)
    return {
        index: int(decision)
        for indices, pixels in _batches(context, images, fit, note)
        for index, decision in zip(indices, runner.infer(pixels).argmax(axis=1), strict=True)
    }


def _batches(context: Context, images: Selection, fit: Preprocessing, note: str) -> Iterator[tuple[list[int], Any]]:
    """Images prepared as test images are, without the bad ones.

    Raises:
        RunFailed: All of them are bad.
    """
    good = ((index, image) for index, image in enumerate(decoded(images, fit)) if not isinstance(image, Skipped))
    done = 0
    context.progress.update(0, len(images), note)
    while batch := list(islice(good, _BATCH)):
        indices = [index for index, _ in batch]
        yield indices, np.stack([image for _, image in batch])
        done = indices[-1] + 1
        context.progress.update(done, len(images), note)
    if not done:
        raise RunFailed(f"{context.stage}: none of the {len(images)} training images for the {note} can be decoded")


def _write_ranges(path: Path, settings: QuantiseSettings, student: Classifier, ranges: Tensor) -> None:
    """What the inputs of the linear layers were taken to be."""
    inputs = {point.name: {"low": low, "high": high} for point, (low, high) in zip(points_of(student), ranges.tolist(), strict=True)}
    path.write_text(json.dumps({"bits": settings.bits, "inputs": inputs}, indent=2), encoding="utf-8")


def held_out_figures(decisions: dict[str, dict[int, int]], labels: Any) -> dict[str, Any]:
    """What rounding costs, and what training won back of it.

    Args:
        decisions: By image, of the float student (`float`) and of the quantised one `before` and `after` training.
        labels: Right class of every image.

    Returns:
        `num_images`; `top1` of each; `flipped` of the quantised ones: images on which they decide otherwise than the float student;
        `recovered`: share of the top-1 lost that was won back, None where nothing was lost.
    """
    images = list(decisions["float"])
    right = {name: sum(of[index] == labels[index] for index in images) for name, of in decisions.items()}
    flipped = {name: sum(decisions[name][index] != decisions["float"][index] for index in images) for name in ("before", "after")}
    lost = right["float"] - right["before"]
    return {
        "num_images": len(images),
        "top1": {name: int(num) / len(images) for name, num in right.items()},
        "flipped": flipped,
        "recovered": float((right["after"] - right["before"]) / lost) if lost > 0 else None,
    }


def shortfall_of(figures: dict[str, Any], bits: int) -> str:
    """Why the stage did not do what it is for; empty where it did."""
    top1, images = figures["top1"], f"{figures['num_images']} held-out training images"
    if figures["recovered"] is None:
        return (
            f"rounding the student to {bits} bits costs no top-1 on {images} ({top1['float']:.2%} in float, {top1['before']:.2%} rounded), "
            "so there is nothing to win back; the stage can be left out"
        )
    if figures["recovered"] < _ENOUGH:
        return (
            f"rounding the student to {bits} bits costs {top1['float'] - top1['before']:.2%} top-1 on {images}, and training won back "
            f"{figures['recovered']:.0%} of it, less than half; give quantise more epochs or another base_lr, or leave it out"
        )
    return ""
