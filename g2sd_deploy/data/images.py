"""Images of one split, and the set of them that is decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8


class BadImage(Exception):  # noqa: N818 (it is the image that is bad)
    """One image that cannot be used; carries the reason as its text."""


@dataclass(frozen=True)
class Skipped:
    """One bad image: its index in the set, its name for people, and what is wrong with it."""

    index: int
    name: str
    reason: str


@runtime_checkable
class Samples(Protocol):
    """Images of one split by index, encoded or decoded.

    They can be pickled into a loader worker and opened there anew: file handles are opened lazily, in each process.
    """

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        """Class of each image."""
        ...

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        """Lengths of the runs of neighbours that lie together (shards); one block where any order is as good. Their sum is `len`."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The image, for messages: its path within the source, or its shard and member; no path of this machine."""
        ...

    def read(self, index: int) -> bytes | UInt8[np.ndarray, "H W C"]:
        """The image's file as it is, or its pixels where they are stored decoded.

        Raises:
            BadImage: This image cannot be had.
            UserError: The place where it lies cannot be read, which is not the image's fault.
        """
        ...


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of one size with their labels; may be memory-mapped. Satisfies `Samples`."""

    images: UInt8[np.ndarray, "num height width channels"]
    labels: Int64[np.ndarray, "num"]

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Callable[..., "ImageSet"], tuple[object, ...]]:
        """A mapped file is mapped anew in a loader's worker; NumPy would send all of its bytes."""
        if isinstance(self.images, np.memmap) and isinstance(self.images.base, mmap):
            return _mapped, (str(self.images.filename), self.labels)
        return ImageSet, (self.images, self.labels)

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        """One block: every order is as good."""
        return np.array([len(self)], dtype=np.int64)

    def name(self, index: int) -> str:
        """Images in an array have nothing but their place."""
        return f"image {index}"

    def read(self, index: int) -> UInt8[np.ndarray, "height width channels"]:
        """Pixels of one image; a view of the array."""
        pixels: UInt8[np.ndarray, "height width channels"] = self.images[index]
        return pixels

    def subset(self, limit: int | None) -> "ImageSet":
        """At most `limit` images, spread evenly over the set's order; the same ones every time."""
        if limit is None or limit >= len(self):
            return self
        picks = evenly_spread(len(self), limit)
        return ImageSet(self.images[picks], self.labels[picks])


def _mapped(file: str, labels: Int64[np.ndarray, "num"]) -> ImageSet:
    return ImageSet(np.load(file, mmap_mode="r"), labels)


def evenly_spread(size: int, limit: int) -> Int64[np.ndarray, "limit"]:
    """Indices of `limit` samples out of `size`, evenly spaced from the first on."""
    return (np.arange(limit, dtype=np.int64) * size) // limit


def picks_of(size: int, limit: int | None) -> Int64[np.ndarray, "picks"]:
    """Indices of at most `limit` samples out of `size`, evenly spaced; all of them without a limit."""
    return evenly_spread(size, size if limit is None else min(size, limit))
