"""Sets without a published protocol: anything that can be opened as a source, and class folders without splits."""

from pathlib import Path

import numpy as np

from g2sd_deploy.data.images import Samples, picks_of
from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, expand, guess_kind, open_source
from g2sd_deploy.data.sources.base import fingerprint_of, is_remote
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.splits import find_splits
from g2sd_deploy.data.testsets.class_folders import entries, is_image
from g2sd_deploy.data.testsets.scorings import Scoring, TestSet, fingerprint_of_set
from g2sd_deploy.errors import UserError

_HUB = "huggingface:"


def is_there(place: str) -> bool:
    """Whether something lies at a place, as far as can be told without asking another machine."""
    return place == BUNDLED_FASHION_MNIST or place.startswith(_HUB) or is_remote(place) or expand(place).exists()


def open_other(place: str, split: str, *, restrict: bool, limit: int | None) -> list[TestSet]:
    """Open a set whose classes are called by the source's own names.

    Args:
        place: What `data.root` of a recipe may be, `huggingface:NAME` of a set on the hub, or a folder of class folders.
        split: Split to take; a folder of class folders without splits has none.
        restrict: Cut the logits to the set's classes.
        limit: Images to take, spread evenly; None for all.

    Raises:
        UserError: It cannot be opened, or has no such split.
    """
    root = _without_splits(place, split)
    samples, class_names, digest, about = _of_source(place, split, limit) if root is None else _of_class_folders(root, limit)
    name = _title(place) if root is not None else f"{_title(place)} {split}"
    cut = f"logits cut to its {len(class_names)} classes" if restrict else "all logits"
    size = f"{limit:,} images, evenly spread" if limit is not None and limit == len(samples) else f"{len(samples):,} images"
    scoring = Scoring(name, np.asarray(samples.labels), class_names, restrict, f"{about.rstrip('.')}; {cut}; {size}")
    return [TestSet(name, samples, (scoring,), fingerprint_of_set(digest, (scoring,)))]


def _title(place: str) -> str:
    """Short name of a place; no path of this machine."""
    if place == BUNDLED_FASHION_MNIST:
        return place.removeprefix("bundled:")
    if place.startswith(_HUB):
        return place.removeprefix(_HUB)
    return place.rstrip("/").rpartition("/")[2] if is_remote(place) else expand(place).resolve().name


def _of_source(place: str, split: str, limit: int | None) -> tuple[Samples, tuple[str, ...], str, str]:
    """Samples, class names, digest of the files and description."""
    on_hub = place.startswith(_HUB)
    kind, root = ("huggingface", place.removeprefix(_HUB)) if on_hub else (guess_kind(place), place)
    if kind == "folder" and split not in (found := find_splits(kind, root)):
        raise UserError(f"--on {place}: has no split {split} (found {', '.join(found)}); choose one with --split")
    source = open_source(kind, root, splits=(split,))
    samples = source.samples(split, limit)
    if not len(samples):
        raise UserError(f"--on {place}: the split {split} holds no images; choose another one with --split")
    return samples, source.class_names, f"{source.fingerprint()} {split} {limit}", source.description


def _without_splits(place: str, split: str) -> Path | None:
    """A folder whose class folders hold images themselves; None where there are splits, or something else."""
    root = expand(place)
    if place == BUNDLED_FASHION_MNIST or not root.is_dir() or guess_kind(place) != "folder" or (root / split).is_dir():
        return None
    has_images = (
        not is_folder and is_image(image) for name, is_class in entries(root) if is_class for image, is_folder in entries(root / name)
    )
    return root if any(has_images) else None


def _of_class_folders(root: Path, limit: int | None) -> tuple[Samples, tuple[str, ...], str, str]:
    """Samples, class names, digest of the files and description; classes are the sorted folder names."""
    class_names = tuple(name for name, is_folder in entries(root) if is_folder)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        found = sorted(file for file in (root / name).rglob("[!.]*") if is_image(file.name) and file.is_file())
        if not found:
            raise UserError(f"{root / name}: the class folder holds no image; add images or remove the class")
        files += found
        labels += [label] * len(found)
    picks = picks_of(len(files), limit)
    samples = FileSamples.of(root, [files[i] for i in picks.tolist()], np.array(labels, dtype=np.int64)[picks])
    about = f"Image files of the folder {root.resolve().name}, one folder per class."
    return samples, class_names, f"{fingerprint_of(root, files)} {limit}", about
