"""A file of JSON objects, one a line, that grows while it is read and is now and then replaced by another."""

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

_NUM_COMPARED = 256


class GrowingLines:
    """Reads what was added since the last time; what was read is forgotten where the file is another one or does not go on where it was.

    Args:
        path: The file; it may be missing.

    Attributes:
        rows: The objects of all whole lines so far. A last line without its end is left for later; what is no JSON object is passed over.
        problem: Why the file could not be read the last time; empty where it could.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        self.problem = ""
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._last = b""

    def update(self) -> None:
        """Read on. A folder of another machine may not answer for a while: then what was read stays, and `problem` says why."""
        try:
            with self._path.open("rb") as file:
                self._read(file)
            self.problem = ""
        except FileNotFoundError:
            self._begin_again()
            self.problem = ""
        except OSError as error:
            self.problem = f"{self._path}: cannot be read now ({error.strerror})"

    def _read(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != self._identity or not self._goes_on(file, status.st_size):
            self._begin_again()
            self._identity = status.st_dev, status.st_ino
        file.seek(self._offset)
        found = file.read()
        whole = found[: found.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._last = (self._last + whole)[-_NUM_COMPARED:]
        self.rows += [row for line in whole.splitlines() if (row := _object_of(line)) is not None]

    def _goes_on(self, file: BinaryIO, num_bytes: int) -> bool:
        if num_bytes < self._offset:
            return False
        file.seek(self._offset - len(self._last))
        return file.read(len(self._last)) == self._last

    def _begin_again(self) -> None:
        self.rows, self._identity, self._offset, self._last = [], None, 0, b""


def _object_of(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
