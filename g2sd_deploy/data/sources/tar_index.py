"""Where the images of a tar shard lie in it, and their labels: the layout that webdataset writes.

Members that share a name up to the first dot of their last part belong together: `00017.jpg` and `00017.cls`.
Source: https://github.com/webdataset/webdataset, webdataset/tariterators.py (base_plus_ext, group_by_keys).
Differs: members of one key need an image and a label; a key that comes twice, a cut or damaged tar are errors, not warnings.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES
from g2sd_deploy.errors import UserError

_LABELS = (".cls", ".json")
_SAMPLE = IMAGE_SUFFIXES | {".cls"}  # a key with neither is none of a sample: a README.md, a list.json
_BLOCK = 512
_END_BLOCKS = b"\0" * 2 * _BLOCK


@dataclass(frozen=True)
class TarIndex:
    """Images of one shard in their order: member's name, first byte and length in the tar, label."""

    members: list[str]
    offsets: Int64[np.ndarray, "num"]
    sizes: Int64[np.ndarray, "num"]
    labels: Int64[np.ndarray, "num"]


def index_tar(path: Path, shown: str) -> TarIndex:
    """Index one uncompressed tar.

    Args:
        path: Where the tar is.
        shown: How messages name it.

    Raises:
        UserError: It is no tar, compressed, cut off or damaged, or an image and its label do not come in pairs.
    """
    try:
        with path.open("rb") as file:
            groups = _groups(list(_members(file, path.stat().st_size, shown)), shown)
            rows = [_row(key, group, file, shown) for key, group in groups.items() if not _SAMPLE.isdisjoint(group)]
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror or error}); correct it and run the same command again") from None
    numbers = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 3)
    return TarIndex([row[0] for row in rows], *(np.ascontiguousarray(column) for column in numbers.T))


def _members(file: IO[bytes], size: int, shown: str) -> Iterator[tarfile.TarInfo]:
    """Members of a whole tar; tarfile takes a damaged header for the end and does not look whether the last member is all there."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                end = member.offset_data + (0 if not member.isreg() else -(-member.size // _BLOCK) * _BLOCK)
                if end > size:
                    _refuse(shown, member.name, f"the tar is cut off in it, at {size} bytes; fetch or write the shard again")
                if not member.isdir():
                    yield member
    except tarfile.TarError as error:
        raise UserError(f"{shown}: is no uncompressed tar or a damaged one ({error}); fetch or write the shard again") from None
    file.seek(end)
    if file.read(2 * _BLOCK) != _END_BLOCKS:
        raise UserError(f"{shown}: the tar is damaged or cut off behind byte {end}; fetch or write the shard again")


def _groups(members: list[tarfile.TarInfo], shown: str) -> dict[str, dict[str, tarfile.TarInfo]]:
    """Members by key, then by suffix."""
    groups: dict[str, dict[str, tarfile.TarInfo]] = {}
    last = None
    for member in members:
        folder, base = PurePosixPath(member.name).parent, PurePosixPath(member.name).name
        stem, dot, suffix = base.partition(".")
        if not dot or not stem:
            continue  # as webdataset: a README, a hidden file
        key, suffix = str(folder / stem), f".{suffix.lower()}"
        if suffix in groups.get(key, ()) or (key in groups and key != last):
            _refuse(shown, member.name, f"the key {key} comes twice; give each image a key of its own")
        groups.setdefault(key, {})[suffix] = member
        last = key
    return groups


def _row(key: str, group: dict[str, tarfile.TarInfo], file: IO[bytes], shown: str) -> tuple[str, int, int, int]:
    """Name, offset and size of the image of a key, and its label."""
    images = [member for suffix, member in group.items() if suffix in IMAGE_SUFFIXES]
    labels = [group[suffix] for suffix in _LABELS if suffix in group]
    if len(images) != 1:
        found = ", ".join(member.name for member in images) or "none"
        _refuse(shown, next(iter(group.values())).name, f"wanted one image with the key {key}, found {found}")
    if not labels:
        _refuse(shown, images[0].name, f"there is no {key}.cls (or .json with a label) beside the image")
    if not images[0].isreg() or not labels[0].isreg():
        _refuse(shown, images[0].name, "is a link, or its label is; store the files themselves")
    return images[0].name, images[0].offset_data, images[0].size, _label(labels[0], file, shown)


def _label(member: tarfile.TarInfo, file: IO[bytes], shown: str) -> int:
    file.seek(member.offset_data)
    content = file.read(member.size)
    try:
        label = json.loads(content)["label"] if member.name.lower().endswith(".json") else int(content.decode("ascii"))
    except (ValueError, KeyError, TypeError):
        label = None
    if type(label) is not int or label < 0:
        wanted = 'a JSON object with "label"' if member.name.lower().endswith(".json") else "a whole number"
        _refuse(shown, member.name, f"holds {content[:40]!r}; wanted {wanted}, counted from 0")
    return label


def _refuse(shown: str, member: str, reason: str) -> NoReturn:
    raise UserError(f"{shown}: member {member}: {reason}")
