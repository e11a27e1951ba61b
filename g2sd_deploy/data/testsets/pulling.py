"""Bring a test set here: archives fetched and verified one after the other, unpacked, counted, and only then given the set's name.

DATA/archives/NAME/FILE    an archive, once its size and hash are right; removed when it is unpacked unless it is to be kept
DATA/.NAME.part/           what is on the way: `content`, and `unpacked.json`, which lists the archives that are in it
DATA/NAME/                 the set, whole
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from g2sd_deploy.artifact import sync, write_text_whole
from g2sd_deploy.data.testsets.catalogue import Archive, ListedSet, data_folder, find_set
from g2sd_deploy.data.testsets.checking import check
from g2sd_deploy.data.testsets.devkit import labels_of_devkit
from g2sd_deploy.data.testsets.unpacking import Limits, Place, Unpacked, by_label, by_tail, unpack
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import DISK_FULL, PATIENT, Expected, Policy, Tick, discard_part, download
from g2sd_deploy.zoo.inspection import is_web_page
from g2sd_deploy.zoo.places import Places, exclusive

Show = Callable[[str], AbstractContextManager[Tick]]
"""Shows one piece of work: called with its title, gives what is told how far it is."""

_CHUNK = 1 << 20
_GIB = 1 << 30
_HEAD = 512


@dataclass(frozen=True)
class Wanted:
    """How a set is to be had.

    Attributes:
        data: Folder that takes the set's folder; the cache's by default.
        given: Archives that are here, by the file name of the catalogue; they are read where they lie.
        keep: Keep the archives that were fetched.
    """

    data: Path | None = None
    given: Mapping[str, Path] = field(default_factory=dict)
    keep: bool = False


@dataclass(frozen=True)
class Pulled:
    """A set that is here.

    Attributes:
        path: Its folder.
        fetched: Whether this call brought it.
        num: Images of each folder of class folders, where this call counted them.
        num_left_out: Files of the archives that have no place in the set.
        left_out: Names of the first of them.
    """

    path: Path
    fetched: bool
    num: Mapping[str, int] = field(default_factory=dict)
    num_left_out: int = 0
    left_out: tuple[str, ...] = ()


def assign(names: Sequence[str], files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Which archive of which set each given file is: by its name, else by its size.

    Args:
        names: Sets.
        files: Files that a person has.

    Returns:
        Own name of each set, to its archives' file names, to the files.

    Raises:
        UserError: No such set or file, a file that is none of their archives, or two for the same.
    """
    sets = dict(find_set(name) for name in names)
    assigned: dict[str, dict[str, Path]] = {name: {} for name in sets}
    archives = [(name, archive) for name, listed in sets.items() for archive in listed.archives]
    for file in files:
        if not file.is_file():
            raise UserError(f"--from {file}: there is no such file")
        size = file.stat().st_size
        fitting = [one for one in archives if one[1].file == file.name] or [one for one in archives if one[1].bytes == size]
        if not fitting:
            wanted = ", ".join(archive.file for _, archive in archives)
            raise UserError(f"--from {file}: is none of {wanted}, by name or by size; give these files as they were published")
        name, archive = fitting[0]
        if archive.file in assigned[name]:
            raise UserError(f"--from {file}: {archive.file} is given already ({assigned[name][archive.file]}); give it once")
        assigned[name][archive.file] = file
    return assigned


def pull(name: str, places: Places, wanted: Wanted, *, show: Show, policy: Policy = PATIENT) -> Pulled:
    """The set, from the cache, given files, the mirror or its authors; killed at any moment, the next call goes on.

    Args:
        name: Which one.
        places: Cache, mirror, and whether the network may be used.
        wanted: Where to, and from what.
        show: Shows downloads and the like.
        policy: Patience.

    Raises:
        UserError: It cannot be had, or is not what it should be.
    """
    own, listed = find_set(name)
    data = _writable(wanted.data) if wanted.data is not None else data_folder(places)
    home = data / own
    with exclusive(data / f".{own}.guard"):
        if home.is_dir() and any(home.iterdir()):
            return Pulled(home, fetched=False)
        try:
            return _Pull(own, listed, data, places, wanted).run(show, policy)
        except OSError as error:
            raise UserError(_not_written(error, data)) from None


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--to {folder}: cannot be written ({error.strerror}); give a folder you may write to") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"--to {folder}: cannot be written; give a folder you may write to")
    return folder


def _not_written(error: OSError, data: Path) -> str:
    reason = "the disk is full" if error.errno in DISK_FULL else str(error.strerror)
    return f"{error.filename or data}: {reason}; what came is kept, and the same command goes on from there once that is corrected"


