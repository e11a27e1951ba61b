"""Which images a step is made of, and how they become a batch on the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice, tee
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, Num, UInt8
from torch import Tensor

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, random_resized_crop
from g2sd_deploy.data.color_jitter import NUM_JITTER_DRAWS, color_jitter
from g2sd_deploy.data.crop_maker import CropMaker
from g2sd_deploy.data.erasing import random_erase
from g2sd_deploy.data.images import ImageSet, Samples
from g2sd_deploy.data.loading import Loaded, Loader, Maker, Ticket, Truth
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.randomness import order_in_windows, uniform
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import ClassifyAugmentSettings, TrainSettings
from g2sd_deploy.training.pace import Waits
from g2sd_deploy.training.schedule import learning_rate, num_steps_of

_SHARE_OF_GPU = 0.25
"""Decoded images live on the GPU where they take at most this share of its memory."""


@dataclass(frozen=True)
class Turn:
    """What one forward pass of this process is made of.

    Attributes:
        share: Its images over those of this process in the whole step.
        ends_step: Whether the optimiser's step follows.
    """

    step: int
    epoch: int
    indices: Int64[np.ndarray, "batch"]
    share: float
    ends_step: bool


@dataclass(frozen=True)
class Batch:
    """Augmented, normalised images of one forward pass, and the counters that any further draw is a function of.

    Attributes:
        images: What a teacher or a classifier sees.
        jittered: The same images with colour jitter; `images` itself where the feed has none.
        turn: Where they stand in the training.
    """

    images: Float[Tensor, "batch channels height width"]
    jittered: Float[Tensor, "batch channels height width"]
    truth: Truth
    turn: Turn

    def first(self, num: int) -> "Batch":
        """Its first images."""
        turn = replace(self.turn, indices=self.turn.indices[:num])
        truth = self.truth[:num] if isinstance(self.truth, Tensor) else self.truth.part(0, num)
        return Batch(self.images[:num], self.jittered[:num], truth, turn)


@runtime_checkable
class TaskMaker(Maker, Protocol):
    """Makes the batches of a task whose truth is more than a label."""

    def blank_truth(self, num: int) -> Truth:
        """The truth of `num` images on which there is nothing."""
        ...


@dataclass(frozen=True)
class Feed:
    """Turns steps into batches; what is seen is a function of (seed, epoch, sample index), whoever loads it and on how many processes.

    Attributes:
        data: Training images.
        settings: Batch size, schedule and augmentation.
        window: Shards that are shuffled together; None shuffles all images at once.
        color_jitter: Strength of the jitter of the second view.
        in_pairs: Whether neighbours of a batch are mixed, and so have to stay together.
        max_bad: Most images that may be unusable.
        maker: What makes a batch with its truth where that is more than a label; None for crops.
        bad: Images that were found to be unusable so far, by index, with the reason.
        warn: Told of each of them once.
        waits: How long the loader's workers take, and are waited for.
    """

    data: Samples
    settings: TrainSettings
    seed: int
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    runtime: Runtime
    color_jitter: float = 0.0
    in_pairs: bool = False
    window: int | None = None
    max_bad: int = 0
    maker: TaskMaker | None = None
    bad: dict[int, str] = field(default_factory=dict)
    warn: Callable[[str], None] = field(default=lambda _: None, compare=False)
    waits: Waits = field(default_factory=Waits)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data) // self.settings.batch_size

    @property
    def num_steps(self) -> int:
        return num_steps_of(self.settings.epochs, self.settings.batch_size, len(self.data))

    def learning_rate(self, step: int) -> float:
        """Rate of one optimiser step."""
        settings = self.settings
        return learning_rate(
            step,
            num_steps=self.num_steps,
            warmup_steps=round(settings.warmup_epochs * self.steps_per_epoch),
            peak=settings.base_lr * settings.batch_size / 256,
            floor=settings.min_lr,
            schedule=settings.schedule,
            drops=settings.drops,
        )

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """All batches of this process from step `start` on, in order.

        Raises:
            UserError: The batch is larger than the data set, or cannot be shared by the processes.
            RunFailed: More images are unusable than allowed, or a loader's worker died.
        """
        self._check()
        if isinstance(self.data, ImageSet) and self.settings.augment.policy is None:
            on_gpu = self._kept_on_gpu(self.data)
            for turn in self.turns(start):
                yield self._cropped(self.data, on_gpu, turn)
            return
        runtime = self.runtime
        loader = Loader(self._maker(), workers=runtime.num_workers, pin_memory=runtime.device.type == "cuda")
        ahead, turns = tee(self.turns(start))  # the loader takes some in advance
        made = self.waits.watched(loader.load(Ticket(turn.epoch, turn.indices) for turn in ahead), runtime.num_workers)
        for turn, loaded in zip(turns, made, strict=True):
            self._count_bad(loaded)
            yield self._finished(loaded.pixels.to(runtime.device, non_blocking=True), loaded.truth, turn)

    def _maker(self) -> Maker:
        if self.maker is not None:
            return self.maker
        sizes = {"image_px": self.image_px, "num_channels": len(self.mean)}
        return CropMaker(self.data, self.settings.augment, seed=self.seed, mean=self.mean, **sizes)

    def turns(self, start: int = 0) -> Iterator[Turn]:
        """What each forward pass of this process is made of: its part of the step's images, in pieces of at most the micro-batch."""
        size, ranks = self.settings.batch_size, self.runtime.ranks
        own = size // ranks.num
        piece = min(own, self.runtime.micro_batch or own)
        order, ordered_epoch = np.empty(0, np.int64), -1
        for step in range(start, self.num_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != ordered_epoch:
                order, ordered_epoch = order_in_windows(self.seed, "order", epoch, self.data.block_sizes, self.window), epoch
            first = position * size + ranks.rank * own
            for begin in range(0, own, piece):
                indices = order[first + begin : first + min(begin + piece, own)]
                yield Turn(step, epoch, indices, len(indices) / own, ends_step=begin + piece >= own)

    def blank_batch(self, num_images: int) -> Batch:
        """A batch of the right shape without images, to try a network on."""
        turn, device = next(self.turns()), self.runtime.device
        small = replace(turn, indices=turn.indices[:num_images])
        pixels = torch.zeros(len(small.indices), len(self.mean), self.image_px, self.image_px, device=device)
        num = len(small.indices)
        return self._finished(pixels, torch.zeros(num, dtype=torch.int64) if self.maker is None else self.maker.blank_truth(num), small)

    def _check(self) -> None:
        size, num_images, ranks = self.settings.batch_size, len(self.data), self.runtime.ranks
        if self.steps_per_epoch < 1:
            raise UserError(f"batch_size is {size}, but there are only {num_images} training images; lower batch_size")
        if size % ranks.num:
            raise UserError(f"batch_size is {size}, which {ranks.num} processes cannot share evenly; make it a multiple of {ranks.num}")
        own, micro = size // ranks.num, self.runtime.micro_batch
        if self.in_pairs and (ranks.num > 1 and own % 2):
            raise UserError(
                f"batch_size is {size}: mixup pairs neighbours, so each of {ranks.num} processes needs an even number of images"
            )
        if self.in_pairs and micro is not None and micro < own and micro % 2:
            raise UserError(f"--micro-batch {micro}: mixup pairs neighbours; give an even number")

    def _kept_on_gpu(self, data: ImageSet) -> UInt8[Tensor, "num height width channels"] | None:
        """A small set's images on the GPU; None where they stay where they are mapped."""
        trial, device = self.runtime.trial, self.runtime.device
        if not fits_on_gpu(trial.image_bytes if trial else data.images.nbytes, device):
            return None
        return torch.tensor(data.images, device=device)

    def _cropped(self, data: ImageSet, on_gpu: UInt8[Tensor, "num height width channels"] | None, turn: Turn) -> Batch:
        device = self.runtime.device
        stored = torch.from_numpy(data.images[turn.indices]) if on_gpu is None else on_gpu[torch.from_numpy(turn.indices).to(device)]
        pixels = stored.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
        draws = uniform(self.seed, "crop", turn.epoch, turn.indices, NUM_CROP_DRAWS)
        pixels = random_resized_crop(pixels, draws, self.settings.augment, self.image_px)
        return self._finished(pixels, torch.from_numpy(data.labels[turn.indices]), turn)

    def _finished(self, pixels: Num[Tensor, "batch channels height width"], truth: Truth, turn: Turn) -> Batch:
        """Normalise, then erase: timm's order. Jitter belongs to a second view, before it is normalised.

        Args:
            pixels: In [0, 1], or 8-bit numbers as they were loaded.
            truth: On the device or not.
            turn: Where they stand in the training.
        """
        augment, scale = self.settings.augment, 1.0 if pixels.is_floating_point() else 255.0
        images = jittered = self._normalised(pixels, scale)
        if self.color_jitter:
            draws = uniform(self.seed, "jitter", turn.epoch, turn.indices, NUM_JITTER_DRAWS)
            jittered = self._normalised(color_jitter(pixels / scale, draws, self.color_jitter), 1.0)
        if isinstance(augment, ClassifyAugmentSettings) and augment.erasing:
            images = jittered = random_erase(images, self.seed, turn.epoch, turn.indices, augment.erasing)
        return Batch(images, jittered, truth.to(self.runtime.device, non_blocking=True), turn)

    def _normalised(self, pixels: Tensor, scale: float) -> Tensor:
        """(pixels / scale - mean) / std in two passes over memory."""
        mean, std = _per_channel(self.mean, scale, pixels.device), _per_channel(self.std, scale, pixels.device)
        return torch.sub(pixels, mean).div_(std)

    def _count_bad(self, loaded: Loaded) -> None:
        """Keep what could not be used, and tell of it when it is met first; too much of it ends the training."""
        for skipped in loaded.bad:
            if skipped.index not in self.bad:
                self.warn(f"{skipped.name}: {skipped.reason}; the next image is used in its place")
        self.bad.update({skipped.index: f"{skipped.name}: {skipped.reason}" for skipped in loaded.bad})
        if len(self.bad) > self.max_bad:
            named = "; ".join(islice(self.bad.values(), 3))
            raise RunFailed(
                f"{len(self.bad)} training images cannot be used, data.max_bad_images allows {self.max_bad} ({named}); `g2sd data verify` "
                "lists them all: mend or remove them, or raise data.max_bad_images"
            )


def fits_on_gpu(image_bytes: int, device: torch.device) -> bool:
    """Whether decoded training images of this size are kept on the device, a GPU."""
    return device.type == "cuda" and image_bytes <= _SHARE_OF_GPU * torch.cuda.get_device_properties(device).total_memory


@lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], scale: float, device: torch.device) -> Float[Tensor, "1 channels 1 1"]:
    """Made once, for a copy to a GPU waits."""
    return torch.tensor([scale * value for value in values], device=device).view(1, -1, 1, 1)
