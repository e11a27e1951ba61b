"""A set of images in memory."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8


@dataclass(frozen=True)
class ImageSet:
    """Decoded images of one size with their labels; may be memory-mapped."""

    images: UInt8[np.ndarray, "num height width channels"]
    labels: Int64[np.ndarray, "num"]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, limit: int | None) -> "ImageSet":
        """At most `limit` images, spread evenly over the set's order; the same ones every time."""
        if limit is None or limit >= len(self):
            return self
        picks = evenly_spread(len(self), limit)
        return ImageSet(self.images[picks], self.labels[picks])


def evenly_spread(size: int, limit: int) -> Int64[np.ndarray, "limit"]:
    """Indices of `limit` samples out of `size`, evenly spaced from the first on."""
    return (np.arange(limit, dtype=np.int64) * size) // limit