class _Pull:
    """One set on its way."""

    def __init__(self, name: str, listed: ListedSet, data: Path, places: Places, wanted: Wanted) -> None:
        self._name = name
        self._listed = listed
        self._home = data / name
        self._archives = data / "archives" / name
        self._part = data / f".{name}.part"
        self._content = self._part / "content"
        self._record = self._part / "unpacked.json"
        self._places = places
        self._wanted = wanted
        self._left_out = Unpacked()

    def run(self, show: Show, policy: Policy) -> Pulled:
        """Take every archive that is not in yet, count, and give the set its name."""
        left = [archive for archive in self._listed.archives if archive.file not in self._taken()]
        left = left if any(archive.use != "labels" for archive in left) else []  # labels are read for images only
        self._check_reachable(left)
        self._archives.mkdir(parents=True, exist_ok=True)
        self._content.mkdir(parents=True, exist_ok=True)
        self._check_space(left)
        class_of: dict[str, str] = {}
        for archive in sorted(left, key=lambda archive: archive.use != "labels"):
            path = self._bring(archive, show, policy)
            if archive.use == "labels":
                class_of = labels_of_devkit(path, self._listed)
            else:
                self._take(archive, path, class_of, show)
                self._forget(path)
        num = self._counted(show)
        self._give_name()
        return Pulled(self._home, True, num, self._left_out.num_left_out, tuple(self._left_out.left_out))

    def _taken(self) -> dict[str, str]:
        """Archives that are unpacked, with the hashes that they had."""
        with suppress(OSError, ValueError):
            found = json.loads(self._record.read_text(encoding="utf-8"))
            hashes = {archive.file: archive.sha256 or archive.md5 for archive in self._listed.archives}
            return {file: value for file, value in found.items() if hashes.get(file) == value}
        return {}

    def _here(self, archive: Archive) -> Path | None:
        """A file that need not be fetched: given, pulled before, or in a mirror that is a folder."""
        given = self._wanted.given.get(archive.file)
        if given is not None:
            return given
        candidates = [self._archives / archive.file]
        if self._places.mirror_folder is not None:
            candidates.append(self._places.mirror_folder / self._relative(archive))
        return next((path for path in candidates if path.is_file()), None)

    def _relative(self, archive: Archive) -> str:
        return f"data/archives/{self._name}/{archive.file}"

    def _check_reachable(self, left: Sequence[Archive]) -> None:
        """Refuse what cannot be had before anything is fetched."""
        missing = [archive for archive in left if self._here(archive) is None]
        if not missing:
            return
        where = self._places
        if where.mirror_folder is not None:
            lacking = where.mirror_folder / self._relative(missing[0])
            raise UserError(f"{lacking}: there is no such file; a mirror holds MIRROR/data/archives/NAME/FILE (set G2SD_MIRROR)")
        if where.mirror is None and self._listed.terms is not None:
            raise UserError(self._by_hand(missing))
        if where.offline:
            files = " ".join(f"--from {archive.file}" for archive in missing)
            raise UserError(
                f"{self._name}: is not here ({self._home}), and G2SD_OFFLINE forbids the network; fetch its archives where there is one "
                f"and give them: g2sd data pull {self._name} {files}"
            )

    def _by_hand(self, missing: Sequence[Archive]) -> str:
        files = " and ".join(f"{archive.file} ({_known_of(archive)}) from {archive.url}" for archive in missing)
        command = " ".join(f"--from {archive.file}" for archive in self._listed.archives)
        return f"{self._name}: {self._listed.terms}. Log in there, fetch {files}, then run: g2sd data pull {self._name} {command}"

    def _check_space(self, left: Sequence[Archive]) -> None:
        """Refuse what cannot fit: the images take what their archives take, and an archive lies beside them until it is unpacked."""
        to_fetch = [(archive.bytes or 0) - _size(self._part_of(archive)) for archive in left if self._here(archive) is None]
        to_unpack = sum(archive.bytes or 0 for archive in left if archive.use != "labels")
        needed = to_unpack + (sum(to_fetch) if self._wanted.keep else max(to_fetch, default=0))
        free = shutil.disk_usage(self._part).free
        if needed > free:
            raise UserError(
                f"{self._home.parent}: {self._name} needs {needed / _GIB:.1f} GiB there and {free / _GIB:.1f} GiB are free; "
                "make room, or give --to with a folder on another disk"
            )

    def _part_of(self, archive: Archive) -> Path:
        return self._archives / f".{archive.file}.part"

    def _bring(self, archive: Archive, show: Show, policy: Policy) -> Path:
        """The archive as a verified file."""
        here = self._here(archive)
        if here is not None:
            remedy = f"fetch it again from {self._listed.page}" if here.parent != self._archives else f"remove {here} and pull it again"
            with show(f"verify {archive.file}") as tick:
                _verify(here, archive, f"{here}: ", remedy, tick)
            return here
        part, target = self._part_of(archive), self._archives / archive.file
        mirror = self._places.mirror
        url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{self._relative(archive)}"
        with show(f"fetch {archive.file}") as tick:
            download(url, part, Expected(archive.bytes, archive.sha256, archive.md5), tick=tick, policy=policy)
        try:
            with show(f"verify {archive.file}") as tick:
                _verify(part, archive, f"{self._name}: what came as {archive.file} ", "nothing of it was kept, pull it again", tick)
        except UserError:
            discard_part(part)
            raise
        sync(part)
        part.replace(target)
        sync(target.parent)
        discard_part(part)
        return target

    def _take(self, archive: Archive, path: Path, class_of: Mapping[str, str], show: Show) -> None:
        """Put what an archive holds into the content, whole or not at all."""
        fresh = self._part / "unpacking"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        if archive.use == "file":
            shutil.copyfile(path, fresh / archive.file)
        else:
            with show(f"unpack {archive.file}") as tick:
                found = unpack(path, fresh, _place(self._listed, archive, class_of), _limits(self._listed, archive, path), tick=tick)
            self._left_out.num_left_out += found.num_left_out
            self._left_out.left_out += found.left_out
        for one in sorted(fresh.iterdir()):
            there = self._content / one.name
            if there.is_dir():  # of the same archive: the last call was killed before it could say that it is unpacked
                shutil.rmtree(there)
            one.replace(there)
        hashes = self._taken() | {archive.file: archive.sha256 or archive.md5}
        write_text_whole(self._record, json.dumps(hashes))

    def _forget(self, path: Path) -> None:
        """Remove an archive that this program fetched, once it is unpacked."""
        if not self._wanted.keep and path.parent == self._archives:
            path.unlink()

    def _counted(self, show: Show) -> dict[str, int]:
        """Images of each folder; refuses a set that is not what the catalogue says."""
        with show("count the images"):
            checked = check(self._listed, self._content)
        errors = [finding for finding in checked.findings if finding.severity == "error"]
        if errors:
            more = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
            detail = f": {errors[0].detail}" if errors[0].detail else ""
            raise UserError(
                f"{self._name}: what was unpacked is not what the catalogue says: {errors[0].name}: {errors[0].problem}{detail}{more}; "
                f"look with `g2sd data check {self._name} {self._content}`, or remove {self._part} and pull it again"
            )
        return checked.num

    def _give_name(self) -> None:
        """Rename the content, so that the name stands for a whole set even after a power cut."""
        if hasattr(os, "sync"):
            os.sync()  # one call; a file at a time would take hours for millions of them
        if self._home.is_dir():
            self._home.rmdir()  # it is empty
        self._content.replace(self._home)
        sync(self._home.parent)
        shutil.rmtree(self._part, ignore_errors=True)
        if not self._wanted.keep:
            self._clear_archives()

    def _clear_archives(self) -> None:
        """Remove what this program fetched of archives that were only read, and the folders if they are empty now."""
        for archive in self._listed.archives:
            (self._archives / archive.file).unlink(missing_ok=True)
        with suppress(OSError):
            self._archives.rmdir()
            self._archives.parent.rmdir()


