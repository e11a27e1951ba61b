"""Files of a bundle and their digests: which are changed, missing, or not listed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import IntegrityError, UserError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be.

    Attributes:
        sha256: Digest of its content, 64 hexadecimal digits.
        bytes: Its size.
    """

    sha256: str
    bytes: int


def sha256_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def record_of(path: Path) -> FileRecord:
    """Digest and size of a file, read in blocks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return FileRecord(digest.hexdigest(), size)


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the final name, flush, then rename, so that an interruption leaves no half file.

    Raises:
        UserError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            part = Path(folder) / path.name
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give a folder you may write to") from error


def problems_of(folder: Path, files: Mapping[str, FileRecord], *, beside: frozenset[str] = frozenset()) -> dict[str, str]:
    """Everything in which a folder is not the one that was written.

    Args:
        folder: The folder.
        files: What must lie in it, by path relative to the folder, with forward slashes.
        beside: Files that may lie there without being listed; ``__pycache__`` folders always may.

    Returns:
        By relative path, in one line each, why a file is not the one that was listed, or that it is not listed. Empty when all is well.
    """
    found = {name: problem for name, record in files.items() if (problem := _problem_of(folder, name, record))}
    extra = sorted(set(_names_in(folder)) - set(files) - beside)
    return {**found, **dict.fromkeys(extra, "is not listed in the manifest, so nobody tested it; remove it")}


def read_checked(folder: Path, name: str, record: FileRecord, advice: str) -> bytes:
    """The content of a file, compared as it is read, so that what is used is what was verified.

    Raises:
        IntegrityError: It cannot be read, or is not what was recorded.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    if problem := _difference(FileRecord(sha256_of(content), len(content)), record):
        raise IntegrityError(f"{path}: {problem}; {advice}")
    return content


def _problem_of(folder: Path, name: str, record: FileRecord) -> str:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
        return f"{name!r} lies outside the bundle"
    path = folder / relative
    if not path.is_file():
        return "missing"
    try:
        return _difference(record_of(path), record)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _difference(found: FileRecord, wanted: FileRecord) -> str:
    if found.bytes != wanted.bytes:
        return f"holds {found.bytes} bytes, the manifest says {wanted.bytes}"
    if found.sha256 != wanted.sha256:
        return f"was changed (sha256 {found.sha256[:12]}..., the manifest says {wanted.sha256[:12]}...)"
    return ""


def _names_in(folder: Path) -> Iterator[str]:
    """Files below a folder, also those that are links; a link to a folder counts as a file, for nothing below it is followed."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = [name for name in folders if name != "__pycache__" and name not in links]
        for name in [*names, *links]:
            yield Path(parent, name).relative_to(folder).as_posix()
