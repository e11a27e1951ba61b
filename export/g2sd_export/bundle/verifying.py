"""Is this folder still the bundle that was written? Every deviation is named, not the first one alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..edge.errors import IntegrityError, UserError
from ..edge.files import FileRecord, problems_of
from ..edge.manifest import MANIFEST, MANIFEST_DIGEST, SIGNATURE, UNLISTED, open_bundle, read_manifest, sha256_of
from .schema import manifest_problems

Problem = Literal["changed", "missing", "extra", "wrong"]


@dataclass(frozen=True)
class Deviation:
    """A file that is not what it has to be.

    Attributes:
        file: Path relative to the bundle.
        problem: "changed", "missing", "extra" (not listed) or "wrong" (a manifest that contradicts itself).
        detail: In words.
    """

    file: str
    problem: Problem
    detail: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Verified:
    """What became of a check.

    Attributes:
        digest: SHA-256 of the manifest; empty where there is none.
        num_files: Files that the manifest lists.
        deviations: What is wrong; empty when nothing is.
        unchecked: Files in ``__pycache__`` folders, which Python writes by itself; no digest of them is known.
        signed: Whether a signature lies in the folder; whether it holds is another question.
    """

    digest: str
    num_files: int
    deviations: tuple[Deviation, ...]
    unchecked: tuple[str, ...] = ()
    signed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        deviations = [deviation.to_dict() for deviation in self.deviations]
        return {**asdict(self), "deviations": deviations, "unchecked": list(self.unchecked)}


def verify(folder: Path) -> Verified:
    """Compare every file with the manifest, and the manifest with its digest, its schema and itself.

    Args:
        folder: The bundle.

    Returns:
        Every deviation. A manifest that cannot be read is one of them, and then the files cannot be judged.

    Raises:
        UserError: There is no folder, it holds no manifest, or one of another format.
    """
    if not (folder / MANIFEST).is_file() and not (folder / MANIFEST_DIGEST).is_file():
        raise UserError(f"{folder}: holds neither {MANIFEST} nor {MANIFEST_DIGEST}, so it is no bundle; give the folder of one")
    found = list(_manifest_deviations(folder))
    values = _values(folder)
    files = _listed(values) or {}
    doubt = "; but so says a manifest that is not the one that was written" if found else ""
    if files:
        found += [_deviation(name, detail, doubt) for name, detail in problems_of(folder, files, beside=UNLISTED).items()]
    if not found:
        found = [Deviation(MANIFEST, "wrong", problem) for problem in manifest_problems(values)] or _reader_says(folder)
    digest = sha256_of((folder / MANIFEST).read_bytes()) if (folder / MANIFEST).is_file() else ""
    return Verified(digest, len(files), tuple(found), tuple(_unchecked(folder)), (folder / SIGNATURE).is_file())


def _manifest_deviations(folder: Path) -> Iterator[Deviation]:
    for name in (MANIFEST, MANIFEST_DIGEST):
        if not (folder / name).is_file():
            yield Deviation(name, "missing", "missing")
            return
    digest = sha256_of((folder / MANIFEST).read_bytes())
    if (folder / MANIFEST_DIGEST).read_bytes() != f"{digest}  {MANIFEST}\n".encode():
        yield Deviation(MANIFEST, "changed", f"does not match {MANIFEST_DIGEST}, so one of the two was changed")
        return
    try:
        read_manifest(folder)
    except IntegrityError as error:
        yield Deviation(MANIFEST, "wrong", str(error).removeprefix(f"{folder / MANIFEST}: "))


def _values(folder: Path) -> object:
    try:
        return json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def _listed(values: object) -> dict[str, FileRecord]:
    """The records that can be read, also of a manifest that was changed."""
    files = values.get("files") if isinstance(values, dict) else None
    found = files.items() if isinstance(files, dict) else ()
    return {name: FileRecord(str(record.get("sha256")), record.get("bytes", -1)) for name, record in found if isinstance(record, dict)}


def _deviation(name: str, detail: str, doubt: str) -> Deviation:
    starts: tuple[tuple[str, Problem], ...] = (("missing", "missing"), ("is not listed", "extra"), (repr(name), "wrong"))
    for start, problem in starts:
        if detail.startswith(start):
            return Deviation(name, problem, detail + doubt)
    return Deviation(name, "changed", detail + doubt)


def _reader_says(folder: Path) -> list[Deviation]:
    """What the code that runs on the device has against it, where the looks above have nothing."""
    try:
        open_bundle(folder)
    except UserError as error:
        return [Deviation(MANIFEST, "wrong", str(error))]
    return []


def _unchecked(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("__pycache__/*")):
        yield path.relative_to(folder).as_posix()
