"""Unpack an archive that may be anything: only plain files, only where they belong, and no more of them than there should be.

Every member is looked at before anything of it is written. One that no honest archive of images has (a link, a device, a path that leaves
the folder) refuses the whole archive; a plain file that has no place in the set is left out and told of. Files are created anew with the
permissions of this process: names, owners, times and modes of the archive mean nothing here.
"""

import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import DISK_FULL, Tick

Place = Callable[[PurePosixPath], PurePosixPath | None]
"""Where a member belongs, relative to the set's folder; None where it has no place there."""

_CHUNK = 1 << 20
_MOST_NAMED = 20
_ENCRYPTED = 0x1
_ZIP_MARK = b"PK\x03\x04"
_DRIVE = re.compile(r"^[A-Za-z]:")

# What the readers of archives raise where one is cut off, and where it is damaged in another way.
_CUT_OFF = (EOFError, tarfile.ReadError)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Limits:
    """What an archive can honestly hold.

    Attributes:
        members: Entries, folders included.
        bytes: Bytes of all files together.
    """

    members: int
    bytes: int


@dataclass
class Unpacked:
    """What came out of an archive.

    Attributes:
        num_files: Files that were written.
        num_left_out: Files that have no place in the set.
        left_out: Names of the first of them.
    """

    num_files: int = 0
    num_left_out: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Member:
    """One entry, whatever the archive.

    Attributes:
        name: As the archive spells it.
        kind: What it is, for people; empty for a plain file, "folder" for a folder.
        size: Bytes that it announces.
        open: Opens its content.
    """

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes]]


def by_tail(groups: Collection[str], class_names: Collection[str]) -> Place:
    """Place images by the end of their path, GROUP/CLASS/IMAGE: what an archive calls its own top folder does not matter.

    Args:
        groups: Folders of class folders; "." for the set's own folder.
        class_names: Class folders.
    """
    classes, known = frozenset(class_names), frozenset(groups)
    depth = {0 if group == "." else len(PurePosixPath(group).parts) for group in groups}
    assert len(depth) == 1
    (length,) = depth

    def place(path: PurePosixPath) -> PurePosixPath | None:
        parts = path.parts[-length - 2 :]
        fits = len(parts) == length + 2 and parts[-2] in classes and ("/".join(parts[:length]) or ".") in known
        return PurePosixPath(*parts) if fits and _is_image(path) else None

    return place


def by_label(class_of: Mapping[str, str], group: str) -> Place:
    """Place the images of a flat archive by a list of labels.

    Args:
        class_of: Name of an image without its suffix, to its class folder.
        group: Folder of the class folders.
    """

    def place(path: PurePosixPath) -> PurePosixPath | None:
        name = class_of.get(path.stem)
        return PurePosixPath(group, name, path.name) if name is not None and _is_image(path) else None

    return place


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def unpack(archive: Path, folder: Path, place: Place, limits: Limits, *, tick: Tick) -> Unpacked:
    """Write the files of a tar (compressed or not) or a zip into an empty folder.

    Args:
        archive: The file.
        folder: New folder to write into.
        place: Where each file belongs.
        limits: What the archive can honestly hold.
        tick: Told how many bytes are written, and the bytes of the archive.

    Raises:
        UserError: The archive is cut off, damaged, no archive, or holds what it should not; or the folder cannot be written.
    """
    unpacked, done, num = Unpacked(), 0, 0
    total = archive.stat().st_size
    made: set[PurePosixPath] = set()
    with closing(_members(archive)) as members:
        for member in members:
            num += 1
            if num > limits.members:
                raise UserError(f"{archive}: holds more than the {limits.members:,} entries that the set can explain; it was not unpacked")
            path = _checked_path(member, archive)
            if member.kind == "folder":
                continue
            target = place(path)
            if target is None:
                _leave_out(unpacked, member.name)
                continue
            done += member.size
            if done > limits.bytes:
                raise UserError(f"{archive}: unpacks to more than the {limits.bytes:,} bytes that the set can explain; it was not unpacked")
            if target.parent not in made:
                with _writing(folder):
                    (folder / target.parent).mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            _write(member, folder / target, archive)
            unpacked.num_files += 1
            tick(min(done, total), total)
    return unpacked


def _leave_out(unpacked: Unpacked, name: str) -> None:
    unpacked.num_left_out += 1
    if len(unpacked.left_out) < _MOST_NAMED:
        unpacked.left_out.append(name)


def read_file(archive: Path, name: str, *, most_bytes: int) -> bytes:
    """Content of the plain file of an archive whose path ends in a name.

    Args:
        archive: A tar or a zip.
        name: End of the file's path, with `/`.
        most_bytes: A larger file is refused.

    Raises:
        UserError: There is none, it is too large, or the archive is damaged.
    """
    wanted = PurePosixPath(name).parts
    with closing(_members(archive)) as members:
        for member in members:
            if not member.kind and PurePosixPath(member.name).parts[-len(wanted) :] == wanted:
                if member.size > most_bytes:
                    raise UserError(f"{archive}: its {member.name} has {member.size:,} bytes, more than it can honestly have")
                with _reading(archive), member.open() as file:
                    return file.read()
    raise UserError(f"{archive}: holds no {name}; it is another archive")


