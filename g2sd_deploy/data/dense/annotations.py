"""The truth of one image of a dense task, and the set of images that have one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

IGNORED = 255
"""Value of a semantic map that no loss and no metric looks at."""


@dataclass(frozen=True)
class Instances:
    """Objects of one image.

    Attributes:
        boxes: Left, top, right, bottom in pixels of the image; right > left, bottom > top.
        labels: Class of each object, 0 .. classes-1.
        masks: True where the object is.
        crowd: Regions that are neither hit nor miss.
    """

    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"]
    crowd: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Annotated:
    """An image with its truth.

    Attributes:
        pixels: The image.
        classes: Semantic map, 0 .. classes-1; IGNORED where nothing is asked. None where the set has no such truth.
        instances: Objects, possibly none of them. None where the set has no such truth.
    """

    pixels: UInt8[np.ndarray, "h w c"]
    classes: UInt8[np.ndarray, "h w"] | None
    instances: Instances | None


@runtime_checkable
class DenseSamples(Protocol):
    """Images of one split with their truth, by index. They can be pickled into a loader worker."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The image, for messages; no path of this machine."""
        ...

    def read(self, index: int) -> Annotated:
        """An image and its truth.

        Raises:
            BadImage: This image or its annotation is unusable.
            UserError: The place where it lies cannot be read, which is not the image's fault.
        """
        ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what it takes to open these samples again under `folder`.

        Returns:
            Where they lie, for JSON; `open_dense` has to be told.
        """
        ...
