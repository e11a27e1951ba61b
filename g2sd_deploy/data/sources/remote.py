"""Shards at an address: fetched whole into the cache folder when first used, checked, and deleted when the room is needed.

http(s) goes through the downloader of the teachers, every other address through fsspec (s3:// needs s3fs).
"""

import hashlib
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from g2sd_deploy.artifact import sha256_of, write_text_whole
from g2sd_deploy.data.manifest import MANIFEST
from g2sd_deploy.data.sources.storage import Shard
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.download import Expected, Policy, Refused, discard_part, download
from g2sd_deploy.zoo.places import exclusive, places

PATIENT = Policy(mirrored=False)
_CHUNK = 8 << 20
_GIB = 1 << 30
_MISSING = frozenset({403, 404, 410})  # a bucket that may not be listed answers 403 for a file that is not there


class RemoteStorage:
    """Shards under one address."""

    def __init__(self, root: str, cache_gib: float | None, policy: Policy = PATIENT) -> None:
        self._url = root.rstrip("/")
        self.root = re.sub(r"//[^/@]*@", "//", self._url)
        self.title = self.root.rpartition("/")[2]
        self._cache_gib = cache_gib
        self._policy = policy
        self._texts: dict[str, str | None] = {}
        where = places()
        self._offline = where.offline
        self._folder = where.cache / "shards" / hashlib.sha256(self._url.encode()).hexdigest()[:16]
        if not self._http:
            _file_system(self._url)

    @property
    def _http(self) -> bool:
        return self._url.startswith(("http://", "https://"))

    def where(self) -> dict[str, Any]:
        return {"root": self._url, "cache_gib": self._cache_gib}

    def text(self, name: str) -> str | None:
        if name not in self._texts:
            self._texts[name] = self._fetch_text(name)
        return self._texts[name]

    def _fetch_text(self, name: str) -> str | None:
        """A small file as it is now; without the network, as it was when it was last fetched."""
        kept = self._folder / name
        if not self._offline:
            with exclusive(self._lock(name), quiet=True):
                part = self._part(name)
                discard_part(part)
                if self._download(name, part, Expected()):
                    part.replace(kept)
                else:
                    kept.unlink(missing_ok=True)
                discard_part(part)
        return kept.read_text(encoding="utf-8") if kept.is_file() else None

    def listed(self, split: str) -> list[str]:
        raise UserError(
            f"{self.root}: has no {MANIFEST}, and an address cannot be listed; write one with g2sd data prepare, or set data.train_split "
            f"and data.test_split to patterns such as {split}-{{000000..000146}}.tar"
        )

    def stamp(self, file: str) -> str:
        if self._offline:
            return str(self._note(file).get("stamp", ""))
        if self._http:
            return _http_stamp(f"{self._url}/{file}")
        system, path = _file_system(f"{self._url}/{file}")
        try:
            return str(system.ukey(path))
        except OSError as error:
            raise UserError(f"{self.root}/{file}: cannot be read ({error}); is data.root right?") from None

    def fetch(self, shard: Shard) -> tuple[Shard, Path]:
        """A shard in the cache; two processes do not fetch it twice."""
        if shard.sha256 is None:
            shard = self._identified(shard)
        path = self._cached(shard)
        if not _touched(path):
            with exclusive(self._lock(shard.file), quiet=True):
                if not _touched(path):
                    self._fill(shard)
        return shard, path

    def _cached(self, shard: Shard) -> Path:
        """Where a shard is kept: another content has another name."""
        assert shard.sha256 is not None
        path = self._folder / shard.file
        return path.with_name(f"{shard.sha256[:16]}-{path.name}")

    def _identified(self, shard: Shard) -> Shard:
        """A shard that no manifest describes, with its size and hash; fetched unless it was fetched as it is now."""
        with exclusive(self._lock(shard.file), quiet=True):
            stamp, note = self.stamp(shard.file), self._note(shard.file)
            if note and note["stamp"] == stamp:
                return replace(shard, bytes=note["bytes"], sha256=note["sha256"])
            discard_part(self._part(shard.file))  # what is left there may be of another version
            part = self._fetched_part(shard)
            found = replace(shard, bytes=part.stat().st_size, sha256=sha256_of(part))
            self._keep(part, found)
            write_text_whole(self._note_file(shard.file), json.dumps({"stamp": stamp, "bytes": found.bytes, "sha256": found.sha256}))
        return found

    def _fill(self, shard: Shard) -> None:
        part = self._fetched_part(shard)
        if shard.bytes not in (None, part.stat().st_size) or sha256_of(part) != shard.sha256:
            discard_part(part)
            raise UserError(
                f"{self.root}/{shard.file}: is not the file that {MANIFEST} states or that was indexed (its size or SHA-256 differs); "
                "nothing was kept: make the manifest again, or run the data stage again with --force data"
            )
        self._keep(part, shard)

    def _keep(self, part: Path, shard: Shard) -> None:
        part.replace(self._cached(shard))
        discard_part(part)
        self._make_room(self._cached(shard))

    def _fetched_part(self, shard: Shard) -> Path:
        """A complete part file, not yet checked."""
        shown, part = f"{self.root}/{shard.file}", self._part(shard.file)
        if self._offline:
            raise UserError(f"{shown}: is not in the cache, and G2SD_OFFLINE forbids to fetch it; unset G2SD_OFFLINE")
        if not self._download(shard.file, part, Expected(shard.bytes, shard.sha256)):
            raise UserError(f"{shown}: there is no such file; correct data.root, data.train_split and data.test_split")
        return part

    def _make_room(self, kept: Path) -> None:
        """Delete the shards that were not used for the longest time, beyond the room that the recipe gives them."""
        if self._cache_gib is None:
            return
        found = []
        for file in self._folder.rglob("*.tar"):
            try:
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
            except FileNotFoundError:  # another process made room
                continue
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total > self._cache_gib * _GIB and file != kept:
                file.unlink(missing_ok=True)
                total -= size

    def _download(self, name: str, part: Path, expected: Expected) -> bool:
        """Fetch a file into its part file; False where there is none."""
        part.parent.mkdir(parents=True, exist_ok=True)
        url = f"{self._url}/{name}"
        if not self._http:
            return _copy(url, part, expected, self._policy)
        try:
            download(url, part, expected, tick=lambda done, total: None, policy=self._policy)
        except Refused as refused:
            if refused.status in _MISSING:
                return False
            raise
        return True

    def _note(self, name: str) -> dict[str, Any]:
        """What was found of a shard that no manifest describes, when it was fetched."""
        try:
            note: dict[str, Any] = json.loads(self._note_file(name).read_bytes())
        except (OSError, ValueError):
            return {}
        return note

    def _note_file(self, name: str) -> Path:
        return self._beside(name, "json")

    def _part(self, name: str) -> Path:
        return self._beside(name, "part")

    def _lock(self, name: str) -> Path:
        return self._beside(name, "lock")

    def _beside(self, name: str, suffix: str) -> Path:
        path = self._folder / name
        return path.with_name(f".{path.name}.{suffix}")


