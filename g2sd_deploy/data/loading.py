"""Batches of augmented 8-bit images, made in this process or in worker processes; how many there are does not change a byte.

Workers are forked from a server process that has loaded the libraries and nothing else (`forkserver`). Forking this process instead would
copy CUDA's and OpenMP's threads half alive, and `spawn` would load torch anew in every worker, seconds of processor time each. Where a
system has no fork server (Windows), they are spawned.
"""

import atexit
import multiprocessing
import signal
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, crop_boxes
from g2sd_deploy.data.images import BadImage, Samples, Skipped
from g2sd_deploy.data.pixels import Opened, crop_sample, cut, is_mirrored, open_sample
from g2sd_deploy.data.process_pool import begin_worker
from g2sd_deploy.data.rand_augment import fill_from_mean, rand_augment
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import AugmentSettings

__all__ = ["Loaded", "Loader", "Skipped", "Ticket"]

MAX_TRIES = 100
"""Neighbours of a bad image that are tried in its place; a set with a longer run of them is broken."""
_GONE = (EOFError, ConnectionError, FileNotFoundError)
"""What asking a dead worker for a batch that it had announced gives; what is wrong with the data comes as a batch would."""


@dataclass(frozen=True)
class Ticket:
    """Which images a batch is made of, and in which pass over the data."""

    epoch: int
    indices: Int64[np.ndarray, "batch"]


@dataclass(frozen=True)
class Loaded:
    """One batch, the bad images that were met on the way, and the seconds that it took to make."""

    pixels: UInt8[Tensor, "batch channels height width"]
    labels: Int64[Tensor, "batch"]
    bad: tuple[Skipped, ...]
    seconds: float = 0.0

    def pin_memory(self) -> "Loaded":
        """The same batch in page-locked memory; the DataLoader calls this."""
        return replace(self, pixels=self.pixels.pin_memory(), labels=self.labels.pin_memory())


class Loader:
    """Turns tickets into batches. Every batch is a function of the data, the settings, the seed and its ticket.

    Args:
        samples: Images of one split.
        augment: Crop, flip and, where they are ClassifyAugmentSettings, RandAugment.
        seed: The recipe's seed.
        image_px: Side of the images that come out.
        num_channels: 1 (grey) or 3 (RGB).
        mean: Of each channel, in units of pixel / 255; the colour of what RandAugment brings into view.
        workers: Processes that load ahead, each on one thread; 0 loads in this one.
        pin_memory: Put batches into page-locked memory, for a copy to a GPU that does not wait.
    """

    def __init__(
        self,
        samples: Samples,
        augment: AugmentSettings,
        *,
        seed: int,
        image_px: int,
        num_channels: int,
        mean: tuple[float, ...],
        workers: int,
        pin_memory: bool,
    ) -> None:
        self._batches = _Batches(samples, augment, seed, image_px, num_channels, fill_from_mean(mean))
        self._workers = workers
        self._pin_memory = pin_memory

    def load(self, tickets: Iterable[Ticket]) -> Iterator[Loaded]:
        """The batches of the tickets, in their order. Workers live as long as the iterator, and never longer than this process.

        Raises:
            RunFailed: A worker died, or a bad image has too many bad neighbours.
            UserError: The place where the images lie cannot be read.
        """
        others = set(multiprocessing.active_children())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more workers than cores were asked for
            batches = iter(self._torch_loader(tickets))
        _workers.update(set(multiprocessing.active_children()) - others)
        try:
            for loaded in batches:
                if isinstance(loaded, Exception):
                    raise loaded
                yield loaded
        except (RuntimeError, *_GONE) as error:
            if self._workers and (isinstance(error, _GONE) or ("worker" in str(error) and "exited unexpectedly" in str(error))):
                reason = " ".join(str(error).split()) or type(error).__name__
                raise RunFailed(
                    f"a data loading worker died ({reason}); most often the system ended it for want of memory, or "
                    f"of shared memory (/dev/shm in a container): lower --workers (now {self._workers}), or give it more"
                ) from error
            raise

    def _torch_loader(self, tickets: Iterable[Ticket]) -> "DataLoader[Loaded | Exception]":
        return DataLoader(
            self._batches,
            batch_size=None,
            sampler=tickets,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            pin_memory=self._pin_memory,
            worker_init_fn=_begin_worker,
            multiprocessing_context=_process_context() if self._workers else None,
            generator=torch.Generator(),  # else it would draw from the global one
        )


