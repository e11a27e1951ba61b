"""Images of a dense task without their truth, for stages that learn from pixels alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from g2sd_deploy.data.dense.annotations import DenseSamples


@dataclass(frozen=True)
class PixelsOnly:
    """The images of a dense set, all of class 0. Satisfies `data.images.Samples`."""

    samples: DenseSamples

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        """Class 0 for each: nothing that may be learnt."""
        return np.zeros(len(self), dtype=np.int64)

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        """One block: every order is as good."""
        return np.array([len(self)], dtype=np.int64)

    def name(self, index: int) -> str:
        """As in the dense set."""
        return self.samples.name(index)

    def read(self, index: int) -> UInt8[np.ndarray, "H W C"]:
        """Pixels of one image.

        Raises:
            BadImage: This image, or its annotation, is unusable; so that all stages skip the same images.
            UserError: The place where it lies cannot be read.
        """
        return self.samples.read(index).pixels
