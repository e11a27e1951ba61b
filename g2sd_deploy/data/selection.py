"""Some images of a split, as a split of their own."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from g2sd_deploy.data.images import Samples
from g2sd_deploy.randomness import permutation


@dataclass(frozen=True)
class Selection:
    """Some of the images, in their order. Satisfies `Samples`.

    Attributes:
        samples: All of them.
        indices: Those that are meant, ascending.
    """

    samples: Samples
    indices: Int64[np.ndarray, "num"]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        """Class of each image."""
        chosen: Int64[np.ndarray, "num"] = np.asarray(self.samples.labels)[self.indices]
        return chosen

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        """How many of them lie in each block of all images; a block may have none."""
        ends = np.cumsum(self.samples.block_sizes)
        return np.diff(np.searchsorted(self.indices, ends), prepend=0).astype(np.int64)

    def name(self, index: int) -> str:
        """As among all images."""
        return self.samples.name(int(self.indices[index]))

    def read(self, index: int) -> bytes | UInt8[np.ndarray, "H W C"]:
        """As among all images; raises as that does."""
        return self.samples.read(int(self.indices[index]))


def random_selection(samples: Samples, num: int, *, seed: int, stream: str) -> tuple[Selection, Selection]:
    """Draw some images. At random, for neighbours may be alike, and every tenth image may be of one class.

    Args:
        samples: All images.
        num: How many to draw; all of them where there are not so many.
        seed: The recipe's seed.
        stream: What they are for; another one draws others.

    Returns:
        Those that are drawn, and those that are left; both in the order of all images.
    """
    order = permutation(seed, stream, 0, len(samples))
    drawn, left = np.sort(order[:num]), np.sort(order[num:])
    return Selection(samples, drawn), Selection(samples, left)
