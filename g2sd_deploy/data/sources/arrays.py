"""NumPy arrays of decoded images: SPLIT_images.npy and SPLIT_labels.npy in a folder, memory-mapped, or one .npz, read into memory."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from g2sd_deploy.data.images import ImageSet, Samples, picks_of
from g2sd_deploy.data.sources.base import CLASSES, Source, check_labels, fingerprint_of, listed_classes, numbered_classes
from g2sd_deploy.data.sources.listing import Listing
from g2sd_deploy.errors import UserError


def open_arrays(path: Path, splits: tuple[str, ...]) -> Source:
    """Arrays in a folder, or in one .npz."""
    return NpySource(path, splits) if path.is_dir() else NpzSource(path, splits)


class NpySource:
    """SPLIT_images.npy, uint8 [N, H, W] or [N, H, W, C], and SPLIT_labels.npy, whole numbers [N]."""

    def __init__(self, folder: Path, splits: tuple[str, ...]) -> None:
        self.folder = folder
        self._splits = splits

    @property
    def description(self) -> str:
        return f"NumPy arrays of the folder {self.folder.resolve().name}."

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of classes.txt, else the labels."""
        listed = self.folder / CLASSES
        if listed.is_file():
            return listed_classes(listed.read_text(encoding="utf-8"))
        return numbered_classes([_load(self._file(split, "labels")) for split in self._splits])

    def fingerprint(self) -> str:
        names = [self._file(split, kind) for split in self._splits for kind in ("images", "labels")]
        return fingerprint_of(self.folder, [*names, *self.folder.glob(CLASSES)])

    def samples(self, split: str, limit: int | None) -> "ArraySamples":
        file = self._file(split, "images")
        images, labels = _load(file), _load(self._file(split, "labels"))
        labels = _checked(images, labels, len(self.class_names), f"{self.folder}: {split}")
        rows = picks_of(len(images), limit)
        about, where = {"bytes": file.stat().st_size}, {"images": str(file.resolve())}
        return ArraySamples(Listing("arrays", about, where, {"rows": rows, "labels": labels[rows]}))

    def _file(self, split: str, kind: str) -> Path:
        path = self.folder / f"{split}_{kind}.npy"
        if not path.is_file():
            have = ", ".join(sorted(file.name for file in self.folder.glob("*.npy"))) or "no .npy files"
            raise UserError(f"{self.folder}: there is no {path.name} (found {have}); set data.train_split and data.test_split")
        return path


class ArraySamples:
    """Rows of one memory-mapped array."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._path = Path(listing.where["images"])
        self._rows = listing.arrays["rows"]
        self._images: np.ndarray | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (ArraySamples, (self.listing,))

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        return self.listing.arrays["labels"]

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        return np.array([len(self)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return f"{self._path.name}/{self._rows[index]}"

    def read(self, index: int) -> UInt8[np.ndarray, "H W C"]:
        if self._images is None:
            self._images = self._opened()
        image = self._images[self._rows[index]]
        return np.array(image if image.ndim == 3 else image[..., None])

    def _opened(self) -> np.ndarray:
        if not self._path.is_file() or self._path.stat().st_size != self.listing.about["bytes"]:
            raise UserError(f"{self._path}: is gone or has another size than when it was listed; run the same command again")
        return _load(self._path)


class NpzSource:
    """One .npz with SPLIT_images and SPLIT_labels of each split, and class_names where it has any."""

    def __init__(self, file: Path, splits: tuple[str, ...]) -> None:
        self.file = file
        self._splits = splits

    @property
    def description(self) -> str:
        return f"NumPy arrays of the file {self.file.name}."

    @property
    def class_names(self) -> tuple[str, ...]:
        with self._open() as arrays:
            if "class_names" in arrays:
                return tuple(str(name) for name in arrays["class_names"])
            return numbered_classes([_member(arrays, f"{split}_labels", self.file) for split in self._splits])

    def fingerprint(self) -> str:
        return fingerprint_of(self.file.parent, [self.file])

    def samples(self, split: str, limit: int | None) -> Samples:
        with self._open() as arrays:
            images, labels = (_member(arrays, f"{split}_{kind}", self.file) for kind in ("images", "labels"))
        labels = _checked(images, labels, len(self.class_names), f"{self.file}: {split}")
        return ImageSet(images if images.ndim == 4 else images[..., None], labels).subset(limit)

    def _open(self) -> Any:
        try:
            return np.load(self.file, allow_pickle=False)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.file}: cannot be read as .npz ({error}); write it with numpy.savez") from None


def _member(arrays: Any, name: str, file: Path) -> np.ndarray:
    if name not in arrays:
        raise UserError(f"{file}: holds no {name} (found {', '.join(arrays)}); set data.train_split and data.test_split")
    try:
        member: np.ndarray = arrays[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: {name} cannot be read ({error}); write it again with numpy.savez, without objects") from None
    return member


def _load(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as .npy ({error}); write it again with numpy.save, without objects") from None
    return array


def _checked(images: np.ndarray, labels: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """Labels as int64, once images and labels are known to fit together."""
    channels = images.shape[3:] or (1,)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or channels not in ((1,), (3,)):
        raise UserError(f"{where} images are {images.dtype} {list(images.shape)}; wanted uint8 [N, H, W] or [N, H, W, 1 or 3]")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(f"{where} labels are {labels.dtype} {list(labels.shape)}; wanted {len(images)} whole numbers, one per image")
    check_labels(labels, num_classes, where)
    return labels.astype(np.int64)
