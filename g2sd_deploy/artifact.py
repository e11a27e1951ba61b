"""Artifacts: folders that are written whole or not at all, say what made them, and are verified before they are used."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from g2sd_deploy.errors import UserError

FORMAT = 1
MARKER = "artifact.json"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Made:
    """What a stage hands over.

    Attributes:
        metrics: Figures of the result.
        timing: Figures of the moment (seconds, speed, file times), which differ from run to run and so are no part of the digest.
        failure: Why the stage's verdict is "failed"; empty where it is not. What it made is kept and reported, and not built upon.
    """

    metrics: dict[str, Any]
    timing: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk."""

    folder: Path
    stage: str
    key: str
    digest: str
    files: dict[str, dict[str, Any]]
    config: dict[str, Any]
    parents: dict[str, str]
    metrics: dict[str, Any]
    failure: str

    def file(self, name: str) -> Path:
        """Path of a file that the artifact's marker lists."""
        assert name in self.files, f"{self.stage} holds no {name}: {sorted(self.files)}"
        return self.folder / name

    def verify(self) -> None:
        """Hash every file.

        Raises:
            UserError: A file is missing, changed or truncated.
        """
        for name, wanted in self.files.items():
            path = self.folder / name
            if not path.is_file():
                raise UserError(f"{path}: the file is gone, but {self.stage} needs it; make it again with --force {self.stage}")
            if path.stat().st_size != wanted["bytes"]:
                raise UserError(
                    f"{path}: holds {path.stat().st_size} bytes instead of {wanted['bytes']}, so it was changed or cut off after "
                    f"{self.stage} wrote it; make it again with --force {self.stage}"
                )
            if sha256_of(path) != wanted["sha256"]:
                raise UserError(
                    f"{path}: its hash is not the one that {self.stage} recorded, so it was changed; "
                    f"make it again with --force {self.stage}"
                )


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_artifact(folder: Path) -> Artifact | None:
    """The artifact in a folder; None where no stage finished there.

    Raises:
        UserError: The marker itself is damaged.
    """
    marker = folder / MARKER
    if not marker.is_file():
        return None
    try:
        found = json.loads(marker.read_bytes())
        if found["format"] != FORMAT:
            return None
        artifact = Artifact(
            folder=folder, **{name: found[name] for name in ("stage", "key", "digest", "files", "config", "parents", "metrics", "failure")}
        )
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{marker}: is damaged; make it again with --force {folder.name}") from None
    fixed = {name: value for name, value in artifact.metrics.items() if name not in found.get("timing", ())}
    identity = Identity(artifact.stage, artifact.config, artifact.parents, found.get("version", ""))
    if artifact.key != identity.key or artifact.digest != _content_digest(artifact.stage, artifact.files, fixed, artifact.failure):
        raise UserError(f"{marker}: was changed after {artifact.stage} wrote it; make it again with --force {artifact.stage}")
    return artifact


@dataclass(frozen=True)
class Identity:
    """What an artifact is a function of."""

    stage: str
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    version: str

    @property
    def key(self) -> str:
        return digest_of(asdict(self))


@contextmanager
def unfinished_folder(final: Path, rank: int = 0) -> Iterator[Path]:
    """A folder beside the final one to write into, of each process its own; removed unless `commit` renamed it away."""
    folder = final.parent / (f".{final.name}.unfinished" + (f"-{rank}" if rank else ""))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def commit(
    unfinished: Path, final: Path, identity: Identity, made: Made, *, tools: dict[str, str], environment: dict[str, Any], seconds: float
) -> Artifact:
    """Turn a written folder into the artifact at `final`: hash and sync every file, write the marker last, rename.

    An older artifact at `final` stays until the new one is complete.
    """
    names = sorted(str(p.relative_to(unfinished)) for p in unfinished.rglob("*") if p.is_file())
    files = {}
    for name in names:
        sync(unfinished / name)
        files[name] = {"sha256": sha256_of(unfinished / name), "bytes": (unfinished / name).stat().st_size}
    marker = {
        "format": FORMAT,
        "stage": identity.stage,
        "key": identity.key,
        "digest": _content_digest(identity.stage, files, made.metrics, made.failure),
        "files": files,
        "config": dict(identity.config),
        "parents": dict(identity.parents),
        "version": identity.version,
        "tools": tools,
        "environment": environment,
        "seconds": round(seconds, 3),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "metrics": made.metrics | made.timing,
        "timing": sorted(made.timing),
        "failure": made.failure,
    }
    (unfinished / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    sync(unfinished / MARKER)
    sync(unfinished)
    _replace_folder(unfinished, final)
    artifact = read_artifact(final)
    assert artifact is not None
    return artifact


def write_text_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old or the new one, never half of it."""
    beside = path.with_name(f".{path.name}.unfinished")
    beside.write_text(text, encoding="utf-8")
    sync(beside)
    beside.replace(path)
    sync(path.parent)


def _content_digest(stage: str, files: dict[str, Any], metrics: dict[str, Any], failure: str) -> str:
    return digest_of({"stage": stage, "files": files, "metrics": metrics, "failure": failure})


def _replace_folder(unfinished: Path, final: Path) -> None:
    old = final.parent / f".{final.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    try:
        unfinished.rename(final)
    except BaseException:
        if old.exists():
            old.rename(final)
        raise
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
