"""Write the folder that a user copies to a device: models, labels, a real sample with its answers, and the code that runs them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..edge.agreement import Verdict
from ..edge.errors import UserError
from ..edge.manifest import (
    FORMAT,
    LABELS,
    MANIFEST,
    MANIFEST_DIGEST,
    MODEL_CARD,
    SAMPLE,
    SAMPLE_IMAGE,
    SBOM,
    SIGNATURE,
    UNLISTED,
    Bundle,
    FileRecord,
    Variant,
    open_bundle,
    record_of,
    sha256_of,
)
from ..edge.preprocess import Preprocessing, load_image
from ..edge.selftest import check_sample
from .licences import UNKNOWN
from .model_card import model_card
from .sbom import sbom
from .schema import manifest_problems

# The first date that a zip archive can hold: a clock would make each bundle another one.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_ENLARGED = 1.7
_EDGE = f"{__package__.rpartition('.')[0]}.edge"


@dataclass(frozen=True)
class BuiltVariant:
    """A variant and where its parts lie before the bundle is written.

    Attributes:
        variant: Its entry in the manifest; ``file`` is the path that the model gets inside the bundle.
        path: The model file; copied.
        golden: float32 [N, num_classes]: what the variant itself answered for the sample, or of a model that is no classifier the arrays by
            name; None where it was not run.
    """

    variant: Variant
    path: Path
    golden: Any = None


def write_bundle(
    folder: Path,
    *,
    name: str,
    variants: Sequence[BuiltVariant],
    default: str,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    sample_images: npt.NDArray[np.uint8],
    expected_logits: npt.NDArray[np.float32],
    target: Mapping[str, Any],
    licences: Mapping[str, str],
    provenance: Mapping[str, Any],
    verdict: Verdict,
    reason: str = "",
    program_version: str | None = None,
    threads: int | None = None,
    sources: Mapping[str, Path] | None = None,
) -> Path:
    """Write a bundle, whole or not at all. The same arguments give the same bytes.

    Every variant that passed and has golden logits goes through the self-test first. One that fails it is written as failed, with the
    reason, and where it is the default, so is the bundle: a failure is told, not hidden. Look at ``open_bundle(folder).verdict``.

    Args:
        folder: The bundle's folder; must not exist, or be empty.
        name: Name of the model, for the manifest and the model card.
        variants: The ways to run the model, at least one; several may share a file.
        default: Name of the variant that runs when none is named.
        preprocessing: How the model wants its images.
        class_names: One per logit, in order.
        sample_images: A few real images, at least one; uint8 [N, H, W, C].
        expected_logits: What the reference model, not an exported one, answers for them; float32 [N, num_classes].
        target: The device it is made for, as JSON values; ``name`` and ``description`` are shown.
        licences: SPDX expression or text for ``model``, ``code``, ``teacher`` and ``data``; what is left out is "unknown".
        provenance: JSON values: recipe, digests, versions; ``evaluated_on`` and ``data``, where they are text, name the images.
        verdict: Of the proof, over what ships.
        reason: Why it is not "passed".
        program_version: Version of the program that writes; None takes that of the installed g2sd-deploy.
        threads: Threads of the runtimes in the self-test; None takes one per CPU this process may use.
        sources: ONNX files that engines were built from, by their path in the bundle, so that a device can build them again.

    Returns:
        ``folder``.

    Raises:
        UserError: The folder is not empty, an argument does not fit the others, or a file cannot be read.
    """
    sample = _LogitsSample(sample_images, expected_logits, preprocessing)
    facts = {
        **first_facts(name, program_version, verdict, reason, target, licences),
        "preprocessing": preprocessing.to_dict(),
        "default": default,
        "variants": [built.variant.to_dict() for built in variants],
        "provenance": dict(provenance),
    }
    return write_folder(folder, facts, variants, class_names, sample, threads=threads, sources=sources)


@runtime_checkable
class BundleSample(Protocol):
    """Real images and what the model answers for them, as a bundle keeps them; the task of the model decides how."""

    def check(self, class_names: Sequence[str], variants: Sequence[BuiltVariant]) -> None:
        """Raise UserError unless images, answers, classes and the variants' own answers fit each other."""
        ...

    def write(self, folder: Path, variants: Sequence[BuiltVariant]) -> None:
        """Write ``sample.npz`` and ``sample.png``."""
        ...

    def failure(self, bundle: Bundle, built: BuiltVariant, threads: int | None) -> str:
        """Why a variant does not pass the self-test of the bundle; empty where it does."""
        ...


