"""How fast the steps of a training are, and whether they wait for data; measured without making the device wait for anything."""

import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from g2sd_deploy.data.loading import Loaded

NUM_KEPT = 100
"""Steps, the last ones, that a training's pace is taken from."""
WARM_UP = 3
"""First steps that are left out where there are at least twice as many after them: allocators, caches and compilers settle."""
_UNDISTURBED = 0.1
"""A step that waited for at most this share of its time shows what computing takes."""


@dataclass
class Waits:
    """What the loader's workers take, and what they are waited for.

    Attributes:
        waited_s: Time that the training stood still for want of a batch.
    """

    waited_s: float = 0.0
    _num_workers: int = 0
    _per_image_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_KEPT))
    _handed_out: int = 0

    def watched(self, batches: "Iterator[Loaded]", num_workers: int) -> "Iterator[Loaded]":
        """The same batches. Without workers nobody waits: loading is part of the step."""
        self._num_workers = num_workers
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._per_image_s.append(batch.seconds / len(batch.truth))
            self._handed_out += len(batch.truth)
            if num_workers:
                self.waited_s += time.perf_counter() - start
            yield batch

    def loader_ms(self, num_steps: int) -> float:
        """What the workers, all of them busy, take for one of `num_steps` steps; 0 where there are none."""
        if not self._num_workers or not num_steps:
            return 0.0
        return 1000 * statistics.median(self._per_image_s) * self._handed_out / num_steps / self._num_workers


class Pace:
    """Times of the last steps. On a GPU they are times of the device, whose marks are read when all is done.

    Args:
        device: Where steps are computed.
        waits: How long they waited for data.
    """

    def __init__(self, device: torch.device, waits: Waits) -> None:
        self._on_gpu = device.type == "cuda"
        self._waits = waits
        self._marks: deque[tuple[Any, float]] = deque(maxlen=NUM_KEPT + 1)
        self._num = -1

    def mark(self) -> None:
        """Called once before the first step, and at the end of each."""
        self._num += 1
        self._marks.append((_gpu_mark() if self._on_gpu else time.perf_counter(), self._waits.waited_s))

    def figures(self) -> dict[str, float]:
        """`compute_ms`: the median step, waiting left out; `loader_ms`: what the loader needs for one, with all its workers (0 without
        any); `waited_share`: share of the time in which there was no batch. Empty where no step was done.
        """
        if self._num < 1:
            return {}
        if self._on_gpu:
            torch.cuda.synchronize()
        marks = list(self._marks)
        took = [one.elapsed_time(other) if self._on_gpu else 1000 * (other - one) for (one, _), (other, _) in pairwise(marks)]
        waited = [1000 * (other - one) for (_, one), (_, other) in pairwise(marks)]
        if self._num == len(took):  # the first steps are among them
            settled = warm_up_of(self._num)
            took, waited = took[settled:], waited[settled:]
        loader_ms = self._waits.loader_ms(self._num)
        return {"compute_ms": compute_ms(took, waited), "loader_ms": loader_ms, "waited_share": min(1.0, sum(waited) / sum(took))}


def warm_up_of(num_steps: int) -> int:
    """First steps that do not count, so that some do."""
    return WARM_UP if num_steps >= 3 * WARM_UP else min(1, num_steps - 1)


def compute_ms(took_ms: Sequence[float], waited_ms: Sequence[float]) -> float:
    """What a step takes that does not wait for data.

    Workers that load ahead hand over their batches in bursts, so among few steps some wait long and others not at all. The median of those
    that did not is the answer; where all waited, what is left of them without the waiting (on a GPU, which computes meanwhile, that is too
    little, but then the loader decides how fast the training is).

    Args:
        took_ms: Time of each step, at least one.
        waited_ms: Its time of waiting.
    """
    undisturbed = [took for took, waited in zip(took_ms, waited_ms, strict=True) if waited <= _UNDISTURBED * took]
    if undisturbed:
        return statistics.median(undisturbed)
    return max(0.0, statistics.median(took - waited for took, waited in zip(took_ms, waited_ms, strict=True)))


def _gpu_mark() -> Any:
    """A point in the GPU's queue; it costs the host microseconds, and the GPU nothing."""
    mark = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    mark.record()
    return mark
