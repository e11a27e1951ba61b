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
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from g2sd_deploy.data.dense.targets import DetectionTruth, SegmentationTruth
from g2sd_deploy.data.images import Skipped
from g2sd_deploy.data.process_pool import begin_worker
from g2sd_deploy.errors import RunFailed, UserError

Truth = Tensor | SegmentationTruth | DetectionTruth
"""What is to be said of the images of a batch: the label of each, or more."""
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
    truth: Truth
    bad: tuple[Skipped, ...] = ()
    seconds: float = 0.0

    def pin_memory(self) -> "Loaded":
        """The same batch in page-locked memory; the DataLoader calls this."""
        return replace(self, pixels=self.pixels.pin_memory(), truth=self.truth.pin_memory())


@runtime_checkable
class Maker(Protocol):
    """Makes the batch of a ticket; can be pickled into a worker."""

    def __call__(self, ticket: Ticket) -> Loaded:
        """Raises RunFailed or UserError, where the data set cannot be used."""
        ...


class Loader:
    """Turns tickets into batches, in this process or in worker processes.

    Args:
        maker: What makes one; every batch is a function of it and of the ticket.
        workers: Processes that load ahead, each on one thread; 0 loads in this one.
        pin_memory: Put batches into page-locked memory, for a copy to a GPU that does not wait.
    """

    def __init__(self, maker: Maker, *, workers: int, pin_memory: bool) -> None:
        self._batches = _Batches(maker)
        self._preloaded = type(maker).__module__
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
            multiprocessing_context=_process_context(self._preloaded) if self._workers else None,
            generator=torch.Generator(),  # else it would draw from the global one
        )


class _Batches(Dataset["Loaded | Exception"]):
    """What a worker holds: makes the batch of one ticket. An error for a person is returned: the DataLoader would wrap a raised one."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def __getitem__(self, ticket: Ticket) -> "Loaded | Exception":
        start = time.perf_counter()
        try:
            return replace(self._maker(ticket), seconds=time.perf_counter() - start)
        except (RunFailed, UserError) as error:
            return error


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


def _process_context(preloaded: str) -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preloaded])
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