def _place(listed: ListedSet, archive: Archive, class_of: Mapping[str, str]) -> Place:
    if class_of:
        (group,) = listed.groups
        return by_label(class_of, group)
    return by_tail(listed.groups_of(archive), listed.class_names)


def _limits(listed: ListedSet, archive: Archive, path: Path) -> Limits:
    """Twice what an honest archive holds, and some: images do not shrink when they are packed."""
    groups = listed.groups_of(archive)
    entries = sum(images.most + len(listed.class_names) + 1 for images in groups.values())
    return Limits(2 * entries + 1000, 2 * path.stat().st_size + _CHUNK)


def _verify(path: Path, archive: Archive, subject: str, remedy: str, tick: Tick) -> None:
    """Compare a file with the catalogue: its size, and the strongest hash that is published.

    Raises:
        UserError: It is another file; the message starts with `subject` and ends with `remedy`.
    """
    size = _size(path)
    if archive.bytes is not None and size != archive.bytes:
        with path.open("rb") as file:
            page = is_web_page(file.read(_HEAD))
        guess = "is a web page (a login or an error) that was saved" if page else "is truncated or another file"
        raise UserError(f"{subject}holds {size} bytes instead of {archive.bytes}, so it {guess}; {remedy}")
    kind, wanted = ("sha256", archive.sha256) if archive.sha256 is not None else ("md5", archive.md5)
    assert wanted is not None
    digest, done = hashlib.new(kind, usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            tick(done, size)
    if (found := digest.hexdigest()) != wanted:
        title = {"sha256": "SHA-256", "md5": "MD5"}[kind]
        raise UserError(f"{subject}has {title} {found[:12]}... instead of {wanted[:12]}..., so it is damaged or another file; {remedy}")


def _known_of(archive: Archive) -> str:
    size = f"{archive.bytes / _GIB:.1f} GiB, " if archive.bytes is not None else ""
    return f"{size}{f'MD5 {archive.md5}' if archive.md5 is not None else f'SHA-256 {archive.sha256}'}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
