"""The bundle on disk: what its manifest says, and proof that its files are the ones that were tested."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from .agreement import Verdict
from .dense.task import DenseTask
from .dense.tolerance import AnyTolerance, fits, read_tolerance
from .errors import IntegrityError, UserError
from .files import FileRecord, problems_of, read_checked, record_of, sha256_of
from .preprocess import Preprocessing

if TYPE_CHECKING:
    from .dense.network import Network
    from .runner import Runner

FORMAT = 2

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"  # in the form that `sha256sum -c` reads
SIGNATURE = "manifest.sig"
UNLISTED = frozenset({MANIFEST, MANIFEST_DIGEST, SIGNATURE})
"""Files of a bundle that its manifest cannot list."""
LABELS = "labels.txt"
SAMPLE = "sample.npz"
SAMPLE_IMAGE = "sample.png"
MODEL_CARD = "README.md"
SBOM = "sbom.cdx.json"

Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8"]
RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"]

_FIXED = {"labels": LABELS, "sample": SAMPLE, "sample_image": SAMPLE_IMAGE, "model_card": MODEL_CARD, "sbom": SBOM}
_KEYS = ("name", "version", "verdict", "reason", "target", "licences", "preprocessing", "default", "variants", "provenance", "files")
_ADVICE = "copy or download the bundle again"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.]*(-[a-z0-9_.]+)*")


@dataclass(frozen=True)
class Variant:
    """One way of running the model: a file, the precision in it and the runtime that it was proven on.

    Attributes:
        name: Unique in its bundle: PRECISION-RUNTIME, lower case.
        file: Path of the model relative to the bundle; several variants may share one.
        precision: fp32, bf16, fp16, int8 or fp8.
        runtime: onnxruntime, openvino, tensorrt or tensorrt_rtx.
        settings: Of the runtime; see ``edge/opening.py``. An engine's say from which file of the bundle it was built.
        input: ``name``, ``dtype``, ``layout`` and ``shape`` of the input.
        output: ``name``, ``dtype`` and ``shape`` of the logits; where the bundle has a task, of the first output.
        verdict: Of the proof made at export: "passed", "failed" or "not_run".
        reason: Why it is not "passed"; where it passed, a remark or nothing.
        hops: What was compared on the way to this file, as ``HopResult.to_dict`` writes it.
        tolerance: How far its logits may be from the reference's; where the bundle has a task, its pixels or objects.
        device_tolerance: How far they may be from its own at export; None where it did not run there.
        latency: As measured at export, or None.
    """

    name: str
    file: str
    precision: Precision
    runtime: RuntimeName
    settings: Mapping[str, Any]
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    verdict: Verdict
    reason: str
    hops: tuple[Mapping[str, Any], ...]
    tolerance: AnyTolerance
    device_tolerance: AnyTolerance | None = None
    latency: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"variant {self.name!r}: its name must be of small letters, digits and dots, joined by hyphens, as int8-openvino"
            )
        for key, values in (("precision", Precision), ("runtime", RuntimeName), ("verdict", Verdict)):
            if getattr(self, key) not in get_args(values):
                raise UserError(f"variant {self.name}: {key} is {getattr(self, key)!r}; it must be one of {', '.join(get_args(values))}")
        if self.verdict != "passed" and not self.reason:
            raise UserError(f"variant {self.name}: its verdict is {self.verdict!r} and gives no reason")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, an entry of the manifest's ``variants``; the inverse of ``from_dict``."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain.update({key: dict(plain[key]) for key in ("settings", "input", "output")})
        plain["hops"] = [dict(hop) for hop in self.hops]
        plain["tolerance"] = self.tolerance.to_dict()
        plain["device_tolerance"] = None if self.device_tolerance is None else self.device_tolerance.to_dict()
        plain["latency"] = None if self.latency is None else dict(self.latency)
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variant:
        """Read what ``to_dict`` wrote.

        Raises:
            UserError: A key is missing or unknown, or a value is none of those known.
        """
        keys = {field.name for field in dataclasses.fields(cls)}
        if wrong := sorted(set(values) ^ keys):
            raise UserError(f"variant {values.get('name')!r}: missing or unknown keys {', '.join(wrong)}")
        read = dict(values)
        read["hops"] = tuple(values["hops"])
        read["tolerance"] = read_tolerance(values["tolerance"])
        if values["device_tolerance"] is not None:
            read["device_tolerance"] = read_tolerance(values["device_tolerance"])
        return cls(**read)


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
        version: Of the program that wrote it.
        verdict: Of the proof made at export, over what ships.
        reason: Why it is not "passed"; empty otherwise.
        target: The machine it was made for, and what was asked there.
        licences: Of the model, the code, the teacher and the data.
        preprocessing: How the model wants its images.
        class_names: One per logit, in order.
        default: Name of the variant that runs when none is named.
        variants: Every way of running the model.
        provenance: Where the model comes from.
        files: Every file, by its path relative to the folder.
        task: What the network does where it is no classifier but answers for pixels or objects; None for a classifier.
    """

    folder: Path
    digest: str
    name: str
    version: str
    verdict: Verdict
    reason: str
    target: dict[str, Any]
    licences: dict[str, Any]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    default: str
    variants: tuple[Variant, ...]
    provenance: dict[str, Any]
    files: dict[str, FileRecord]
    task: DenseTask | None = None

    def variant(self, name: str | None = None) -> Variant:
        """The variant of this name, or the default one.

        Raises:
            UserError: There is no such variant.
        """
        wanted = self.default if name is None else name
        for variant in self.variants:
            if variant.name == wanted:
                return variant
        have = ", ".join(variant.name for variant in self.variants)
        raise UserError(f"{self.folder}: has no variant {wanted!r}; it has {have}")

    def refusal(self, variant: Variant) -> str:
        """Why a variant must not be used: it, or what ships, failed its proof at export. Empty where it may be used."""
        if variant.verdict == "failed":
            return f"variant {variant.name} failed its proof at export: {variant.reason}"
        return f"the bundle failed its proof at export: {self.reason or 'no reason is recorded'}" if self.verdict == "failed" else ""

    def read(self, name: str) -> bytes:
        """The content of a file, checked as it is read, so that what is used is what was verified.

        Raises:
            IntegrityError: The file changed since the bundle was opened.
        """
        return read_checked(self.folder, name, self.files[name], _ADVICE)

    def runner(self, *, threads: int | None = None, variant: str | None = None) -> Runner:
        """A variant of the model on its runtime.

        Args:
            threads: Threads of the runtime; None takes one per CPU this process may use.
            variant: Name of the variant; None takes the default one.

        Raises:
            UserError: There is no such variant, its runtime is absent or cannot load it, or it is no classifier (see ``network``).
            IntegrityError: The model is not what the manifest says of it.
        """
        from .opening import open_variant

        if self.task is not None:
            raise UserError(f"{self.folder}: its model is one of {self.task.kind}, and a classifier was wanted; give a classifier's bundle")
        return open_variant(self, self.variant(variant), threads)

    def network(self, *, threads: int | None = None, variant: str | None = None) -> Network:
        """The same for a bundle that has a task.

        Raises:
            UserError: There is no such variant, its runtime is absent or cannot load it, or it is a classifier (see ``runner``).
            IntegrityError: The model is not what the manifest says of it.
        """
        from .dense.opening import open_network

        return open_network(self, self.variant(variant), threads)

    def sample_images(self) -> npt.NDArray[np.uint8]:
        """The stored images alone: uint8 [N, H, W, C], of the network's size."""
        with np.load(io.BytesIO(self.read(SAMPLE)), allow_pickle=False) as arrays:
            images: npt.NDArray[np.uint8] = arrays["images"]
            return images

    def sample(self) -> Sample:
        """The stored images and their expected logits, of a bundle that has no task (``dense/sample.py`` reads the others)."""
        with np.load(io.BytesIO(self.read(SAMPLE)), allow_pickle=False) as arrays:
            return Sample(images=arrays["images"], logits=arrays["logits"], decoded=arrays["decoded"])

    def golden(self, variant: Variant) -> npt.NDArray[np.float32] | None:
        """What a variant itself answered for the sample at export, float32 [N, num_classes]; None where it did not run there."""
        with np.load(io.BytesIO(self.read(SAMPLE)), allow_pickle=False) as arrays:
            key = f"logits.{variant.name}"
            return arrays[key] if key in arrays.files else None


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and compare every file with the manifest.

    Args:
        folder: The folder that holds ``manifest.json``.

    Returns:
        The bundle, verified; whether the proof made at export passed is its ``verdict``.

    Raises:
        IntegrityError: A file is missing, truncated, changed or not listed (the message names the first and counts the others), the
            manifest cannot be read or contradicts itself, or an engine was built from another model than the bundle's.
        UserError: The manifest is of another format.
    """
    values, digest = read_manifest(folder)
    files = _records(folder, values["files"])
    for name in sorted({*_FIXED.values()} - set(files)):
        raise IntegrityError(f"{folder / MANIFEST}: does not list {name}; {_ADVICE}")
    if problems := problems_of(folder, files, beside=UNLISTED):
        (name, problem), more = next(iter(problems.items())), len(problems) - 1
        others = f" (and {more} more: {', '.join(list(problems)[1:4])}{', ...' if more > 3 else ''})" if more else ""
        raise IntegrityError(f"{folder / name}: {problem}{others}; {_ADVICE}")
    try:
        bundle = _bundle(folder, digest, values, files)
    except IntegrityError:
        raise
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: {error}; {_ADVICE}") from error
    _check_variants(bundle)
    return bundle


def read_manifest(folder: Path) -> tuple[dict[str, Any], str]:
    """A manifest that agrees with its digest, before any other file is looked at.

    Returns:
        Its values, and its SHA-256.

    Raises:
        IntegrityError: It is missing, does not match its digest or lacks a key.
        UserError: It is of another format.
    """
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
    if missing := [key for key in (*_KEYS, *_FIXED) if key not in values]:
        raise IntegrityError(f"{path}: lacks {', '.join(missing)}; {_ADVICE}")
    if wrong := [f"{key} is {values[key]!r}, not {name!r}" for key, name in _FIXED.items() if values[key] != name]:
        raise IntegrityError(f"{path}: {', '.join(wrong)}; {_ADVICE}")
    return values, digest


def _records(folder: Path, values: Any) -> dict[str, FileRecord]:
    try:
        return {name: FileRecord(str(record["sha256"]), int(record["bytes"])) for name, record in values.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: the list of files cannot be read; {_ADVICE}") from error


def _bundle(folder: Path, digest: str, values: Mapping[str, Any], files: dict[str, FileRecord]) -> Bundle:
    labels = read_checked(folder, LABELS, files[LABELS], _ADVICE).decode("utf-8")
    if values["verdict"] not in get_args(Verdict):
        raise UserError(f"verdict is {values['verdict']!r}; it must be one of {', '.join(get_args(Verdict))}")
    return Bundle(
        folder=folder,
        digest=digest,
        name=str(values["name"]),
        version=str(values["version"]),
        verdict=cast(Verdict, values["verdict"]),
        reason=str(values["reason"]),
        target=dict(values["target"]),
        licences=dict(values["licences"]),
        preprocessing=Preprocessing.from_dict(values["preprocessing"]),
        class_names=tuple((labels[:-1] if labels.endswith("\n") else labels).split("\n")),
        default=str(values["default"]),
        variants=tuple(Variant.from_dict(entry) for entry in values["variants"]),
        provenance=dict(values["provenance"]),
        files=files,
        task=_task(values),
    )


def _task(values: Mapping[str, Any]) -> DenseTask | None:
    if "task" not in values:
        return None
    task = DenseTask.from_dict(values["task"])
    if task.preprocessing() != Preprocessing.from_dict(values["preprocessing"]):
        raise UserError("its task and its preprocessing ask for other images")
    return task


def _check_variants(bundle: Bundle) -> None:
    """Raise IntegrityError unless names are unique, the default exists, each file is listed and no engine is stale."""
    path, names = bundle.folder / MANIFEST, [variant.name for variant in bundle.variants]
    if len(set(names)) != len(names) or bundle.default not in names:
        raise IntegrityError(f"{path}: its variants are {', '.join(names) or 'none'} and the default is {bundle.default!r}; {_ADVICE}")
    for variant in bundle.variants:
        kind = None if bundle.task is None else bundle.task.kind
        if not (fits(variant.tolerance, kind) and fits(variant.device_tolerance, kind)):
            raise IntegrityError(f"{path}: the tolerance of variant {variant.name} is one of another task; {_ADVICE}")
        if variant.file not in bundle.files:
            raise IntegrityError(f"{path}: does not list {variant.file} of variant {variant.name}; {_ADVICE}")
        if "source" in variant.settings or variant.runtime.startswith("tensorrt"):
            _check_source(bundle, variant)


def _check_source(bundle: Bundle, variant: Variant) -> None:
    source, recorded = variant.settings.get("source"), variant.settings.get("source_sha256")
    held = bundle.files.get(str(source))
    if held is None:
        raise IntegrityError(f"{bundle.folder / variant.file}: was built from {source!r}, which the bundle does not hold; {_ADVICE}")
    if recorded != held.sha256:
        raise IntegrityError(
            f"{bundle.folder / variant.file}: stale: was built from a {source} of sha256 {str(recorded)[:12]}..., and the bundle's has "
            f"{held.sha256[:12]}...; build the engine again"
        )


__all__ = [
    "FORMAT",
    "LABELS",
    "MANIFEST",
    "MANIFEST_DIGEST",
    "MODEL_CARD",
    "SAMPLE",
    "SAMPLE_IMAGE",
    "SBOM",
    "SIGNATURE",
    "UNLISTED",
    "Bundle",
    "FileRecord",
    "Precision",
    "RuntimeName",
    "Sample",
    "Variant",
    "open_bundle",
    "read_manifest",
    "record_of",
    "sha256_of",
]
