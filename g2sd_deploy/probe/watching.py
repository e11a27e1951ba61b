"""What a trial's stages tell of their progress, with the time of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from g2sd_deploy.progress import Progress
from g2sd_deploy.training.memory import PeakMemory

if TYPE_CHECKING:
    import torch


@dataclass
class Series:
    """Work that a stage counted, from 0 up to a total.

    Attributes:
        total: Units of work.
        note: What the first report said that it is.
        points: Seconds and units done: at the first, second and newest report.
    """

    total: int
    note: str = ""
    points: list[tuple[float, int]] = field(default_factory=list)

    def add(self, seconds: float, done: int) -> None:
        if len(self.points) == 3:
            self.points.pop()
        self.points.append((seconds, done))

    @property
    def seconds(self) -> float:
        """What all its units take, by the time from the first report to the newest one."""
        return self._from(self.points[0])

    @property
    def settled_seconds(self) -> float:
        """The same without what came before the second report, where more than that unit followed: a first call sets things up."""
        follows = len(self.points) == 3 and self.points[2][1] >= 3 * self.points[1][1] > 0
        return self._from(self.points[1] if follows else self.points[0])

    def _from(self, first: tuple[float, int]) -> float:
        (start, before), (end, done) = first, self.points[-1]
        return (end - start) * self.total / max(1, done - before)


@dataclass
class Watched:
    """One stage of a trial.

    Attributes:
        seconds: From its beginning until its artifact is whole.
        peak_mib: Most memory in use: the GPU's allocator, or this process's resident memory.
        series: What it counted, one after the other.
    """

    seconds: float = 0.0
    peak_mib: float = 0.0
    series: list[Series] = field(default_factory=list)


class Watch:
    """Progress that remembers when it was told what, and passes it on.

    Args:
        shown: Who is told, too.
        device: Whose memory is watched.
        clock: Seconds.
    """

    def __init__(self, shown: Progress, device: "torch.device", clock: Callable[[], float] = time.perf_counter) -> None:
        self.stages: dict[str, Watched] = {}
        self._shown, self._device, self._clock = shown, device, clock
        self._start = 0.0
        self._now = Watched()
        self._memory = PeakMemory(device)

    def begin(self, title: str) -> None:
        self._now = self.stages[title] = Watched()
        self._memory = PeakMemory(self._device)
        self._memory.__enter__()
        self._start = self._clock()
        self._shown.begin(title)

    def update(self, done: int, total: int, note: str = "") -> None:
        series = self._now.series
        if not series or series[-1].total != total or (series[-1].points[-1][1] >= done):
            series.append(Series(total, note))
        series[-1].add(self._clock(), done)
        self._shown.update(done, total, note)

    def end(self, note: str = "") -> None:
        self._now.seconds = self._clock() - self._start
        self._close()
        self._shown.end(note)

    def tell(self, text: str) -> None:
        self._shown.tell(text)

    def warn(self, text: str) -> None:
        self._shown.warn(text)

    def abort(self) -> None:
        self._close()
        self._shown.abort()

    def _close(self) -> None:
        self._memory.__exit__(None, None, None)
        self._now.peak_mib = self._memory.mib
