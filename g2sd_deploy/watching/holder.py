"""Who writes a run. Asking never takes the lock, not even for a moment: a run that starts just then would be refused."""

import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from g2sd_deploy.run_folder import LOCK_FILE
from g2sd_deploy.watching.view import Holder

_KERNEL_LOCKS = Path("/proc/locks")


def find_holder(run_folder: Path, locks: Path = _KERNEL_LOCKS, host: str | None = None) -> Holder:
    """The process that holds the lock of a run.

    Args:
        run_folder: Of the run.
        locks: Where the system lists the locks that are held (Linux); where it does not, the process is asked for by its number.
        host: Name of this machine.
    """
    path, here = run_folder / LOCK_FILE, platform.node() if host is None else host
    told = _told(path)
    holders = _kernel_holders(path, locks, told.pid if told.host == here else None)
    if holders:
        return Holder("alive", here, holders[0], told.since if told.pid == holders[0] else "")
    if told.host != here:
        return Holder("elsewhere" if told.host else "unknown", told.host, told.pid, told.since)
    if locks.is_file():
        return Holder("gone", told.host, told.pid, told.since)
    if os.name != "posix" or told.pid is None:  # elsewhere a signal of 0 is no question
        return Holder("unknown", told.host, told.pid, told.since)
    return Holder("alive" if _lives(told.pid) else "gone", told.host, told.pid, told.since)


def _told(path: Path) -> Holder:
    """What the last holder wrote; nothing where it is being written or comes from elsewhere."""
    try:
        found = json.loads(path.read_bytes())
        return Holder("unknown", str(found["host"]), int(found["pid"]), str(found["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder("unknown")


def _kernel_holders(path: Path, locks: Path, told_pid: int | None) -> list[int]:
    """Processes whose lock is on this file. Some file systems show another device number there; then the number of the process decides."""
    try:
        status, text = path.stat(), locks.read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return [pid for pid, where, inode in _entries(text) if inode == status.st_ino and (where == device or pid == told_pid)]


def _entries(text: str) -> Iterator[tuple[int, str, int]]:
    """`1: FLOCK  ADVISORY  WRITE 25667 fe:00:2327997 0 EOF` -> (25667, 'fe:00', 2327997)."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 8 and words[1] == "FLOCK":
            device, _, inode = words[5].rpartition(":")
            if inode.isdigit() and words[4].isdigit():
                yield int(words[4]), device, int(inode)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