class _Batches(Dataset["Loaded | Exception"]):
    """What a worker holds: makes the batch of one ticket. An error for a person is returned: the DataLoader would wrap a raised one."""

    def __init__(
        self, samples: Samples, augment: AugmentSettings, seed: int, image_px: int, num_channels: int, fill: tuple[int, ...]
    ) -> None:
        self._samples, self._augment, self._seed = samples, augment, seed
        self._image_px, self._num_channels, self._fill = image_px, num_channels, fill
        self._policy = augment.policy
        self._labels = np.asarray(samples.labels)

    def __getitem__(self, ticket: Ticket) -> "Loaded | Exception":
        start = time.perf_counter()
        try:
            return replace(self._loaded(ticket), seconds=time.perf_counter() - start)
        except (RunFailed, UserError) as error:
            return error

    def _loaded(self, ticket: Ticket) -> Loaded:
        draws = uniform(self._seed, "crop", ticket.epoch, ticket.indices, NUM_CROP_DRAWS)
        size, bad = (len(ticket.indices), self._num_channels, self._image_px, self._image_px), dict[int, Skipped]()
        pixels = torch.empty(size, dtype=torch.uint8)
        if self._policy is not None:  # Pillow wants pixels, a network planes
            pixels = pixels.view(size[0], size[2], size[3], size[1]).permute(0, 3, 1, 2)
        used, images = ticket.indices.copy(), pixels.permute(0, 2, 3, 1).numpy()
        for place, crop in enumerate(self._crops(ticket.indices, draws, bad)):
            if crop is None:
                used[place], crop = self._substitute(int(ticket.indices[place]), draws[place], bad)
            images[place] = crop
        if self._policy is not None:
            filter_name = self._augment.interpolation
            images = rand_augment(images, self._policy, self._seed, ticket.epoch, ticket.indices, self._fill, interpolation=filter_name)
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return Loaded(pixels, torch.from_numpy(self._labels[used].astype(np.int64)), tuple(bad.values()))

    def _crops(
        self, indices: Int64[np.ndarray, "batch"], draws: Float64[np.ndarray, "batch 23"], bad: dict[int, Skipped]
    ) -> Iterator[UInt8[np.ndarray, "side side channels"] | None]:
        """Each image's crop; None for a bad image. The boxes are computed at once: one at a time they would take a tenth of the time."""
        opened = [self._opened(int(index), bad) for index in indices]
        sizes = np.array([(1, 1) if image is None else image.size for image in opened], dtype=np.int64)
        boxes = crop_boxes(draws, self._augment, sizes)
        for index, image, box, numbers in zip(indices, opened, boxes, draws, strict=True):
            try:
                if image is not None:
                    yield cut(image, box, self._augment, self._image_px, mirrored=is_mirrored(numbers, self._augment))
                    continue
            except BadImage as error:
                self._note(int(index), error, bad)
            yield None

    def _opened(self, index: int, bad: dict[int, Skipped]) -> Opened | None:
        try:
            return open_sample(self._samples.read(index), self._num_channels)
        except BadImage as error:
            self._note(index, error, bad)
            return None

    def _substitute(
        self, index: int, draws: Float64[np.ndarray, "23"], bad: dict[int, Skipped]
    ) -> tuple[int, UInt8[np.ndarray, "side side channels"]]:
        """The next image that can be used, under the bad one's draws: a function of the data, so no other process sees another one."""
        for step in range(1, min(MAX_TRIES, len(self._samples))):
            other = (index + step) % len(self._samples)
            try:
                return other, crop_sample(self._samples.read(other), draws, self._augment, self._image_px, self._num_channels)
            except BadImage as error:
                self._note(other, error, bad)
        first = bad[index]
        raise RunFailed(
            f"{first.name} cannot be used ({first.reason}), nor can any of the {min(MAX_TRIES, len(self._samples)) - 1} images after it; "
            "`g2sd data verify` lists them all: mend the data set, or make it anew"
        )

    def _note(self, index: int, error: BadImage, bad: dict[int, Skipped]) -> None:
        bad[index] = Skipped(index, self._samples.name(index), str(error))


_workers: weakref.WeakSet[multiprocessing.process.BaseProcess] = weakref.WeakSet()


@atexit.register
def _kill_workers() -> None:
    """Python ends what is left of them with SIGTERM when it exits, and would wait forever, for they are deaf to it."""
    for worker in _workers:
        worker.kill()


def _as_it_is(loaded: Any) -> Any:
    return loaded


def _begin_worker(_: int) -> None:
    """End with the parent and leave signals to it: Ctrl-C goes to all processes of a terminal, Slurm's SIGTERM to all of a job.

    torch's own workers look whether their parent lives, but here that is the fork server, which they may keep alive themselves.
    """
    begin_worker()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _process_context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    _start_fork_server()
    return context


def _start_fork_server() -> None:
    """Start it with SIGTERM and SIGINT blocked, which it and its workers inherit from their first instant on: sent to a whole job or by a
    terminal, they must end the parent only, in good order."""
    resource_tracker.ensure_running()  # else the fork server starts it, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
