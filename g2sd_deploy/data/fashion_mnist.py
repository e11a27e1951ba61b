"""Make the Fashion-MNIST subset that ships inside the package: `python -m g2sd_deploy.data.fashion_mnist SOURCE TARGET`.

SOURCE is a folder with the four full IDX files (Debian: apt-get install dataset-fashion-mnist, /usr/share/datasets/fashion-mnist).
The subset is the first 1,000 training and the first 500 test images of each class, in the order of the source.
"""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.data.idx import find_idx, read_idx, write_idx
from g2sd_deploy.data.sources import CHECKSUMS, FASHION_MNIST_CLASSES, LABELS

_PER_CLASS = {"train": 1000, "t10k": 500}


def first_of_each_class(labels: np.ndarray, per_class: int) -> Int64[np.ndarray, "picks"]:
    """Indices of the first `per_class` samples of each class, in source order."""
    picks = [np.flatnonzero(labels == label)[:per_class] for label in np.unique(labels)]
    return np.sort(np.concatenate(picks)).astype(np.int64)


def make_subset(source: Path, target: Path) -> None:
    """Write the four IDX files, the class names and the checksums; the same source gives the same bytes."""
    target.mkdir(parents=True, exist_ok=True)
    for split, per_class in _PER_CLASS.items():
        labels = read_idx(find_idx(source, f"{split}-labels-idx1-ubyte"))
        picks = first_of_each_class(labels, per_class)
        write_idx(target / f"{split}-labels-idx1-ubyte.gz", labels[picks])
        write_idx(target / f"{split}-images-idx3-ubyte.gz", read_idx(find_idx(source, f"{split}-images-idx3-ubyte"))[picks])
    (target / LABELS).write_text("".join(f"{name}\n" for name in FASHION_MNIST_CLASSES), encoding="utf-8")
    names = [*sorted(path.name for path in target.glob("*.gz")), LABELS]
    lines = [f"{sha256_of(target / name)}  {name}\n" for name in names]
    (target / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    make_subset(Path(sys.argv[1]), Path(sys.argv[2]))
