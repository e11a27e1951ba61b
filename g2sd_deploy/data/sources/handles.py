"""Open files to read at random places from, opened when they are first used in a thread, the last few kept open."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from g2sd_deploy.errors import UserError

_KEPT = 16
_TRIES = 5


class Handles:
    """File descriptors by number; each thread has its own, so that none is closed while another thread reads.

    Reading leaves no position behind (pread), so descriptors that a forked process inherits do no harm.
    """

    def __init__(self, locate: Callable[[int], Path]) -> None:
        """`locate` gives the path of a file; it is asked each time that the file is opened."""
        self._locate = locate
        self._local = threading.local()

    def read(self, number: int, size: int, offset: int) -> bytes:
        """`size` bytes of a file, fewer at its end.

        Raises:
            UserError: It cannot be read.
        """
        descriptor = self._descriptor(number)
        try:
            return os.pread(descriptor.number, size, offset)
        except OSError as error:
            raise _unreadable(descriptor.path, error) from None

    def _descriptor(self, number: int) -> "_Descriptor":
        opened: OrderedDict[int, _Descriptor] = self._local.__dict__.setdefault("opened", OrderedDict())
        if number not in opened:
            opened[number] = self._open(number)
            if len(opened) > _KEPT:
                opened.popitem(last=False)
        opened.move_to_end(number)
        return opened[number]

    def _open(self, number: int) -> "_Descriptor":
        for _ in range(_TRIES):
            path = self._locate(number)
            try:
                return _Descriptor(path, os.open(path, os.O_RDONLY))
            except FileNotFoundError:  # another process made room in the cache in between
                continue
            except OSError as error:
                raise _unreadable(path, error) from None
        raise UserError(f"{path}: is deleted again and again before it can be opened; raise data.cache_gib")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror}); correct it and run the same command again")


class _Descriptor:
    """A file descriptor that is closed with its last reference."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)