def _checked_path(member: _Member, archive: Path) -> PurePosixPath:
    """The path of a member that is a plain file or a folder and stays inside; the whole archive is refused where it is neither."""
    name = member.name
    path = PurePosixPath(name)
    if member.kind not in ("", "folder"):
        raise UserError(f"{archive}: its member {name} is {member.kind}, which no set of images needs; it was not unpacked")
    if path.is_absolute() or "\\" in name or _DRIVE.match(name) or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive}: its member {name} leads out of the folder; it was not unpacked")
    return path


def _write(member: _Member, target: Path, archive: Path) -> None:
    """Create one file; nothing that is there already is written over."""
    try:
        with _writing(target):
            file = target.open("xb", buffering=0)  # a buffer's bytes would be refused once more when it is closed
    except FileExistsError:
        raise UserError(f"{archive}: holds {member.name} twice, or under two names that fall together here; it was not unpacked") from None
    with file, _content(member, archive) as content:
        left = member.size
        while left:
            with _reading(archive):
                chunk = content.read(min(_CHUNK, left))
                if not chunk:
                    raise EOFError
            with _writing(target):
                _write_all(file, chunk)
            left -= len(chunk)


def _content(member: _Member, archive: Path) -> IO[bytes]:
    with _reading(archive):
        return member.open()


def _write_all(file: io.RawIOBase, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) or 0 :]


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Say in one line why a file cannot be written."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        full = error.errno in DISK_FULL
        reason = "the disk is full" if full else f"it cannot be written ({error.strerror})"
        raise UserError(
            f"{target}: {reason}; archives that are unpacked are kept, and the same command goes on from there "
            f"{'once there is room' if full else 'once it can be'} (or give --to with a folder on another disk)"
        ) from None


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Say in one line what is wrong with an archive."""
    try:
        yield
    except _CUT_OFF as error:
        text = str(error)
        if isinstance(error, tarfile.ReadError) and "unexpected end" not in text:
            raise UserError(f"{archive}: is no archive, or is damaged ({_first_line(text)}); fetch it again") from None
        raise UserError(f"{archive}: is truncated; fetch it again") from None
    except _DAMAGED as error:
        raise UserError(f"{archive}: is damaged ({_first_line(str(error))}); fetch it again") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror or _first_line(str(error))}); fetch it again") from None


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0]


def _members(archive: Path) -> Generator[_Member]:
    """Every entry, in the order of the archive; nothing is kept of those that are past."""
    with _reading(archive), archive.open("rb") as file:
        is_zip = file.read(len(_ZIP_MARK)) == _ZIP_MARK
    yield from _zip_members(archive) if is_zip else _tar_members(archive)


def _tar_members(archive: Path) -> Iterator[_Member]:
    with _reading(archive):
        tar = tarfile.open(archive, "r:*")  # noqa: SIM115 (its errors are told, those of who takes the members are not)
    with tar:
        while True:
            with _reading(archive):
                info = tar.next()
            if info is None:
                break
            yield _Member(info.name, _tar_kind(info), info.size, lambda info=info: _opened(tar, info))  # type: ignore[misc]
            tar.members.clear()  # type: ignore[attr-defined] # it would remember millions of them
        _check_end(archive, tar)


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(info)
    assert file is not None
    return file


def _check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Refuse what `tarfile` silently takes for the end: an entry that is no entry, or half of one.

    An archive that simply stops after a member passes: some programs write no end, and the images are counted later.
    """
    with _reading(archive):
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        last = tar.fileobj.read(tarfile.BLOCKSIZE)
    if last.strip(tarfile.NUL):
        what = "is truncated" if len(last) < tarfile.BLOCKSIZE else "is damaged (an entry cannot be read)"
        raise UserError(f"{archive}: {what}; fetch it again")


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "folder"
    if info.issym() or info.islnk():
        return f"a link to {info.linkname}"
    if info.issparse():
        return "a sparse file"
    return "" if info.isreg() else "a device or another special file"


def _zip_members(archive: Path) -> Iterator[_Member]:
    with _reading(archive):
        try:
            opened = zipfile.ZipFile(archive)
        except zipfile.BadZipFile:  # its directory is at the end
            raise EOFError from None
    with opened:
        for info in opened.infolist():
            # orig_filename: `filename` is cut at a zero byte
            yield _Member(info.orig_filename, _zip_kind(info), info.file_size, lambda info=info: opened.open(info))  # type: ignore[misc]


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode == stat.S_IFLNK:
        return "a link"
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device or another special file"
    if info.flag_bits & _ENCRYPTED:
        return "encrypted"
    return "folder" if info.is_dir() else ""
