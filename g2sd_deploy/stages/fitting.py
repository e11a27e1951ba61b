"""What the stages that train have in common: batches, the random draws of a step, the loop and its record."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.augment import Mixed, mix_batch
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.methods.classification import smoothed_one_hot, soft_cross_entropy
from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier
from g2sd_deploy.models.vit import Classifier, EncoderSpec, survival_scales
from g2sd_deploy.randomness import generator, uniform
from g2sd_deploy.settings import ClassifyTrainSettings, LossBandSettings, MixSettings, TrainSettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, HISTORY_FILE, Context, Dataset
from g2sd_deploy.training.loop import Batch, Feed, Row, TrainLog, train
from g2sd_deploy.training.loss_band import loss_band_problem
from g2sd_deploy.training.optimizer import build_optimizer

ClassifierLoss = Callable[[Tensor, Tensor | None, Mixed], Tensor]


def views_of(context: Context, batch: Batch, student: EncoderSpec) -> Views:
    """What a method without labels is given: one draw of each kind, shared by teacher and student."""
    noise = uniform(context.recipe.seed, "mask", batch.epoch, batch.indices, student.num_patches)
    return Views(
        images=batch.images,
        student_images=batch.jittered,
        mask_noise=torch.from_numpy(noise).to(batch.images.device),
        drop_draws=_drop_draws(context, batch, student.depth),
    )


def make_feed(context: Context, dataset: Dataset, settings: TrainSettings, color_jitter: float = 0.0) -> Feed:
    """Batches of the training set as the stage's settings ask for."""
    pre = dataset.preprocessing
    return Feed(dataset.train, settings, context.recipe.seed, pre.image_px, pre.mean, pre.std, context.device, color_jitter)


def fit(
    context: Context,
    model: nn.Module,
    optimizer: Optimizer,
    feed: Feed,
    loss_of: Callable[[Batch], Mapping[str, Tensor]],
    band: LossBandSettings | None = None,
) -> TrainLog:
    """Run the training loop and keep its history in the artifact.

    Raises:
        RunFailed: The loss is not finite, or leaves its band.
    """
    rows: list[Row] = []

    def observe(row: Row, num_steps: int, images_per_s: float) -> None:
        rows.append(row)
        context.progress.update(int(row["step"]) + 1, num_steps, f"loss {row['loss']:.4f}, {images_per_s:,.0f} images/s")
        if band is not None and (problem := loss_band_problem(rows, num_steps, band)):
            raise RunFailed(f"{context.stage}: {problem}")

    log = train(model, optimizer, feed, loss_of, observe)
    model.eval()
    lines = "".join(json.dumps(row) + "\n" for row in log.history)
    (context.folder / HISTORY_FILE).write_text(lines, encoding="utf-8")
    return log


def label_loss(logits: Tensor, _: Tensor | None, mix: Mixed) -> Tensor:
    """The (mixed) labels alone, learnt by the class head."""
    return soft_cross_entropy(logits, mix.targets)


def train_classifier(
    context: Context,
    model: Classifier,
    dataset: Dataset,
    settings: ClassifyTrainSettings,
    loss_of: ClassifierLoss,
    *,
    method: str,
    dtype: torch.dtype = torch.float32,
) -> Made:
    """Train a classifier on (mixed) labels and write it.

    Args:
        loss_of: Loss of the class head's logits, the distillation head's (or None) and the mixed batch.
        method: Said in the metrics.
        dtype: Number format of the stored weights.
    """
    spec = model.encoder.spec
    model.to(context.device)

    def terms_of(batch: Batch) -> dict[str, Tensor]:
        mix = mixed(context, batch, settings.mix, model.num_classes)
        logits, dist_logits = model.forward_heads(mix.images, survival=_survival(context, batch, spec.depth, settings.drop_path))
        return {"loss": loss_of(logits, dist_logits, mix)}

    optimizer = build_optimizer(model, settings, depth=spec.depth, layer_decay=settings.layer_decay, no_decay=model.no_weight_decay)
    log = fit(context, model, optimizer, make_feed(context, dataset, settings), terms_of)
    path = context.folder / CLASSIFIER_FILE
    save_classifier(path, ClassifierFile(model, dataset.preprocessing, dataset.class_names), dtype)
    return training_result(context, log, model, path, method)


def mixed(context: Context, batch: Batch, settings: MixSettings, num_classes: int) -> Mixed:
    """Smoothed labels, then mixup or CutMix as a function of (seed, epoch, step)."""
    targets = smoothed_one_hot(batch.labels, num_classes, settings.label_smoothing)
    return mix_batch(batch.images, targets, settings, generator(context.recipe.seed, "mix", batch.epoch, batch.step))


def _survival(context: Context, batch: Batch, depth: int, drop_path: float) -> Tensor | None:
    """Drop path that grows linearly from 0 at the first block."""
    if drop_path == 0:
        return None
    rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
    return survival_scales(_drop_draws(context, batch, depth), rates)


def _drop_draws(context: Context, batch: Batch, depth: int) -> Tensor:
    """Uniform numbers for the two branches of each block."""
    draws = uniform(context.recipe.seed, "drop_path", batch.epoch, batch.indices, 2 * depth)
    return torch.from_numpy(draws).to(batch.images.device).view(-1, depth, 2)


def training_result(context: Context, log: TrainLog, model: nn.Module, path: Path, method: str) -> Made:
    """Metrics of a training stage; speed is a note, for it is not part of what the stage made."""
    metrics: dict[str, Any] = {
        "method": method,
        "first_loss": log.history[0]["loss"],
        "final_loss": log.history[-1]["loss"],
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": path.stat().st_size,
        "images_seen": log.images_seen,
        "num_steps": log.num_steps,
    }
    if context.warnings:
        metrics["warnings"] = list(context.warnings)
    timing = {
        "train_seconds": round(log.seconds, 2),
        "step_ms": round(1000 * log.seconds / log.num_steps, 1),
        "images_per_s": round(log.images_per_s, 1),
        "device": str(context.device),
    }
    return Made(metrics, timing=timing)
