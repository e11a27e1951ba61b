"""Image sources: where images, labels and class names come from."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.data.idx import find_idx, read_idx
from g2sd_deploy.data.images import ImageSet, evenly_spread
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing, fit_image, load_image

BUNDLED_FASHION_MNIST = "bundled:fashion-mnist"
_BUNDLED = Path(__file__).parent.parent / "assets" / "fashion_mnist"
LABELS = "LABELS.txt"
CHECKSUMS = "SHA256SUMS"
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
FASHION_MNIST_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

Tick = Callable[[int, int], None]


class Source(Protocol):
    """A labelled data set with named splits."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        ...

    @property
    def description(self) -> str:
        """What the data is, for the report; names no path of this machine."""
        ...

    def fingerprint(self) -> str:
        """Changes when a file of the source changes; cheap (names, sizes and times, not contents)."""
        ...

    def read(self, split: str, fit: Preprocessing, limit: int | None, tick: Tick) -> ImageSet:
        """Decode one split at the size that `fit` asks for."""
        ...


def guess_kind(root: str) -> str:
    """`idx` for the bundled set or a folder that holds IDX files, else `folder`."""
    folder = expand(root)
    return "idx" if root == BUNDLED_FASHION_MNIST or (folder.is_dir() and any(folder.glob("*-idx?-ubyte*"))) else "folder"


def expand(path: str) -> Path:
    """A path as a recipe writes it: `~` and $VARIABLES are expanded."""
    return Path(os.path.expandvars(path)).expanduser()


def open_source(kind: str, root: str) -> Source:
    """Open a data set; see `DataSettings.source` and `DataSettings.root`.

    Raises:
        UserError: The folder is missing.
    """
    if root == BUNDLED_FASHION_MNIST:
        if kind != "idx":
            raise UserError(f"data.root {root} needs data.source idx, not {kind}")
        folder = _BUNDLED
    else:
        folder = expand(root)
    if not folder.is_dir():
        raise UserError(f"data.root {root}: there is no such folder; set data.root to the folder of the images")
    return IdxSource(folder) if kind == "idx" else FolderSource(folder)


@dataclass(frozen=True)
class IdxSource:
    """Four IDX files in one folder; splits are `train` and anything else (the `t10k` files)."""

    folder: Path

    @property
    def description(self) -> str:
        if self.folder == _BUNDLED:
            return (
                "Fashion-MNIST, the subset inside the package: 1,000 training and 500 test images of each class (MIT licence, Zalando SE)."
            )
        return f"IDX files of the folder {self.folder.name}."

    @property
    def class_names(self) -> tuple[str, ...]:
        """Fashion-MNIST's names where the folder says so by name or by its LABELS.txt, else the digits."""
        listed = self.folder / LABELS
        if listed.is_file():
            return tuple(listed.read_text(encoding="utf-8").splitlines())
        if "fashion" in str(self.folder.resolve()).lower():
            return FASHION_MNIST_CLASSES
        num = int(read_idx(find_idx(self.folder, "train-labels-idx1-ubyte")).max()) + 1
        return tuple(str(i) for i in range(num))

    def fingerprint(self) -> str:
        stems = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
        return _fingerprint(self.folder, [find_idx(self.folder, stem) for stem in stems])

    def read(self, split: str, fit: Preprocessing, limit: int | None, tick: Tick) -> ImageSet:
        _check_sums(self.folder)
        stem = "train" if split == "train" else "t10k"
        images = read_idx(find_idx(self.folder, f"{stem}-images-idx3-ubyte"))
        labels = read_idx(find_idx(self.folder, f"{stem}-labels-idx1-ubyte")).astype(np.int64)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(f"{self.folder}: {stem} images {images.shape} and labels {labels.shape} do not belong together")
        if len(labels) and int(labels.max()) >= len(self.class_names):
            raise UserError(f"{self.folder}: {stem} has label {int(labels.max())}, but there are {len(self.class_names)} class names")
        picked = ImageSet(images[..., None], labels).subset(limit)
        if images.shape[1:] == (fit.image_px, fit.image_px) and fit.num_channels == 1:
            return picked
        fitted = np.empty((len(picked), fit.image_px, fit.image_px, fit.num_channels), np.uint8)
        for i, image in enumerate(picked.images):
            fitted[i] = fit_image(Image.fromarray(image[..., 0]), fit)
            tick(i + 1, len(picked))
        return ImageSet(fitted, picked.labels)


@dataclass(frozen=True)
class FolderSource:
    """SPLIT/CLASS/IMAGE folders; classes are the sorted folder names of all splits."""

    folder: Path

    @property
    def description(self) -> str:
        return f"Image files of the folder {self.folder.name}, one folder per class."

    @property
    def class_names(self) -> tuple[str, ...]:
        splits = sorted(p for p in self.folder.iterdir() if p.is_dir())
        names = sorted({c.name for split in splits for c in split.iterdir() if c.is_dir()})
        if not names:
            raise UserError(f"{self.folder}: holds no class folders; wanted SPLIT/CLASS/IMAGE, for example train/cat/1.jpg")
        return tuple(names)

    def fingerprint(self) -> str:
        files = [f for split in sorted(self.folder.iterdir()) if split.is_dir() for f in self._files(split)]
        return _fingerprint(self.folder, files)

    def read(self, split: str, fit: Preprocessing, limit: int | None, tick: Tick) -> ImageSet:
        files, labels = self._listing(split)
        if limit is not None and limit < len(files):
            picks = evenly_spread(len(files), limit)
            files, labels = [files[i] for i in picks], labels[picks]
        images = np.empty((len(files), fit.image_px, fit.image_px, fit.num_channels), np.uint8)
        with ThreadPoolExecutor() as pool:
            for i, image in enumerate(pool.map(lambda file: load_image(file, fit), files)):
                images[i] = image
                tick(i + 1, len(files))
        return ImageSet(images, labels)

    def _listing(self, split: str) -> tuple[list[Path], np.ndarray]:
        folder = self.folder / split
        if not folder.is_dir():
            have = ", ".join(sorted(p.name for p in self.folder.iterdir() if p.is_dir())) or "no folders"
            raise UserError(f"{self.folder}: there is no split {split} (found {have}); set data.train_split and data.test_split")
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            found = self._files(folder / name) if (folder / name).is_dir() else []
            if not found:
                raise UserError(f"{folder / name}: the class folder holds no image; add images or remove the class")
            files += found
            labels += [label] * len(found)
        return files, np.asarray(labels, dtype=np.int64)

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return sorted(f for f in folder.rglob("*") if f.suffix.lower() in _IMAGE_SUFFIXES and f.is_file())


def _check_sums(folder: Path) -> None:
    """Compare the files with the folder's SHA256SUMS, where it has one."""
    listed = folder / CHECKSUMS
    for line in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ():
        digest, name = line.split(maxsplit=1)
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise UserError(f"{folder / name}: is not the file that {CHECKSUMS} names; install the package again, or correct {CHECKSUMS}")


def _fingerprint(root: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
