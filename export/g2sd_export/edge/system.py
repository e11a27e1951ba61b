"""The machine as its files, commands and clocks show it; a test puts another machine in its place."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .runner import available_cpus

_COMMAND_SECONDS = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class System:
    """Where everything is read that says how a machine is and what it does.

    Attributes:
        root: The folder that holds ``proc`` and ``sys``.
        name: The operating system, as ``platform.system`` gives it.
        process: Number of the process whose work is measured.
    """

    root: Path = Path("/")
    name: str = field(default_factory=platform.system)
    process: int = field(default_factory=os.getpid)

    def text(self, path: str) -> str | None:
        """What a file below the root holds, without the white space around it; None where it cannot be read."""
        try:
            with open(os.path.join(str(self.root), path), encoding="utf-8", errors="replace") as file:  # noqa: PTH118, PTH123 (often called)
                return file.read().strip("\0 \t\r\n")
        except OSError:  # absent, or present and not to be read by us, or by anybody while the device sleeps
            return None

    def number(self, path: str) -> float | None:
        """The number that a file holds; None where there is none."""
        try:
            return float(self.text(path) or "")
        except ValueError:
            return None

    def paths(self, pattern: str) -> list[str]:
        """Files below the root that a pattern names, sorted, as ``text`` takes them."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))

    def command(self, *words: str) -> str | None:
        """What a command prints; None where there is no such command, or it fails or takes more than five seconds."""
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=_COMMAND_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    def clock(self) -> int:
        """Monotonic time in ns."""
        return time.perf_counter_ns()

    def sleep(self, seconds: float) -> None:
        """Return after this many seconds."""
        time.sleep(seconds)

    def cpus(self) -> tuple[int, ...]:
        """Numbers of the processors that this process may run on."""
        return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(available_cpus()))

    def own_cpu_s(self) -> float:
        """Processor time that this process has used, with all its threads and the processes that it started, in s."""
        ended = os.times()
        return time.process_time() + ended.children_user + ended.children_system + sum(map(self._cpu_s_of, self._descendants()))

    def _descendants(self) -> list[str]:
        """Processes that this one started and that still run, and those that they started."""
        found: list[str] = []
        left = [str(self.process)]
        while left:
            one = left.pop()
            children = [child for path in self.paths(f"proc/{one}/task/*/children") for child in (self.text(path) or "").split()]
            found += children
            left += children
        return found

    def _cpu_s_of(self, process: str) -> float:
        """Its own time and that of those it waited for."""
        _, _, fields = (self.text(f"proc/{process}/stat") or "").rpartition(")")
        return sum(float(value) for value in fields.split()[11:15]) / _TICKS_PER_S
