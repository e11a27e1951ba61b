"""The bundle on disk: what its manifest says, and proof that its files are the ones that were tested."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from .agreement import ParityTolerance
from .errors import IntegrityError, UserError
from .preprocess import Preprocessing
from .runner import OnnxRunner

FORMAT = 1

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"  # in the form that `sha256sum -c` reads
MODEL = "model.onnx"
LABELS = "labels.txt"
SAMPLE = "sample.npz"
SAMPLE_IMAGE = "sample.png"

_KEYS = (
    "name",
    "model",
    "labels",
    "sample",
    "sample_image",
    "input",
    "output",
    "preprocessing",
    "tolerance",
    "parity",
    "provenance",
    "files",
)
_ADVICE = "copy or download the bundle again"


@dataclass(frozen=True)
class FileRecord:
    """What a file of the bundle must be.

    Attributes:
        sha256: Digest of its content, 64 hexadecimal digits.
        bytes: Its size.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Sample:
    """Real images with the answers that the reference gave.

    Attributes:
        images: uint8 [N, H, W, C].
        logits: Expected float32 [N, num_classes].
        decoded: uint8 [H, W, C]: what ``sample.png`` must decode to on this machine too.
    """

    images: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    decoded: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file was compared with the manifest; made by ``open_bundle``.

    Attributes:
        folder: Where it lies.
        digest: SHA-256 of ``manifest.json``, which holds the digests of all other files: the identity of the bundle.
        name: Name of the model.
        preprocessing: How the model wants its images.
        class_names: One per logit, in order.
        tolerance: How far this machine's logits may be from the expected ones.
        parity: The verdict and numbers of the check made at export.
        provenance: Where the model comes from.
        files: Every file, by its path relative to the folder.
    """

    folder: Path
    digest: str
    name: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    tolerance: ParityTolerance
    parity: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, FileRecord]

    def read(self, name: str) -> bytes:
        """The content of a file, checked as it is read, so that what is used is what was verified.

        Raises:
            IntegrityError: The file changed since the bundle was opened.
        """
        return _read_checked(self.folder, name, self.files)

    def runner(self, *, threads: int | None = None) -> OnnxRunner:
        """The bundle's model on ONNX Runtime.

        Args:
            threads: Threads inside an operator; None takes one per CPU this process may use.

        Raises:
            UserError: ONNX Runtime is absent or cannot load the model.
            IntegrityError: The model does not give one logit per class name.
        """
        runner = OnnxRunner(self.read(MODEL), self.preprocessing, threads=threads)
        if runner.num_classes != len(self.class_names):
            raise IntegrityError(f"{MODEL} gives {runner.num_classes} logits and {LABELS} names {len(self.class_names)} classes; {_ADVICE}")
        return runner

    def sample(self) -> Sample:
        """The stored images and their expected logits."""
        with np.load(io.BytesIO(self.read(SAMPLE)), allow_pickle=False) as arrays:
            return Sample(images=arrays["images"], logits=arrays["logits"], decoded=arrays["decoded"])


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and compare every file with the manifest.

    Args:
        folder: The folder that holds ``manifest.json``.

    Returns:
        The bundle, verified.

    Raises:
        IntegrityError: A file is missing, truncated or changed (the message names it), or the manifest cannot be read.
        UserError: The manifest is of another format.
    """
    values, digest = _read_manifest(folder)
    try:
        files = {name: FileRecord(str(record["sha256"]), int(record["bytes"])) for name, record in values["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: the list of files cannot be read; {_ADVICE}") from error
    for name in sorted({MODEL, LABELS, SAMPLE, SAMPLE_IMAGE} - set(files)):
        raise IntegrityError(f"{folder / MANIFEST}: does not list {name}; {_ADVICE}")
    for name in files:
        _check_file(folder, name, files)
    return Bundle(
        folder=folder,
        digest=digest,
        name=str(values["name"]),
        preprocessing=Preprocessing.from_dict(values["preprocessing"]),
        class_names=tuple(_read_checked(folder, LABELS, files).decode("utf-8").removesuffix("\n").split("\n")),
        tolerance=ParityTolerance.from_dict(values["tolerance"]),
        parity=dict(values["parity"]),
        provenance=dict(values["provenance"]),
        files=files,
    )


def sha256_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def record_of(path: Path) -> FileRecord:
    """Digest and size of a file, read in blocks."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileRecord(digest.hexdigest(), size)


def _read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(f"{path}: missing, so this is no bundle; run inside a bundle folder or {_ADVICE}")
    content = path.read_bytes()
    digest = sha256_of(content)
    sidecar = folder / MANIFEST_DIGEST
    if not sidecar.is_file() or sidecar.read_bytes().split()[:1] != [digest.encode()]:
        raise IntegrityError(f"{path}: does not match {MANIFEST_DIGEST}, so one of them was changed; {_ADVICE}")
    try:
        values = json.loads(content)
    except ValueError as error:
        raise IntegrityError(f"{path}: is no JSON ({error}); {_ADVICE}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise UserError(f"{path}: has format {found!r}; this program reads format {FORMAT}; use the edge folder that came with the bundle")
    if missing := [key for key in _KEYS if key not in values]:
        raise IntegrityError(f"{path}: lacks {', '.join(missing)}; {_ADVICE}")
    return values, digest


def _check_file(folder: Path, name: str, files: dict[str, FileRecord]) -> None:
    """Raise IntegrityError unless the file is what the manifest records."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name:
        raise IntegrityError(f"{folder / MANIFEST}: lists {name!r}, which lies outside the bundle; {_ADVICE}")
    path = folder / relative
    if not path.is_file():
        raise IntegrityError(f"{path}: missing; {_ADVICE}")
    _compare(path, record_of(path), files[name])


def _read_checked(folder: Path, name: str, files: dict[str, FileRecord]) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({error.strerror}); {_ADVICE}") from error
    _compare(path, FileRecord(sha256_of(content), len(content)), files[name])
    return content


def _compare(path: Path, found: FileRecord, wanted: FileRecord) -> None:
    if found.bytes != wanted.bytes:
        raise IntegrityError(f"{path}: holds {found.bytes} bytes, the manifest says {wanted.bytes}; {_ADVICE}")
    if found.sha256 != wanted.sha256:
        raise IntegrityError(f"{path}: was changed (sha256 {found.sha256[:12]}..., the manifest says {wanted.sha256[:12]}...); {_ADVICE}")
