"""What the stages that train have in common: batches, the random draws of a step, the loop and its record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from g2sd_deploy.artifact import Made
from g2sd_deploy.data.mixing import NUM_MIX_DRAWS, mix_pairs
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.methods.classification import ClassifierLearner, ClassifierLoss, smoothed_one_hot
from g2sd_deploy.methods.views import LabelledViews, Views
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier
from g2sd_deploy.models.vit import Classifier, EncoderSpec, survival_scales
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import ClassifyTrainSettings, LabelledTrainSettings, LossBandSettings, TrainSettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, HISTORY_FILE, Context, Dataset
from g2sd_deploy.training.checkpoints import Checkpoints
from g2sd_deploy.training.feed import Batch, Feed, TaskMaker
from g2sd_deploy.training.loop import train
from g2sd_deploy.training.loss_band import loss_band_problem
from g2sd_deploy.training.memory import PeakMemory
from g2sd_deploy.training.optimizer import build_optimizer
from g2sd_deploy.training.record import Listener, Row, TrainLog, bad_of_all
from g2sd_deploy.training.tracking import METRICS_FILE, MetricsFile


def views_of(context: Context, batch: Batch, student: EncoderSpec) -> Views:
    """What a method without labels is given: one draw of each kind, shared by teacher and student."""
    turn = batch.turn
    noise = uniform(context.recipe.seed, "mask", turn.epoch, turn.indices, student.num_patches)
    return Views(
        images=batch.images,
        student_images=batch.jittered,
        mask_noise=torch.from_numpy(noise).to(batch.images.device, non_blocking=True),
        drop_draws=_drop_draws(context, batch, student.depth),
    )


def make_feed(
    context: Context, dataset: Dataset, settings: TrainSettings, color_jitter: float = 0.0, maker: TaskMaker | None = None
) -> Feed:
    """Batches of the training set as the stage's settings ask for; `maker` makes them where the truth is more than a label."""
    pre = dataset.preprocessing
    mixes = isinstance(settings, LabelledTrainSettings) and (settings.mix.mixup > 0 or settings.mix.cutmix > 0)
    return Feed(
        dataset.train,
        settings,
        context.recipe.seed,
        pre.image_px,
        pre.mean,
        pre.std,
        context.runtime,
        color_jitter=color_jitter,
        in_pairs=mixes,
        window=dataset.shuffle_shards,
        max_bad=dataset.max_bad_images,
        maker=maker,
        warn=context.progress.warn,
    )


class Telling:
    """Who is told how a stage trains: the person, metrics.jsonl and trackers (by the first process), and the loss band."""

    def __init__(self, context: Context, feed: Feed, band: LossBandSettings | None) -> None:
        is_main = context.runtime.ranks.is_main
        self.trackers = context.trackers if is_main else None
        self._metrics = MetricsFile(context.run_folder / METRICS_FILE, context.stage, feed.num_steps) if is_main else None
        self._context, self._feed, self._band = context, feed, band
        self._rows: list[Row] = []

    def begun(self, history: list[Row], num_done: int) -> None:
        self._rows += history
        if self._metrics is not None:
            self._metrics.begin(history)
        if self.trackers is not None:
            self.trackers.begin(num_done)
        if num_done:
            self._context.progress.tell(f"goes on from its last checkpoint, after step {num_done} of {self._feed.num_steps}")

    def row(self, row: Row, num_steps: int, images_per_s: float) -> None:
        """Raises: RunFailed, where the loss leaves its band."""
        self._rows.append(row)
        note = f"loss {row['loss']:.4f}, {images_per_s:,.0f} images/s"
        self._context.progress.update(int(row["step"]) + 1, num_steps, note)
        if self._metrics is not None:
            self._metrics.add(row, images_per_s)
        if self.trackers is not None:
            self.trackers.add(row, images_per_s)
        if self._band is not None and (problem := loss_band_problem(self._rows, num_steps, self._band)):
            raise self._context.runtime.ranks.told_once(RunFailed(f"{self._context.stage}: {problem}"))


