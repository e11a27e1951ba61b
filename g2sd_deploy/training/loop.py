"""The one training loop of all methods."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, random_resized_crop
from g2sd_deploy.data.color_jitter import NUM_JITTER_DRAWS, color_jitter
from g2sd_deploy.data.erasing import random_erase
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.data.rand_augment import fill_from_mean, rand_augment
from g2sd_deploy.data.resample import Interpolation
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.randomness import permutation, uniform
from g2sd_deploy.settings import ClassifyAugmentSettings, ClassifyTrainSettings, TrainSettings
from g2sd_deploy.training.schedule import learning_rate

LOG_EVERY_STEPS = 10
Row = dict[str, int | float]
Observer = Callable[[Row, int, float], None]


@dataclass(frozen=True)
class Batch:
    """Augmented, normalised images of one step, and the counters that any further draw is a function of.

    Attributes:
        images: What a teacher or a classifier sees.
        jittered: The same images with colour jitter; `images` itself where the feed has none.
    """

    images: Float[Tensor, "batch channels height width"]
    jittered: Float[Tensor, "batch channels height width"]
    labels: Int64[Tensor, "batch"]
    indices: Int64[np.ndarray, "batch"]
    epoch: int
    step: int


@dataclass(frozen=True)
class Feed:
    """Turns sample indices into batches; every draw is a function of (seed, epoch, sample index)."""

    data: ImageSet
    settings: TrainSettings
    seed: int
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    color_jitter: float = 0.0

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data) // self.settings.batch_size

    @property
    def num_steps(self) -> int:
        return max(1, round(self.settings.epochs * self.steps_per_epoch))

    def batches(self) -> Iterator[Batch]:
        """All batches of the stage, in order.

        Raises:
            UserError: The batch is larger than the data set.
        """
        if self.steps_per_epoch < 1:
            num_images = len(self.data)
            raise UserError(f"batch_size is {self.settings.batch_size}, but there are only {num_images} training images; lower batch_size")
        order = np.empty(0, np.int64)
        for step in range(self.num_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if position == 0:
                order = permutation(self.seed, "order", epoch, len(self.data))
            yield self._batch(order[position * self.settings.batch_size :][: self.settings.batch_size], epoch, step)

    def _batch(self, indices: Int64[np.ndarray, "batch"], epoch: int, step: int) -> Batch:
        """Crop and flip, RandAugment, normalise, erase: timm's order. Jitter belongs to a second view, before it is normalised."""
        augment = self.settings.augment
        pixels = torch.from_numpy(self.data.images[indices]).to(self.device).permute(0, 3, 1, 2).float() / 255
        draws = uniform(self.seed, "crop", epoch, indices, NUM_CROP_DRAWS)
        pixels = random_resized_crop(pixels, draws, augment, self.image_px)
        if isinstance(augment, ClassifyAugmentSettings) and augment.rand_augment is not None:
            pixels = self._rand_augmented(pixels, augment.rand_augment, augment.interpolation, epoch, indices)
        images = jittered = self._normalised(pixels)
        if self.color_jitter:
            draws = uniform(self.seed, "jitter", epoch, indices, NUM_JITTER_DRAWS)
            jittered = self._normalised(color_jitter(pixels, draws, self.color_jitter))
        if isinstance(augment, ClassifyAugmentSettings) and augment.erasing:
            images = jittered = random_erase(images, self.seed, epoch, indices, augment.erasing)
        labels = torch.from_numpy(self.data.labels[indices]).to(self.device)
        return Batch(images, jittered, labels, indices, epoch, step)

    def _rand_augmented(
        self, pixels: Tensor, policy: str, interpolation: Interpolation, epoch: int, indices: Int64[np.ndarray, "batch"]
    ) -> Tensor:
        """RandAugment works on bytes, as Pillow does."""
        stored = (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        augmented = rand_augment(stored, policy, self.seed, epoch, indices, fill_from_mean(self.mean), interpolation=interpolation)
        return torch.from_numpy(augmented).to(self.device).permute(0, 3, 1, 2).float() / 255

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=self.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass
class TrainLog:
    """Loss and learning rate of every few steps, and how fast the stage was."""

    history: list[Row] = field(default_factory=list)
    images_seen: int = 0
    num_steps: int = 0
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.images_seen / self.seconds


def train(
    model: nn.Module, optimizer: Optimizer, feed: Feed, loss_of: Callable[[Batch], Mapping[str, Tensor]], observe: Observer
) -> TrainLog:
    """Train `model` in place; where the settings ask for a moving average of the weights, that is what it holds at the end.

    Args:
        model: Put into training mode; its parameters are in `optimizer`.
        optimizer: Groups carry `lr_scale`.
        feed: Batches and the schedule's settings.
        loss_of: Named terms of a batch's loss, computed through `model`; the loss is their sum.
        observe: Called every few steps with (row of the history, number of steps, images per second).

    Raises:
        RunFailed: The loss is not finite.
    """
    settings, log = feed.settings, TrainLog()
    peak = settings.base_lr * settings.batch_size / 256
    warmup_steps = round(settings.warmup_epochs * feed.steps_per_epoch)
    average = _moving_average(model, settings)
    model.train()
    start = time.perf_counter()
    for batch in feed.batches():
        lr = learning_rate(batch.step, num_steps=feed.num_steps, warmup_steps=warmup_steps, peak=peak, floor=settings.min_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        with torch.autocast(feed.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            terms = loss_of(batch)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if settings.clip_grad is not None:
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip_grad)
        optimizer.step()
        if average is not None:
            average.update_parameters(model)
        log.images_seen += len(batch.labels)
        log.num_steps += 1
        log.seconds = time.perf_counter() - start
        if batch.step % LOG_EVERY_STEPS == 0 or batch.step == feed.num_steps - 1:
            row = _row(batch, feed, terms, loss, lr)
            log.history.append(row)
            observe(row, feed.num_steps, log.images_per_s)
    if average is not None:
        model.load_state_dict(average.module.state_dict())
    return log


def _moving_average(model: nn.Module, settings: TrainSettings) -> AveragedModel | None:
    if not isinstance(settings, ClassifyTrainSettings) or settings.ema_decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))  # type: ignore[no-untyped-call]


def _row(batch: Batch, feed: Feed, terms: Mapping[str, Tensor], loss: Tensor, lr: float) -> Row:
    """What the history says of one step; the terms are named where there are several."""
    value = loss.item()
    if not math.isfinite(value):
        place = f"step {batch.step + 1} of {feed.num_steps}"
        raise RunFailed(f"the loss became {value} at {place}; lower base_lr, set clip_grad or use precision fp32")
    named = {f"loss_{name}": term.item() for name, term in terms.items()} if len(terms) > 1 else {}
    return {"step": batch.step, "epoch": batch.step / feed.steps_per_epoch, "loss": value, **named, "lr": lr}