def first_facts(
    name: str, program_version: str | None, verdict: Verdict, reason: str, target: Mapping[str, Any], licences: Mapping[str, str]
) -> dict[str, Any]:
    """The head of a manifest, whatever the task of its model."""
    return {
        "format": FORMAT,
        "name": name,
        "version": program_version or _installed_version(),
        "verdict": verdict,
        "reason": reason,
        "target": dict(target),
        "labels": LABELS,
        "sample": SAMPLE,
        "sample_image": SAMPLE_IMAGE,
        "model_card": MODEL_CARD,
        "sbom": SBOM,
        "licences": dict.fromkeys(("model", "code", "teacher", "data"), UNKNOWN) | dict(licences),
    }


def write_folder(
    folder: Path,
    facts: Mapping[str, Any],
    variants: Sequence[BuiltVariant],
    class_names: Sequence[str],
    sample: BundleSample,
    *,
    threads: int | None = None,
    sources: Mapping[str, Path] | None = None,
) -> Path:
    """Write a bundle of any task, whole or not at all; see ``write_bundle``.

    Args:
        folder: The bundle's folder; must not exist, or be empty.
        facts: The manifest without ``files``.
        variants: The ways to run the model, at least one.
        class_names: In the order of the classes.
        sample: Real images with their answers.
        threads: Threads of the runtimes in the self-test.
        sources: ONNX files that engines were built from, by their path in the bundle.

    Returns:
        ``folder``.

    Raises:
        UserError: The folder is not empty, an argument does not fit the others, or a file cannot be read.
    """
    _refuse_bad_input(folder, class_names, variants)
    sample.check(class_names, variants)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        part = Path(scratch) / folder.name
        part.mkdir()
        _copy_models(part, [(one.variant.name, one.variant.file, one.path) for one in variants])
        _copy_models(part, [(f"the source {file}", file, path) for file, path in (sources or {}).items()])
        (part / LABELS).write_bytes("".join(f"{label}\n" for label in class_names).encode())
        sample.write(part, variants)
        _copy_edge(part / "edge")
        seal(part, facts)
        if failures := _selftest_failures(part, variants, sample, threads):
            seal(part, _with_failures(facts, failures))
        _move_into_place(part, folder)
    return folder


def seal(folder: Path, facts: Mapping[str, Any]) -> str:
    """Write what follows from the files of a bundle and its facts: model card, bill of materials, manifest and its digest, in this order.

    For a bundle that gets or loses a variant on a device, too. A signature of what was there before is removed.

    Args:
        folder: A bundle's folder with every other file in place.
        facts: The manifest without ``files``; a ``files`` of before is replaced.

    Returns:
        SHA-256 of the manifest: the bundle's digest.

    Raises:
        UserError: The manifest would contradict itself or its published schema.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    class_names = (folder / LABELS).read_bytes().decode().removesuffix("\n").split("\n")
    records = _records(folder, without={MODEL_CARD, SBOM})
    (folder / MODEL_CARD).write_bytes(model_card(facts, records, class_names).encode())
    records[MODEL_CARD] = record_of(folder / MODEL_CARD)
    (folder / SBOM).write_bytes(json_bytes(sbom(facts, dict(sorted(records.items())))))
    records[SBOM] = record_of(folder / SBOM)
    listed = {name: dataclasses.asdict(record) for name, record in sorted(records.items())}
    manifest = {**{key: value for key, value in facts.items() if key != "files"}, "files": listed}
    content = json_bytes(manifest)
    if problems := manifest_problems(json.loads(content)):
        raise UserError(f"the bundle's manifest would be wrong: {'; '.join(problems)}")
    (folder / MANIFEST).write_bytes(content)
    (folder / MANIFEST_DIGEST).write_bytes(f"{sha256_of(content)}  {MANIFEST}\n".encode())
    return sha256_of(content)


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """JSON as bundles hold it: UTF-8, indented by two, keys in their order.

    Raises:
        UserError: A value is not finite, or no JSON value.
    """
    try:
        return (json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise UserError(f"the bundle's facts are no JSON ({error}); give finite numbers, text, lists and mappings only") from error


def _refuse_bad_input(folder: Path, class_names: Sequence[str], variants: Sequence[BuiltVariant]) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty; give the bundle a folder of its own")
    if bad := [label for label in class_names if not label.strip() or "\n" in label or "\r" in label]:
        raise UserError(f"class name {bad[0]!r} is empty or holds a line break; {LABELS} holds one name per line")
    for built in variants:
        if not built.path.is_file():
            raise UserError(f"{built.path}: no such model file, for variant {built.variant.name}")


@dataclass(frozen=True)
class _LogitsSample:
    """Images of the network's size and the logits of the reference."""

    images: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    preprocessing: Preprocessing

    def check(self, class_names: Sequence[str], variants: Sequence[BuiltVariant]) -> None:
        images, logits = self.images, self.logits
        if logits.shape != (len(images), len(class_names)) or len(images) == 0:
            raise UserError(f"the sample has {len(images)} images, logits of shape {list(logits.shape)} and {len(class_names)} class names")
        for built in variants:
            if built.golden is not None and built.golden.shape != logits.shape:
                raise UserError(
                    f"{built.variant.name}: its golden logits have shape {list(built.golden.shape)}; wanted {list(logits.shape)}"
                )

    def write(self, folder: Path, variants: Sequence[BuiltVariant]) -> None:
        images = self.images
        image = Image.fromarray(images[0, :, :, 0] if images.shape[-1] == 1 else images[0])
        # Larger than the network's input, so that the self-test sees a device that resizes with another filter.
        image.resize([round(_ENLARGED * side) for side in image.size], Image.Resampling.NEAREST).save(folder / SAMPLE_IMAGE)
        arrays: dict[str, npt.NDArray[Any]] = {
            "images": images,
            "logits": self.logits.astype(np.float32),
            "decoded": load_image(folder / SAMPLE_IMAGE, self.preprocessing),
        }
        for built in variants:
            if built.golden is not None:
                arrays[f"logits.{built.variant.name}"] = built.golden.astype(np.float32)
        (folder / SAMPLE).write_bytes(npz_bytes(arrays))

    def failure(self, bundle: Bundle, built: BuiltVariant, threads: int | None) -> str:
        runner = bundle.runner(threads=threads, variant=built.variant.name)
        return check_sample(bundle, bundle.sample(), runner, built.variant).reason


