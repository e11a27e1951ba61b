"""Fetch one file over HTTP: resumed after a cut, bounded in every direction, never stitched from two versions.

What is fetched lies in a part file that no reader takes for the real one; whoever calls verifies it and gives it its name.
"""

import errno
import io
import json
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from g2sd_deploy import __version__
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.inspection import is_web_page

if TYPE_CHECKING:
    import httpx2

Tick = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes wanted (None while unknown)."""

_PROGRESS = 1 << 20
_TRANSIENT = frozenset({408, 425, 429})
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MIB = 1 << 20


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched; None for what is not."""

    bytes: int | None = None
    sha256: str | None = None
    md5_prefix: str | None = None

    @property
    def has_hash(self) -> bool:
        """Whether a wrongly stitched file would be noticed."""
        return self.sha256 is not None or self.md5_prefix is not None


@dataclass(frozen=True)
class Policy:
    """How patient the downloader is.

    Attributes:
        connect_s: Longest wait for a connection.
        stall_s: Longest time without a byte.
        attempts: Attempts in a row that bring less than one MiB of new bytes before it gives up.
        backoff_s: Wait after the first failure; doubled after each further one.
        longest_wait_s: Longest wait between two attempts, also where the server asks for more.
        mirrored: Whether G2SD_MIRROR decides where files come from, so that messages may name it.
        sleep: How to wait.
    """

    connect_s: float = 15.0
    stall_s: float = 30.0
    attempts: int = 6
    backoff_s: float = 1.0
    longest_wait_s: float = 60.0
    mirrored: bool = True
    sleep: Callable[[float], None] = time.sleep


PATIENT = Policy()


class Refused(UserError):  # noqa: N818 (the server refused)
    """The server has not got the file or does not give it; `status` is its answer."""

    def __init__(self, message: str, status: int = 0) -> None:  # with one argument, as pickle makes it
        super().__init__(message)
        self.status = status


