"""Bring a teacher's file into the cache: verified before it gets its name, safe when two processes do it at once."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.catalog import Teacher
from g2sd_deploy.zoo.download import DISK_FULL, PATIENT, Expected, Policy, Tick, discard_part, download
from g2sd_deploy.zoo.inspection import weight_format
from g2sd_deploy.zoo.lockfile import Locked, read_lock, record
from g2sd_deploy.zoo.places import Places, exclusive

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Pulled:
    """A verified file of the cache.

    Attributes:
        path: Where it lies.
        sha256: Its hash.
        checked: What the hash was compared with, for people: published hash, server, lock file.
        fetched: Whether this call brought it.
    """

    path: Path
    sha256: str
    checked: tuple[str, ...]
    fetched: bool


def cached_path(teacher: Teacher, places: Places) -> Path | None:
    """Where a teacher's file lies or would lie; None where even its name is not published."""
    file = teacher.listed.file
    return None if file is None else places.cache / teacher.name / file


def pull(teacher: Teacher, places: Places, *, tick: Tick, policy: Policy = PATIENT) -> Pulled:
    """The teacher's file, from the cache, the mirror or its address; hashed every time.

    Args:
        teacher: Which one.
        places: Cache, mirror and lock file.
        tick: Told how far a download is.
        policy: Patience.

    Raises:
        UserError: It cannot be had, or is not the file that it should be.
    """
    target = cached_path(teacher, places)
    if target is None:
        raise UserError(_by_hand(teacher))
    with exclusive(target.parent / f".{target.name}.guard"):
        expected = expected_of(teacher, places)
        if target.is_file():
            return _verified(teacher, target, expected, places, fetched=False)
        part = target.with_name(f".{target.name}.part")
        announced = _fetch(teacher, part, expected, places, tick, policy)
        try:
            found = _verified(teacher, part, expected, places, announced=announced, fetched=True)
        except UserError:
            discard_part(part)
            raise
        _give_name(part, target)
        return Pulled(target, found.sha256, found.checked, fetched=True)


def expected_of(teacher: Teacher, places: Places) -> Expected:
    """What is known of a teacher's file: what its authors publish, and what the lock file recorded."""
    listed, locked = teacher.listed, read_lock(places.lock_file).get(teacher.name)
    if locked is None:
        return Expected(listed.bytes, listed.sha256, listed.md5_prefix)
    return Expected(listed.bytes or locked.bytes, listed.sha256 or locked.sha256, listed.md5_prefix)


def check_hashes(path: Path, expected: Expected, *, announced: str | None = None) -> tuple[str, list[str]]:
    """Compare a file with what is known of it.

    Returns:
        Its SHA-256, and what it was compared with, for people.

    Raises:
        ValueError: Another size or hash; the message does not name the file.
    """
    size, checked = path.stat().st_size, []
    if expected.bytes is not None and size != expected.bytes:
        raise ValueError(f"holds {size} bytes instead of {expected.bytes}, so it is cut off or another file")
    sha256 = sha256_of(path)
    for wanted in (expected.sha256, announced):
        if wanted is not None and sha256 != wanted:
            raise ValueError(f"has SHA-256 {sha256[:12]}... instead of {wanted[:12]}..., so it is damaged or another file")
    if announced is not None:
        checked.append("SHA-256 announced by the server")
    if expected.md5_prefix is not None:
        found = _md5_of(path)[: len(expected.md5_prefix)]
        if found != expected.md5_prefix:
            raise ValueError(f"has an MD5 that begins with {found} instead of {expected.md5_prefix}, so it is damaged or another file")
        checked.append("published MD5 prefix")
    return sha256, checked


def _verified(teacher: Teacher, path: Path, expected: Expected, places: Places, *, announced: str | None = None, fetched: bool) -> Pulled:
    """Check a file against all that is known; record what the first pull finds."""
    locked = read_lock(places.lock_file).get(teacher.name)
    try:
        sha256, checked = check_hashes(path, expected, announced=announced)
    except ValueError as error:
        raise UserError(f"{teacher.name}: {'what came' if fetched else path} {error}{_what_to_do(path, places, locked, fetched)}") from None
    if fetched or locked is None:
        weight_format(path)
    if teacher.listed.sha256 is not None:
        checked.append("published SHA-256")
    elif locked is not None:
        checked.append("lock file")
    else:
        assert teacher.listed.file is not None
        source = teacher.listed.url or teacher.listed.page or ""
        record(places.lock_file, teacher.name, Locked(teacher.listed.file, sha256, path.stat().st_size, source))
        checked.append("nothing: recorded at the first pull")
    return Pulled(path, sha256, tuple(checked), fetched)


def _what_to_do(path: Path, places: Places, locked: Locked | None, fetched: bool) -> str:
    lock = f", or, if the authors replaced it, remove its entry from {places.lock_file}" if locked is not None else ""
    return f"; nothing was kept, pull it again{lock}" if fetched else f"; remove {path} and pull it again{lock}"


def _fetch(teacher: Teacher, part: Path, expected: Expected, places: Places, tick: Tick, policy: Policy) -> str | None:
    """Fill the part file from the mirror or the address; returns the hash that the server announces."""
    relative = f"{teacher.name}/{teacher.listed.file}"
    if places.mirror_folder is not None:
        _copy(places.mirror_folder / relative, part, tick)
        return None
    if places.offline:
        raise UserError(
            f"{teacher.name}: is not in the cache ({part.parent}), and G2SD_OFFLINE forbids the network; "
            "pull it where there is one and copy the cache, or set G2SD_MIRROR to a folder that has it"
        )
    url = teacher.listed.url if places.mirror is None else f"{places.mirror.rstrip('/')}/{relative}"
    if url is None:
        raise UserError(_by_hand(teacher))
    return download(url, part, expected, tick=tick, policy=policy)


def _by_hand(teacher: Teacher) -> str:
    file = teacher.listed.file or "FILE"
    return (
        f"{teacher.name}: its authors offer it on a web page only; fetch {teacher.listed.file or 'it'} by hand from {teacher.listed.page} "
        f"and take it in with `g2sd teacher import {file} --out {teacher.name}.safetensors`"
    )


def _copy(source: Path, part: Path, tick: Tick) -> None:
    """Copy from a mirror that is a folder."""
    if not source.is_file():
        raise UserError(f"{source}: there is no such file; a mirror is laid out as the cache is, MIRROR/NAME/FILE (set G2SD_MIRROR)")
    total, done = source.stat().st_size, 0
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                done += len(chunk)
                tick(done, total)
    except OSError as error:
        discard_part(part)
        reason = "the disk is full" if error.errno in DISK_FULL else str(error.strerror)
        raise UserError(f"{source}: cannot be copied to {part.parent} ({reason})") from None


def _give_name(part: Path, target: Path) -> None:
    """Sync the part file and rename it, so that the name stands for a whole and verified file even after a power cut."""
    for path in (part, part.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            if path == part:
                part.replace(target)
        finally:
            os.close(handle)
    discard_part(part)


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