def fit(
    context: Context,
    learner: nn.Module,
    optimizer: Optimizer,
    feed: Feed,
    inputs_of: Callable[[Batch], Any],
    *,
    band: LossBandSettings | None = None,
    ema_decay: float | None = None,
) -> TrainLog:
    """Run the training loop, go on from its last checkpoint where there is one, and keep its history in the artifact.

    Raises:
        RunFailed: The loss is not finite or leaves its band, or what `train` raises.
    """
    telling = Telling(context, feed, band)
    listener = Listener(telling.begun, telling.row, context.progress.warn)
    checkpoints = Checkpoints(context.checkpoints, context.key, context.runtime.checkpoint_every)
    with PeakMemory(context.device) as peak:
        try:
            log = train(learner, optimizer, feed, inputs_of, listener, checkpoints=checkpoints, ema_decay=ema_decay)
        finally:
            if telling.trackers is not None:
                telling.trackers.finish()
    log.peak_mib = peak.mib
    learner.eval()
    lines = "".join(json.dumps(row) + "\n" for row in log.history)
    (context.folder / HISTORY_FILE).write_text(lines, encoding="utf-8")
    return log


def train_classifier(
    context: Context,
    model: Classifier,
    dataset: Dataset,
    settings: ClassifyTrainSettings,
    loss: ClassifierLoss,
    *,
    method: str,
    dtype: torch.dtype = torch.float32,
) -> Made:
    """Train a classifier on (mixed) labels and write it.

    Args:
        loss: Of the class head's logits, the distillation head's (or None) and the mixed batch.
        method: Said in the metrics.
        dtype: Number format of the stored weights.
    """
    spec = model.encoder.spec
    optimizer = build_optimizer(model, settings, depth=spec.depth, layer_decay=settings.layer_decay, no_decay=model.no_weight_decay)
    log = fit(
        context,
        ClassifierLearner(model, loss),
        optimizer,
        make_feed(context, dataset, settings),
        lambda batch: labelled_views_of(context, batch, settings, spec.depth, model.num_classes),
        ema_decay=settings.ema_decay,
    )
    path = context.folder / CLASSIFIER_FILE
    save_classifier(path, ClassifierFile(model, dataset.preprocessing, dataset.class_names), dtype)
    return training_result(context, log, model, path, method)


def labelled_views_of(context: Context, batch: Batch, settings: LabelledTrainSettings, depth: int, num_classes: int) -> LabelledViews:
    """Smoothed labels, mixup or CutMix of neighbours, and drop path; all are functions of (seed, epoch, sample index)."""
    turn, mix = batch.turn, settings.mix
    assert isinstance(batch.truth, Tensor)
    targets = smoothed_one_hot(batch.truth, num_classes, mix.label_smoothing)
    mixed = mix_pairs(batch.images, targets, mix, uniform(context.recipe.seed, "mix", turn.epoch, turn.indices[::2], NUM_MIX_DRAWS))
    return LabelledViews(mixed.images, mixed.targets, survival(context, batch, depth, settings.drop_path))


def survival(context: Context, batch: Batch, depth: int, drop_path: float) -> Tensor | None:
    """Drop path that grows linearly from 0 at the first block."""
    if drop_path == 0:
        return None
    rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
    return survival_scales(_drop_draws(context, batch, depth), rates)


def _drop_draws(context: Context, batch: Batch, depth: int) -> Tensor:
    """Uniform numbers for the two branches of each block."""
    draws = uniform(context.recipe.seed, "drop_path", batch.turn.epoch, batch.turn.indices, 2 * depth)
    return torch.from_numpy(draws).to(batch.images.device, non_blocking=True).view(-1, depth, 2)


def training_result(context: Context, log: TrainLog, model: nn.Module, path: Path, method: str) -> Made:
    """Metrics of a training stage; speed is a note, for it is not part of what the stage made."""
    bad = bad_of_all(context.runtime.ranks, log)
    metrics: dict[str, Any] = {
        "method": method,
        "first_loss": log.history[0]["loss"],
        "final_loss": log.history[-1]["loss"],
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": path.stat().st_size,
        "images_seen": log.images_seen,
        "num_steps": log.num_steps,
    }
    if bad:
        metrics |= {"num_bad_images": len(bad), "bad_images": [bad[index] for index in sorted(bad)]}
        context.warn(
            f"training images that cannot be used and were replaced: {len(bad)} ({bad[min(bad)]}{', ...' if len(bad) > 1 else ''})"
        )
    if context.warnings:
        metrics["warnings"] = list(context.warnings)
    timing = {
        "train_seconds": round(log.seconds, 2),
        "step_ms": round(1000 * log.seconds / log.num_steps, 1),
        "images_per_s": round(log.images_per_s, 1),
        **{name: round(value, 4) for name, value in log.pace.items()},
        "peak_mib": round(log.peak_mib, 1),
        "state_bytes": log.state_bytes,
        "resumed_at": log.resumed_at,
        "device": str(context.device),
        "num_processes": context.runtime.ranks.num,
    }
    return Made(metrics, timing=timing)
