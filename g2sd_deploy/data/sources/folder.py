"""Image files in SPLIT/CLASS/ folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.data.images import BadImage, picks_of
from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES, fingerprint_of
from g2sd_deploy.data.sources.listing import Listing, Names
from g2sd_deploy.errors import UserError


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
        files = [f for split in sorted(self.folder.iterdir()) if split.is_dir() for f in _files(split)]
        return fingerprint_of(self.folder, files)

    def samples(self, split: str, limit: int | None) -> "FileSamples":
        files, labels = self._split(split)
        picks = picks_of(len(files), limit)
        return FileSamples.of(self.folder, [files[i] for i in picks], labels[picks])

    def _split(self, split: str) -> tuple[list[Path], np.ndarray]:
        folder = self.folder / split
        if not folder.is_dir():
            have = ", ".join(sorted(p.name for p in self.folder.iterdir() if p.is_dir())) or "no folders"
            raise UserError(f"{self.folder}: there is no split {split} (found {have}); set data.train_split and data.test_split")
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            found = _files(folder / name) if (folder / name).is_dir() else []
            if not found:
                raise UserError(f"{folder / name}: the class folder holds no image; add images or remove the class")
            files += found
            labels += [label] * len(found)
        return files, np.asarray(labels, dtype=np.int64)


class FileSamples:
    """Image files under one folder, as they were when they were listed."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._root = Path(listing.where["root"])
        self._names = listing.names()
        self._sizes = listing.arrays["sizes"]

    def __reduce__(self) -> tuple[Any, ...]:
        return (FileSamples, (self.listing,))

    @classmethod
    def of(cls, root: Path, files: Sequence[Path], labels: Int64[np.ndarray, "num"]) -> "FileSamples":
        """Files under a root, with the class of each."""
        names = Names.pack([file.relative_to(root).as_posix() for file in files])
        sizes = np.array([file.stat().st_size for file in files], dtype=np.int64)
        arrays = {"names": names.text, "name_ends": names.ends, "sizes": sizes, "labels": labels}
        return cls(Listing("files", {}, {"root": str(root.resolve())}, arrays))

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        return self.listing.arrays["labels"]

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        return np.array([len(self)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def read(self, index: int) -> bytes:
        path = self._root / self._names[index]
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if not self._root.is_dir():
                raise UserError(f"{self._root}: the folder of the images is not there any more; mount it again, or set data.root") from None
            raise BadImage("the file is gone since the images were listed") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); correct it and run the same command again") from None
        if len(content) != self._sizes[index]:
            raise BadImage(f"the file has {len(content)} bytes, but had {self._sizes[index]} when the images were listed")
        return content


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
