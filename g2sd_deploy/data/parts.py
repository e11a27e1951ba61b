"""Parts of a prepared data set on disk: tar shards, or stretches of class folders. Each is there as a whole or is made again."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.data.encoding import Encoded
from g2sd_deploy.data.images import Skipped


@dataclass(frozen=True)
class PartRecord:
    """What a finished part holds.

    Attributes:
        num: Images.
        files: Each file's name, relative to the prepared folder, and its size in bytes.
        skipped: Images that were left out.
        sha256: Of the shard; empty for class folders.
    """

    num: int
    files: dict[str, int]
    skipped: list[Skipped] = field(default_factory=list)
    sha256: str = ""

    def is_there(self, root: Path) -> bool:
        """Whether every file has its size; after a power cut, some may not."""
        try:
            return all((root / name).stat().st_size == size for name, size in self.files.items())
        except OSError:
            return False

    def write(self, path: Path) -> None:
        """Save the record; a part without one is made again."""
        write_text_whole(path, json.dumps(asdict(self)) + "\n")


def read_record(path: Path) -> PartRecord | None:
    """A saved record; None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return PartRecord(**found | {"skipped": [Skipped(**one) for one in found["skipped"]]})


class PartWriter(Protocol):
    """Takes the images of one part in their order."""

    def add(self, position: int, index: int, encoded: Encoded) -> None:
        """Store an image: its place in the split's stored order, and in the split's listing."""

    def finish(self, skipped: list[Skipped]) -> PartRecord:
        """Give the part its name."""

    def discard(self) -> None:
        """Remove what was begun."""


class ShardWriter:
    """A tar of pairs `KEY.jpg`, `KEY.cls` that is the same to the byte whenever and wherever it is written."""

    def __init__(self, unfinished: Path, final: Path, label_of: Callable[[int], int]) -> None:
        self._unfinished, self._final, self._label_of = unfinished, final, label_of
        self._file = _HashedFile(unfinished)
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # type: ignore[call-overload] # noqa: SIM115
        self._num = 0

    def add(self, position: int, index: int, encoded: Encoded) -> None:
        for suffix, data in ((encoded.suffix, encoded.data), ("cls", str(self._label_of(index)).encode())):
            member = tarfile.TarInfo(f"{position:09d}.{suffix}")  # no owner, no time
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        self._num += 1

    def finish(self, skipped: list[Skipped]) -> PartRecord:
        self._tar.close()
        self._file.sync_and_close()
        self._unfinished.replace(self._final)
        return PartRecord(self._num, {self._final.name: self._file.tell()}, skipped, self._file.hexdigest())

    def discard(self) -> None:
        self._file.abandon()
        self._unfinished.unlink(missing_ok=True)


class _HashedFile:
    """A file that is hashed while it is written; what `tarfile` needs of a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._size

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def sync_and_close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close without writing what is buffered, for which there may be no room."""
        self._file.raw.close()


class FolderWriter:
    """Files `SPLIT/CLASS/NAME.SUFFIX`; whether they are all there is told by the sizes in the record."""

    def __init__(self, root: Path, stem_of: Callable[[int], str]) -> None:
        self._root, self._stem_of = root, stem_of
        self._files: dict[str, int] = {}

    def add(self, position: int, index: int, encoded: Encoded) -> None:
        name = f"{self._stem_of(index)}.{encoded.suffix}"
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.data)
        self._files[name] = len(encoded.data)

    def finish(self, skipped: list[Skipped]) -> PartRecord:
        return PartRecord(len(self._files), self._files, skipped)

    def discard(self) -> None:
        """Leave the files: the same command writes them again with the same bytes."""