def _installed_version() -> str:
    try:
        return version("g2sd-deploy")
    except PackageNotFoundError:
        return "unknown"


def _copy_models(part: Path, wanted: Sequence[tuple[str, str, Path]]) -> None:
    """Each file once, from (who needs it, its path in the bundle, where it lies); those who share one have to mean the same content."""
    for who, file, path in wanted:
        target = part / file
        if not target.resolve().is_relative_to(part.resolve()):
            raise UserError(f"{who}: file {file!r} lies outside the bundle; wanted a name such as models/int8.onnx")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        elif record_of(target) != record_of(path):
            raise UserError(f"{file}: two variants mean different files by it; give each content a name of its own")


def npz_bytes(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Arrays as ``numpy.load`` reads them, the same bytes everywhere: no clock, no system's name, and not packed, as zlibs differ."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE)
            info.create_system, info.external_attr = _UNIX, 0o644 << 16
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(info, entry.getvalue())
    return content.getvalue()


def _copy_edge(target: Path) -> None:
    """Copy the edge package through importlib, which also reads it from a zipped wheel."""
    _copy_tree(files(_EDGE), target)


def _copy_tree(source: Traversable, target: Path) -> None:
    target.mkdir()
    for item in source.iterdir():
        if item.is_file():
            (target / item.name).write_bytes(item.read_bytes())
        elif item.name != "__pycache__":
            _copy_tree(item, target / item.name)


def _records(folder: Path, *, without: set[str]) -> dict[str, FileRecord]:
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    listed = [name.as_posix() for name in names if "__pycache__" not in name.parts]
    return {name: record_of(folder / name) for name in listed if name not in UNLISTED | without}


def _selftest_failures(part: Path, variants: Sequence[BuiltVariant], sample: BundleSample, threads: int | None) -> dict[str, str]:
    """Reasons, by variant, of those that were run here and do not answer alike from their bundle, whatever became of the bundle's proof."""
    bundle = open_bundle(part)  # one that is not whole is our mistake: no verdict, an error
    failures = {}
    for built in variants:
        if built.golden is None or built.variant.verdict != "passed":
            continue
        try:
            reason = sample.failure(bundle, built, threads)
        except UserError as error:
            reason = str(error).replace(f"{part}{os.sep}", "")
        if reason:
            failures[built.variant.name] = f"fails its own self-test: {reason}"
    return failures


def _with_failures(facts: Mapping[str, Any], failures: Mapping[str, str]) -> dict[str, Any]:
    variants = [
        {**entry, "verdict": "failed", "reason": failures[entry["name"]]} if entry["name"] in failures else entry
        for entry in facts["variants"]
    ]
    if facts["default"] not in failures:
        return {**facts, "variants": variants}
    told = f"{facts['default']} {failures[facts['default']]}"
    reason = f"{facts['reason']}; {told}" if facts["verdict"] == "failed" else told
    return {**facts, "variants": variants, "verdict": "failed", "reason": reason}


def _move_into_place(part: Path, folder: Path) -> None:
    """Flush every file, then rename: the bundle appears under its name at once and complete."""
    for path in [*part.rglob("*"), part] if os.name == "posix" else []:  # Windows flushes no folder and no read-only handle
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if folder.exists():
        folder.rmdir()  # empty, as checked: some systems do not rename onto a folder
    part.rename(folder)