class _Again(Exception):  # noqa: N818 (a reason to try again)
    """This attempt did not finish; another may."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class _Notes:
    """What the server said of the file whose first bytes are in the part file."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None
    announced: str | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may carry: a strong ETag, else a date."""
        return self.etag or self.last_modified


def download(url: str, part: Path, expected: Expected, *, tick: Tick, policy: Policy = PATIENT) -> str | None:
    """Fetch `url` into `part`, going on where an earlier attempt or an earlier process stopped.

    Args:
        url: Address.
        part: File to fill; `part` with `.json` behind it holds what is known of it.
        expected: What is known of the file. Its hash is not compared here; it only allows to go on without a validator of the server.
        tick: Told how far it is.
        policy: Patience.

    Returns:
        The SHA-256 that the server announces for the file, where it does (the Hugging Face hub).

    Raises:
        UserError: The address is wrong, the server refuses, sends a web page or another size, stays silent, or the disk is full.
    """
    import httpx2

    timeout = httpx2.Timeout(policy.stall_s, connect=policy.connect_s)
    transfer = _Transfer(url, part, expected, tick, policy.mirrored)
    failures, best = 0, transfer.size()
    with httpx2.Client(timeout=timeout, follow_redirects=True, headers={"User-Agent": f"g2sd-deploy/{__version__}"}) as client:
        while True:
            try:
                return transfer.attempt(client)
            except _Again as again:
                if transfer.size() - best >= _PROGRESS:
                    failures, best = 0, transfer.size()
                failures += 1
                if failures >= policy.attempts:
                    raise UserError(_given_up(url, failures, again, transfer.size(), policy.mirrored)) from None
                policy.sleep(min(max(policy.backoff_s * 2 ** (failures - 1), again.wait_s), policy.longest_wait_s))


def _given_up(url: str, failures: int, reason: Exception, size: int, mirrored: bool) -> str:
    kept = f"; the {size / _MIB:.1f} MiB that came are kept, and the same command goes on from there" if size else ""
    elsewhere = ", or set G2SD_MIRROR to another place" if mirrored else ""
    return f"{_shown(url)}: {failures} attempts failed, the last one because {reason}{kept}; try later{elsewhere}"


class _Transfer:
    """One file on its way."""

    def __init__(self, url: str, part: Path, expected: Expected, tick: Tick, mirrored: bool) -> None:
        self._url = url
        self._part = part
        self._notes_file = part.with_name(f"{part.name}.json")
        self._expected = expected
        self._tick = tick
        self._mirrored = mirrored

    def size(self) -> int:
        """Bytes that are there."""
        return self._part.stat().st_size if self._part.is_file() else 0

    def attempt(self, client: "httpx2.Client") -> str | None:
        """One request; returns when the part file is complete."""
        import httpx2

        notes = self._read_notes()
        offset = self.size() if self._may_resume(notes) else 0
        if notes is not None and offset and offset == notes.total:
            return notes.announced
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if notes is not None and notes.url == self._url and notes.validator:
                headers["If-Range"] = notes.validator
        try:
            with client.stream("GET", self._url, headers=headers) as response:
                self._receive(response, offset, notes)
                return _announced_sha256(response)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise UserError(f"{_shown(self._url)}: cannot be fetched ({error}); correct the address") from None
        except httpx2.TimeoutException:
            raise _Again("the server stayed silent") from None
        except httpx2.TransportError as error:
            raise _Again(f"the connection broke ({error or type(error).__name__})") from None

    def _may_resume(self, notes: _Notes | None) -> bool:
        """Whether bytes may be added to the part file: the server can confirm that they belong together, or a hash will."""
        if notes is None or self.size() == 0:
            return False
        return self._expected.has_hash or (notes.url == self._url and notes.validator is not None)

    def _receive(self, response: "httpx2.Response", offset: int, notes: _Notes | None) -> None:
        self._check_status(response, offset)
        if response.status_code == 206:
            self._check_range(response, offset, notes)
        else:
            offset = 0
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGES:
            self._refuse_page()
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise UserError(f"{_shown(self._url)}: the server compresses the file against the request; set G2SD_MIRROR to another place")
        total = _total_of(response, offset)
        self._check_size(total, "announces")
        if offset == 0:
            discard_part(self._part)  # before the notes, or a crash in between would leave old bytes under a new validator
            self._write_notes(_notes_of(self._url, response, total))
        self._check_space(total, offset)
        self._store(response, offset, total)

    def _check_status(self, response: "httpx2.Response", offset: int) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status == 416 and offset:
            self._forget("the server has no byte behind those that are here")
        if status in _TRANSIENT or status >= 500:
            raise _Again(f"the server answered {status} {response.reason_phrase}".rstrip(), _retry_after(response))
        mirror = "; is G2SD_MIRROR right?" if self._mirrored else ""
        where = mirror if status == 404 else "; it may want a login" if status in (401, 403) else ""
        raise Refused(f"{_shown(self._url)}: the server answered {status} {response.reason_phrase}{where}", status)

    def _check_range(self, response: "httpx2.Response", offset: int, notes: _Notes | None) -> None:
        """A partial answer has to begin where the part file ends, and to be of the same version of the file."""
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", "").strip())
        if found is None or int(found[1]) != offset:
            self._forget("the server sent another range than the one asked for")
        now = _notes_of(self._url, response, _total_of(response, offset))
        pairs: list[tuple[object, object]] = [] if notes is None else [(notes.total, now.total)]
        if notes is not None and notes.url == self._url:
            pairs += [(notes.etag, now.etag), (notes.last_modified, now.last_modified)]
        if any(before is not None and after is not None and before != after for before, after in pairs):
            self._forget("the file changed on the server")

    def _check_size(self, size: int | None, verb: str) -> None:
        wanted = self._expected.bytes
        if size is not None and wanted is not None and size != wanted:
            discard_part(self._part)
            raise UserError(f"{_shown(self._url)}: the server {verb} {size} bytes, but the file has {wanted}; nothing was kept")

    def _check_space(self, total: int | None, offset: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if total is not None and total - offset > free:
            raise UserError(
                f"{self._part.parent}: {(total - offset) / _MIB:.0f} MiB are still to come and {free / _MIB:.0f} MiB are free; "
                "make room, or set G2SD_CACHE to a folder on another disk"
            )

    def _store(self, response: "httpx2.Response", offset: int, total: int | None) -> None:
        limit = total if total is not None else self._expected.bytes
        size = offset
        with self._open(offset) as file:
            for chunk in response.iter_raw():  # as it arrives: what is gathered first would be lost at a cut
                if size == 0 and is_web_page(chunk[:512]):
                    self._refuse_page()
                size += len(chunk)
                if limit is not None and size > limit:
                    discard_part(self._part)
                    raise UserError(f"{_shown(self._url)}: the server sent more than {limit} bytes; nothing was kept")
                self._write(file, chunk)
                self._tick(size, limit)
        if total is not None and size < total:
            raise _Again(f"the connection ended after {size} of {total} bytes")
        self._check_size(size, "sent")

    def _open(self, offset: int) -> io.FileIO:
        try:
            file = io.FileIO(self._part, "r+b" if offset else "wb")
            file.seek(offset)
        except OSError as error:
            raise UserError(f"{self._part}: cannot be written ({error.strerror}); set G2SD_CACHE to a folder you may write to") from None
        return file

    def _write(self, file: io.FileIO, chunk: bytes) -> None:
        try:
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            full = "the disk is full" if error.errno in DISK_FULL else f"it cannot be written ({error.strerror})"
            raise UserError(
                f"{self._part}: {full}; the {self.size() / _MIB:.1f} MiB that came are kept, and the same command goes on from there "
                "once there is room (or set G2SD_CACHE to a folder on another disk)"
            ) from None

    def _refuse_page(self) -> NoReturn:
        discard_part(self._part)
        elsewhere = ", or set G2SD_MIRROR to a place that has the file" if self._mirrored else ""
        raise UserError(
            f"{_shown(self._url)}: the server sent a web page instead of the file (a login, a confirmation or an error page); "
            f"open the address in a browser{elsewhere}"
        )

    def _forget(self, reason: str) -> NoReturn:
        discard_part(self._part)
        raise _Again(reason)

    def _read_notes(self) -> _Notes | None:
        with suppress(OSError, ValueError, TypeError):
            return _Notes(**json.loads(self._notes_file.read_bytes()))
        return None

    def _write_notes(self, notes: _Notes) -> None:
        try:
            self._notes_file.write_text(json.dumps(vars(notes)), encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self._notes_file}: cannot be written ({error.strerror}); set G2SD_CACHE to a folder with room") from None


def discard_part(part: Path) -> None:
    """Remove a part file and what is known of it."""
    part.unlink(missing_ok=True)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _shown(url: str) -> str:
    """An address for people and logs: a mirror's user and password stay out of it."""
    return re.sub(r"//[^/@]*@", "//", url)


def _notes_of(url: str, response: "httpx2.Response", total: int | None) -> _Notes:
    etag = response.headers.get("etag")
    strong = etag if etag and not etag.startswith("W/") else None
    return _Notes(url, strong, response.headers.get("last-modified"), total, _announced_sha256(response))


def _total_of(response: "httpx2.Response", offset: int) -> int | None:
    """Size of the whole file, as the answer states it."""
    if response.status_code == 206:
        stated = response.headers.get("content-range", "").rpartition("/")[2]
        if stated.isdigit():
            return int(stated)
    length = response.headers.get("content-length", "")
    return offset + int(length) if length.isdigit() else None


def _retry_after(response: "httpx2.Response") -> float:
    stated = response.headers.get("retry-after", "")
    return float(stated) if stated.isdigit() else 0.0


def _announced_sha256(response: "httpx2.Response") -> str | None:
    for answer in (*response.history, response):
        stated = answer.headers.get("x-linked-etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", stated):
            return str(stated)
    return None
