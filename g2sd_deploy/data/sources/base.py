"""What every source shares: its interface, paths as a recipe writes them, fingerprints and lists of class names."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from g2sd_deploy.data.images import Samples
from g2sd_deploy.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
CLASSES = "classes.txt"


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

    def samples(self, split: str, limit: int | None) -> Samples:
        """Images of one split, at most `limit` of them, spread evenly over the source's order.

        Raises:
            UserError: The split is not there, or its files do not belong together.
        """
        ...


def is_remote(root: str) -> bool:
    """Whether a root is an address (https://, s3://, ...), not a path."""
    return "://" in root


def expand(path: str) -> Path:
    """A path as a recipe writes it: `~` and $VARIABLES are expanded."""
    return Path(os.path.expandvars(path)).expanduser()


def fingerprint_of(root: Path, files: Iterable[Path]) -> str:
    """Digest of the names, sizes and times of files under a root."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def listed_classes(text: str) -> tuple[str, ...]:
    """Class names of a classes.txt: one a line; empty lines at the end are no names."""
    return tuple(line.strip() for line in text.rstrip().splitlines())


def numbered_classes(labels: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Labels as names, for a source that has no other."""
    return tuple(str(i) for i in range(1 + max((int(some.max()) for some in labels if len(some)), default=-1)))


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Refuse labels that have no name.

    Raises:
        UserError: A label is negative, or not below the number of classes.
    """
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        wrong = int(labels.max()) if int(labels.max()) >= num_classes else int(labels.min())
        raise UserError(f"{where} has label {wrong}, but there are {num_classes} class names")
