"""What is done to an image before models see it: nothing, a corruption, or the removal of patches."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64, UInt8

from g2sd_deploy.data.corruptions import CorruptionName
from g2sd_deploy.data.corruptions.api import corrupt
from g2sd_deploy.evaluation.occlusion import Order, fill_colour, occlude, removal_order
from g2sd_export.edge.preprocess import Preprocessing

Images = UInt8[np.ndarray, "batch height width channels"]


@dataclass(frozen=True)
class Batch:
    """Images of one batch beside their pixels.

    Attributes:
        keys: A number of each image that stays with it (a hash of its name), whatever set, order or batch it is seen in.
        salience: Importance of each patch, computed when it is first asked for; None where no teacher tells it.
    """

    keys: Int64[np.ndarray, "batch"]
    salience: Callable[[], Float[np.ndarray, "batch patches"]] | None = None


@runtime_checkable
class Variant(Protocol):
    """One way to change images; its result depends on the image and its key alone."""

    @property
    def name(self) -> str:
        """Unique in a pass; empty for clean images."""
        ...

    def group(self, pre: Preprocessing) -> Hashable:
        """Models of equal groups are shown the same pixels."""
        ...

    def apply(self, images: Images, pre: Preprocessing, batch: Batch) -> Images:
        """The changed images; those given are not modified."""
        ...


def geometry(pre: Preprocessing) -> Hashable:
    """What decides the pixels of a clean image: all of the preprocessing but mean and deviation."""
    return pre.image_px, pre.resize_px, pre.num_channels, pre.interpolation


@dataclass(frozen=True)
class Clean:
    """Images as they are."""

    name: str = ""

    def group(self, pre: Preprocessing) -> Hashable:
        return geometry(pre)

    def apply(self, images: Images, pre: Preprocessing, batch: Batch) -> Images:
        return images


@dataclass(frozen=True)
class Corrupted:
    """A regenerated corruption of ImageNet-C."""

    corruption: CorruptionName
    severity: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.corruption}/{self.severity}"

    def group(self, pre: Preprocessing) -> Hashable:
        return geometry(pre)

    def apply(self, images: Images, pre: Preprocessing, batch: Batch) -> Images:
        return corrupt(images, self.corruption, self.severity, keys=batch.keys.tolist(), seed=self.seed)


@dataclass(frozen=True)
class Occluded:
    """A share of the patches painted with the model's mean colour."""

    order: Order
    share: float
    grid: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.order}/{self.share:g}"

    def group(self, pre: Preprocessing) -> Hashable:
        return geometry(pre), pre.mean

    def apply(self, images: Images, pre: Preprocessing, batch: Batch) -> Images:
        salience = None
        if self.order != "random":
            assert batch.salience is not None
            salience = batch.salience()
        order = removal_order(self.order, salience, batch.keys, self.seed, self.grid**2)
        return occlude(images, order, self.share, self.grid, fill_colour(pre))
