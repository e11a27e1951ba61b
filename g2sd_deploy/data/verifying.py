"""Look at every image of a data set before a training run does: what it would trip over, and what it would only see badly."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.data.encoding import TOO_MANY_PIXELS, open_image
from g2sd_deploy.data.findings import Finding, Problems, Severity, finder
from g2sd_deploy.data.images import BadImage, Samples
from g2sd_deploy.data.manifest import MANIFEST, ManifestShard, read_manifest
from g2sd_deploy.data.process_pool import map_in_order
from g2sd_deploy.data.sources import expand, open_source
from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import DECODE_ERRORS

Tick = Callable[[int, int], None]
"""Called with the images that are done and those wanted."""

_PER_TASK = 16
_EXIF_ORIENTATION = 0x0112
_NARROW = 100
_FORMATS = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".webp": ("WEBP",),
    ".gif": ("GIF",),
    ".bmp": ("BMP", "DIB"),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".ppm": ("PPM",),
    ".pgm": ("PPM",),
}

# Problem -> how bad it is, and what to do. An error is what training or evaluation stops at or has to skip.
PROBLEMS: Problems = {
    "empty file": ("error", "fetch it again, or remove it"),
    "truncated": ("error", "fetch it again, or remove it"),
    "not decodable": ("error", "replace it, or remove it"),
    "gigapixel": ("error", "shrink it: decoders refuse it as an attack on the memory"),
    "floating point": ("error", "save it with 8 or 16 bits per channel"),
    "empty class": ("error", "add images, or remove the class folder from every split"),
    "missing class": ("error", "add the class to this split, or remove it from the others"),
    "damaged shard": ("error", "copy it again from where it was prepared, or prepare it again"),
    "no image of a class": ("warning", "add some if the class matters in this split"),
    "CMYK": ("warning", "convert it to RGB with its colour profile; training converts it without"),
    "wrong suffix": ("warning", "rename it; training goes by the content, other programs may not"),
    "huge": ("warning", "shrink it (g2sd data prepare --short-side): it slows training down and takes much memory"),
    "very narrow": ("warning", "crop it: resized to a test image's short side, it may be refused"),
    "in two splits": ("warning", "remove it from one: a test image that was trained on flatters the result"),
    "16 bits": ("note", "nothing: it is scaled to 8 bits"),
    "transparency": ("note", "nothing: it is dropped, and what lies under it shows"),
    "animated": ("note", "nothing: the first frame is used"),
    "turned by EXIF": ("note", "turn the pixels if it matters: training does not look at the tag"),
    "not read": ("note", "nothing, or save it in a format that is read"),
}


noted = finder(PROBLEMS)


@dataclass
class Verified:
    """What was looked at, and what was found: errors first, then warnings, then notes."""

    num: dict[str, int]
    findings: list[Finding] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)


class _Looked(NamedTuple):
    """What a worker tells of one image: a digest of its content, and its problems with their details."""

    digest: bytes
    problems: list[tuple[str, str]]


def verify(kind: str, root: str, splits: Sequence[str], *, workers: int, tick: Tick) -> Verified:
    """Look at every image of some splits of a data set, and at what holds them.

    Args:
        kind: As `DataSettings.source`.
        root: As `DataSettings.root`.
        splits: Splits to look at.
        workers: Processes; they change nothing in the findings.
        tick: Told how many images are done.

    Raises:
        UserError: It cannot be opened as that kind of source, or the place where it lies cannot be read.
        RunFailed: A worker died.
    """
    opened = open_source(kind, root, splits=tuple(splits))
    if kind == "folder":
        samples, findings = look_at_folders(expand(root), splits, opened.class_names)
    else:
        damaged = look_at_shards(expand(root), splits, workers=workers) if kind == "shards" else []
        try:
            samples = {split: opened.samples(split, None) for split in splits}
        except UserError:
            if not damaged:
                raise
            return Verified(dict.fromkeys(splits, 0), damaged)  # what else is wrong is told once they are replaced
        findings = [*damaged, *look_at_labels(samples, opened.class_names)]
    verified = verify_images(samples, workers=workers, tick=tick)
    return Verified(verified.num, _sorted_by_severity(findings + verified.findings))


def verify_images(splits: Mapping[str, Samples], *, workers: int, tick: Tick) -> Verified:
    """Decode every image of every split.

    Args:
        splits: Split to its images.
        workers: Processes.
        tick: Told how many images are done.

    Raises:
        UserError: The place where the images lie cannot be read.
    """
    total, done = sum(len(samples) for samples in splits.values()), 0
    seen: dict[bytes, tuple[str, str]] = {}
    findings: list[Finding] = []
    with closing(map_in_order(partial(_look_at_task, dict(splits)), _tasks(splits), workers=workers)) as answers:
        for (split, indices), looked in zip(_tasks(splits), answers, strict=True):
            for index, (digest, problems) in zip(indices, looked, strict=True):
                name = splits[split].name(index)
                findings += [noted(problem, name, detail) for problem, detail in problems]
                first_split, first = seen.setdefault(digest, (split, name))
                if first_split != split and ("empty file", "0 bytes") not in problems:
                    findings.append(noted("in two splits", name, f"the same as {first}"))
            done += len(indices)
            tick(done, total)
    return Verified({split: len(samples) for split, samples in splits.items()}, _sorted_by_severity(findings))


def _sorted_by_severity(findings: list[Finding]) -> list[Finding]:
    """In the order of `PROBLEMS`, and within a problem as they were found."""
    rank = {problem: i for i, problem in enumerate(PROBLEMS)}
    return sorted(findings, key=lambda finding: rank[finding.problem])


def look_at(content: bytes, name: str) -> list[tuple[str, str]]:
    """Problems of one image file, with details.

    Args:
        content: The whole file.
        name: Its name; the suffix is compared with the content.
    """
    if not content:
        return [("empty file", "0 bytes")]
    try:
        image = open_image(content)
    except BadImage as bad:
        return [(_kind_of_damage(str(bad)), str(bad))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        return [*_mode_problems(image), *_suffix_problems(image, name), *_shape_problems(image), *_metadata_problems(image)]


def _kind_of_damage(reason: str) -> str:
    if reason.startswith(TOO_MANY_PIXELS):
        return "gigapixel"
    lower = reason.lower()
    return "truncated" if "truncated" in lower or "unexpected end" in lower else "not decodable"


def _shape_problems(image: Image.Image) -> Iterator[tuple[str, str]]:
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        yield "huge", f"{width} x {height}"
    if max(width, height) > _NARROW * min(width, height):
        yield "very narrow", f"{width} x {height}"


def _metadata_problems(image: Image.Image) -> Iterator[tuple[str, str]]:
    with suppress(*DECODE_ERRORS, TypeError):  # damage there keeps no image from being used
        if (num := getattr(image, "n_frames", 1)) > 1 and image.format != "MPO":
            yield "animated", f"{num} frames"
    with suppress(*DECODE_ERRORS, TypeError):
        turned = image.getexif().get(_EXIF_ORIENTATION, 1)
        if turned in range(2, 9):
            yield "turned by EXIF", f"orientation {turned}"


def _mode_problems(image: Image.Image) -> Iterator[tuple[str, str]]:
    if image.mode == "F":
        yield "floating point", ""
    if image.mode == "CMYK":
        yield "CMYK", ""
    if image.mode.startswith("I"):
        yield "16 bits", image.mode
    if image.has_transparency_data:
        yield "transparency", "palette" if image.mode == "P" else image.mode


def _suffix_problems(image: Image.Image, name: str) -> Iterator[tuple[str, str]]:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _FORMATS and image.format not in _FORMATS[suffix]:
        yield "wrong suffix", f"{image.format} named {suffix}"


def _tasks(splits: Mapping[str, Samples]) -> Iterator[tuple[str, range]]:
    for split, samples in splits.items():
        for start in range(0, len(samples), _PER_TASK):
            yield split, range(start, min(start + _PER_TASK, len(samples)))


def _look_at_task(splits: Mapping[str, Samples], task: tuple[str, range]) -> list[_Looked]:
    """What a worker does: read and decode some images of one split."""
    split, indices = task
    return [_look_at(splits[split], index) for index in indices]


def _look_at(samples: Samples, index: int) -> _Looked:
    name = samples.name(index)
    try:
        stored = samples.read(index)
    except BadImage as bad:
        return _Looked(_digest(name.encode("utf-8", "surrogateescape")), [(_kind_of_damage(str(bad)), str(bad))])
    if isinstance(stored, bytes):
        return _Looked(_digest(stored), look_at(stored, name))
    return _Looked(_digest(str(stored.shape).encode() + np.ascontiguousarray(stored).tobytes()), [])


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def look_at_labels(splits: Mapping[str, Samples], class_names: Sequence[str]) -> list[Finding]:
    """Classes that have no image in a split of a source without class folders."""
    missing = [
        (split, class_names[int(label)])
        for split, samples in splits.items()
        for label in np.flatnonzero(np.bincount(samples.labels, minlength=len(class_names)) == 0)
    ]
    return [noted("no image of a class", f"{split}: {name}") for split, name in missing]


def look_at_folders(root: Path, splits: Sequence[str], class_names: Sequence[str]) -> tuple[dict[str, Samples], list[Finding]]:
    """Images of class folders, also where a class is empty (which a source refuses), and what is wrong with the folders.

    Returns:
        Split to its images; classes without a folder or without an image, and files that are not read as images.

    Raises:
        UserError: A split is not there.
    """
    samples: dict[str, Samples] = {}
    findings: list[Finding] = []
    for split in splits:
        if not (root / split).is_dir():
            raise UserError(f"{root}: there is no split {split}; correct --splits")
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            folder = root / split / name
            images, others = _files(folder)
            if not folder.is_dir():
                findings.append(noted("missing class", f"{split}/{name}", "no such folder"))
            elif not images:
                findings.append(noted("empty class", f"{split}/{name}", f"{len(others)} files, none of them an image" if others else ""))
            findings += [noted("not read", other.relative_to(root).as_posix(), "no suffix of an image") for other in others]
            files += images
            labels += [label] * len(images)
        samples[split] = FileSamples.of(root, files, np.array(labels, dtype=np.int64))
    return samples, findings


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Image files, and others that are not hidden."""
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
    return images, [file for file in found if file.suffix.lower() not in IMAGE_SUFFIXES and not file.name.startswith(".")]


def look_at_shards(root: Path, splits: Sequence[str], *, workers: int) -> list[Finding]:
    """Compare shards with the hashes of their manifest, where there is one.

    Args:
        root: Folder of the shards.
        splits: Splits to look at.
        workers: Threads.
    """
    manifest = root / MANIFEST
    held = read_manifest(manifest.read_text(encoding="utf-8"), str(manifest)).splits if manifest.is_file() else {}
    shards = [shard for split in splits if split in held for shard in held[split].shards]
    with ThreadPoolExecutor(workers) as pool:
        details = pool.map(lambda shard: _damage(root / shard.file, shard), shards)
        return [noted("damaged shard", shard.file, detail) for shard, detail in zip(shards, details, strict=True) if detail]


def _damage(path: Path, shard: ManifestShard) -> str:
    if not path.is_file():
        return "missing"
    if path.stat().st_size != shard.bytes:
        return f"{path.stat().st_size} bytes instead of {shard.bytes}"
    return "" if sha256_of(path) == shard.sha256 else "not the manifest's SHA-256"
