"""What a container, or any control group of Linux, allows this process: processors and memory, and whether it was held back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from .system import System

_MIB = 2**20
_MOST_MIB = 2**43  # version 1 says "no limit" with a number near 2^63 bytes
_ROOT = "sys/fs/cgroup"


def cpu_quota_cpus(system: System) -> float | None:
    """Processors' worth of time that the group and those around it allow; None where there is no limit."""
    found = []
    for folder in _folders(system, "cpu"):
        words = (system.text(f"{folder}/cpu.max") or "").split()
        quota = float(words[0]) if len(words) == 2 and words[0] != "max" else system.number(f"{folder}/cpu.cfs_quota_us")
        period = float(words[1]) if len(words) == 2 else system.number(f"{folder}/cpu.cfs_period_us")
        if quota is not None and period and quota > 0:
            found.append(quota / period)
    return min(found, default=None)


def memory_limit_mib(system: System) -> float | None:
    """Memory that the group and those around it allow; None where there is no limit."""
    found = []
    for folder in _folders(system, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = system.number(f"{folder}/{name}")
            if limit is not None and limit / _MIB < _MOST_MIB / _MIB:
                found.append(limit / _MIB)
    return min(found, default=None)


def held_back(system: System) -> int:
    """How often the quota has stopped the group, or one around it."""
    found = 0
    for folder in _folders(system, "cpu"):
        for line in (system.text(f"{folder}/cpu.stat") or "").splitlines():
            if line.startswith("nr_throttled "):
                found += int(line.split()[1])
    return found


def _folders(system: System, controller: str) -> Iterator[str]:
    """Folders of the group and of those around it, of both versions; inside a container its own is the root's."""
    for line in (system.text(f"proc/{system.process}/cgroup") or "").splitlines():
        _, names, group = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mount = f"{_ROOT}/{names}" if names else _ROOT
        path = PurePosixPath("/", group)
        yield from (f"{mount}{one}".rstrip("/") for one in map(str, (path, *path.parents)))
