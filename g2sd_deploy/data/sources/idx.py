"""Four IDX files in one folder, as MNIST and Fashion-MNIST ship them; they are read into memory."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.data.idx import find_idx, read_idx
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.data.sources.base import check_labels, fingerprint_of
from g2sd_deploy.errors import UserError

BUNDLED_FASHION_MNIST = "bundled:fashion-mnist"
BUNDLED = Path(__file__).parent.parent.parent / "assets" / "fashion_mnist"
LABELS = "LABELS.txt"
CHECKSUMS = "SHA256SUMS"
FASHION_MNIST_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass(frozen=True)
class IdxSource:
    """Four IDX files in one folder; splits are `train` and anything else (the `t10k` files)."""

    folder: Path

    @property
    def description(self) -> str:
        if self.folder == BUNDLED:
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
        return fingerprint_of(self.folder, [find_idx(self.folder, stem) for stem in stems])

    def samples(self, split: str, limit: int | None) -> ImageSet:
        _check_sums(self.folder)
        stem = "train" if split == "train" else "t10k"
        images = read_idx(find_idx(self.folder, f"{stem}-images-idx3-ubyte"))
        labels = read_idx(find_idx(self.folder, f"{stem}-labels-idx1-ubyte")).astype(np.int64)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(f"{self.folder}: {stem} images {images.shape} and labels {labels.shape} do not belong together")
        check_labels(labels, len(self.class_names), f"{self.folder}: {stem}")
        return ImageSet(images[..., None], labels).subset(limit)


def _check_sums(folder: Path) -> None:
    """Compare the files with the folder's SHA256SUMS, where it has one."""
    listed = folder / CHECKSUMS
    for line in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ():
        digest, name = line.split(maxsplit=1)
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise UserError(f"{folder / name}: is not the file that {CHECKSUMS} names; install the package again, or correct {CHECKSUMS}")
