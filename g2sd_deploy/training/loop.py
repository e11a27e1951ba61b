"""The one training loop of all methods."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, random_resized_crop
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.randomness import permutation, uniform
from g2sd_deploy.settings import TrainSettings
from g2sd_deploy.training.schedule import learning_rate

LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class Batch:
    """Augmented, normalised images of one step, and the counters that any further draw is a function of."""

    images: Float[Tensor, "batch channels height width"]
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
        pixels = torch.from_numpy(self.data.images[indices]).to(self.device).permute(0, 3, 1, 2).float() / 255
        draws = uniform(self.seed, "crop", epoch, indices, NUM_CROP_DRAWS)
        cropped = random_resized_crop(pixels, draws, self.settings.augment, self.image_px)
        mean, std = (torch.tensor(v, device=self.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        labels = torch.from_numpy(self.data.labels[indices]).to(self.device)
        return Batch((cropped - mean) / std, labels, indices, epoch, step)


@dataclass
class TrainLog:
    """Loss and learning rate of every few steps, and how fast the stage was."""

    history: list[dict[str, float]] = field(default_factory=list)
    images_seen: int = 0
    seconds: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.images_seen / self.seconds


Observer = Callable[[int, int, float, float], None]


def train(model: nn.Module, optimizer: Optimizer, feed: Feed, loss_of: Callable[[Batch], Tensor], observe: Observer) -> TrainLog:
    """Train `model` in place.

    Args:
        model: Put into training mode; its parameters are in `optimizer`.
        optimizer: Groups carry `lr_scale`.
        feed: Batches and the schedule's settings.
        loss_of: Scalar loss of a batch, computed through `model`.
        observe: Called every few steps with (step, number of steps, loss, images per second).

    Raises:
        RunFailed: The loss is not finite.
    """
    settings, log = feed.settings, TrainLog()
    peak = settings.base_lr * settings.batch_size / 256
    warmup_steps = round(settings.warmup_epochs * feed.steps_per_epoch)
    model.train()
    start = time.perf_counter()
    for batch in feed.batches():
        lr = learning_rate(batch.step, num_steps=feed.num_steps, warmup_steps=warmup_steps, peak=peak, floor=settings.min_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        with torch.autocast(feed.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        log.images_seen += len(batch.labels)
        log.seconds = time.perf_counter() - start
        if batch.step % LOG_EVERY_STEPS == 0 or batch.step == feed.num_steps - 1:
            value = loss.item()
            if not math.isfinite(value):
                place = f"step {batch.step + 1} of {feed.num_steps}"
                raise RunFailed(f"the loss became {value} at {place}; lower base_lr or use precision fp32")
            log.history.append({"step": batch.step, "epoch": batch.step / feed.steps_per_epoch, "loss": value, "lr": lr})
            observe(batch.step + 1, feed.num_steps, value, log.images_per_s)
    return log
