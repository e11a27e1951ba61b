"""Where shards lie: a folder, or an address whose shards are fetched when they are first used."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from g2sd_deploy.data.sources.base import expand, is_remote
from g2sd_deploy.errors import UserError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MAX_SHARDS = 1_000_000


@dataclass(frozen=True)
class Shard:
    """One tar, relative to its storage; None for what is not known of it."""

    file: str
    num: int | None = None
    bytes: int | None = None
    sha256: str | None = None


class Storage(Protocol):
    """A folder or an address.

    Attributes:
        root: Its path or address, for messages.
        title: What a report calls it; no path of this machine.
    """

    root: str
    title: str

    def where(self) -> dict[str, Any]:
        """Arguments of `open_storage` that open it again, from another working directory too."""
        ...

    def text(self, name: str) -> str | None:
        """A small file; None where there is none."""
        ...

    def listed(self, split: str) -> list[str]:
        """Tars that belong to a split by their names.

        Raises:
            UserError: There are none, or they cannot be listed.
        """
        ...

    def stamp(self, file: str) -> str:
        """Changes when the file changes; cheap."""
        ...

    def fetch(self, shard: Shard) -> tuple[Shard, Path]:
        """A shard's file on this machine, and the shard with its size as it is.

        Raises:
            UserError: It is not there, or not what is known of it.
        """
        ...


def open_storage(root: str, cache_gib: float | None) -> Storage:
    """The storage at a root; see `DataSettings.root` and `DataSettings.cache_gib`.

    Raises:
        UserError: The folder is missing, or a library for this kind of address is.
    """
    if is_remote(root):
        from g2sd_deploy.data.sources.remote import RemoteStorage

        return RemoteStorage(root, cache_gib)
    return LocalStorage(expand(root))


class LocalStorage:
    """Shards in a folder."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"data.root {folder}: there is no such folder; set data.root to the folder of the shards")
        self.root = str(folder)
        self.title = f"the folder {folder.resolve().name}"
        self._folder = folder

    def where(self) -> dict[str, Any]:
        return {"root": str(self._folder.resolve()), "cache_gib": None}

    def text(self, name: str) -> str | None:
        file = self._folder / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def listed(self, split: str) -> list[str]:
        found = sorted({*self._folder.glob(f"{split}-*.tar"), *self._folder.glob(f"{split}/*.tar")})
        if not found:
            raise UserError(
                f"{self._folder}: there are no shards {split}-*.tar or {split}/*.tar; set data.train_split and data.test_split, "
                "also to a pattern such as imagenet-train-{000000..000146}.tar"
            )
        return [file.relative_to(self._folder).as_posix() for file in found]

    def stamp(self, file: str) -> str:
        stat = self._stat(file)
        return f"{stat[0]} {stat[1]}"

    def fetch(self, shard: Shard) -> tuple[Shard, Path]:
        size, _ = self._stat(shard.file)
        if shard.bytes not in (None, size):
            raise UserError(
                f"{self._folder / shard.file}: has {size} bytes, but {shard.bytes} are recorded of it (in manifest.json, or when it was "
                "indexed); fetch or prepare it again, then run the same command again"
            )
        return replace(shard, bytes=size), self._folder / shard.file

    def _stat(self, file: str) -> tuple[int, int]:
        try:
            stat = (self._folder / file).stat()
        except OSError as error:
            raise UserError(f"{self._folder / file}: cannot be read ({error.strerror}); put the shard there, or set data.root") from None
        return stat.st_size, stat.st_mtime_ns


def expand_braces(pattern: str) -> list[str]:
    """Names that a shell's brace pattern stands for: `{000..146}` counts with leading zeros, `{a,b}` lists.

    Raises:
        UserError: A range runs backwards or over more than a million shards.
    """
    if found := _RANGE.search(pattern):
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < _MAX_SHARDS:
            raise UserError(f"{pattern}: {found[0]} is no range of 1 to {_MAX_SHARDS} shards; correct it")
        choices = [f"{i:0{len(found[1])}d}" for i in range(first, last + 1)]
    elif found := _CHOICE.search(pattern):
        choices = found[1].split(",")
    else:
        return [pattern]
    return [name for choice in choices for name in expand_braces(pattern[: found.start()] + choice + pattern[found.end() :])]