def _touched(path: Path) -> bool:
    """Whether a file is there; that it is used now is noted in its time."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it; asked anew each time, for its threads do not survive a fork."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        raise UserError(f"{url}: {error}; for s3:// run: pip install 'g2sd-deploy[s3]'") from None
    except ValueError as error:
        raise UserError(f"{url}: {error}; wanted https://, s3:// or another address that fsspec knows") from None


def _copy(url: str, part: Path, expected: Expected, policy: Policy) -> bool:
    """Copy a file out of a file system, going on where an attempt broke off; False where there is none."""
    system, path = _file_system(url)
    if not expected.has_hash:
        part.unlink(missing_ok=True)  # nothing would show that its first bytes are of another version
    for attempt in range(1, policy.attempts + 1):
        try:
            _copy_rest(system, path, part)
        except FileNotFoundError:
            return False
        except Exception as error:  # each file system raises classes of its own
            if attempt == policy.attempts:
                raise UserError(f"{url}: {attempt} attempts failed, the last one because {str(error) or type(error).__name__}") from error
            policy.sleep(min(policy.backoff_s * 2 ** (attempt - 1), policy.longest_wait_s))
        else:
            return True
    raise AssertionError("unreachable")


def _copy_rest(system: Any, path: str, part: Path) -> None:
    with system.open(path, "rb", block_size=_CHUNK, cache_type="readahead") as remote, part.open("ab") as local:
        remote.seek(local.tell())
        while chunk := remote.read(_CHUNK):
            local.write(chunk)
            local.flush()


def _http_stamp(url: str) -> str:
    """What a server says of a file without sending it."""
    import httpx2

    for attempt in range(1, PATIENT.attempts + 1):
        try:
            answer = httpx2.head(url, follow_redirects=True, timeout=PATIENT.connect_s)
        except httpx2.HTTPError as error:
            if attempt == PATIENT.attempts:
                raise UserError(f"{url}: cannot be reached ({error or type(error).__name__}); is data.root right?") from None
            time.sleep(PATIENT.backoff_s)
            continue
        if answer.is_success:
            return " ".join(answer.headers.get(name, "") for name in ("content-length", "etag", "last-modified"))
        raise UserError(f"{url}: the server answered {answer.status_code} {answer.reason_phrase}; is data.root right?")
    raise AssertionError("unreachable")
