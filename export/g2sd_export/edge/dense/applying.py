"""From an image of any size to its map of classes or its objects, with any network that is called as ``infer``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .detections import Detections, detections_of
from .network import Infer
from .preparing import prepared
from .stitching import class_map
from .task import DenseTask


def segment(infer: Infer, pixels: npt.NDArray[np.uint8], task: DenseTask, *, batch: int = 1) -> npt.NDArray[np.uint8]:
    """The class of each pixel of an image.

    Args:
        infer: The network.
        pixels: uint8 [h, w, c].
        task: How the image becomes its input.
        batch: Windows per call.

    Returns:
        uint8 [h, w].

    Raises:
        UserError: The image cannot be resized, or the network gave something else than answers.
    """
    placement, windows = prepared(pixels, task)
    answers: list[npt.NDArray[Any]] = [infer(windows[start : start + batch])[0] for start in range(0, len(windows), batch)]
    return class_map(np.concatenate(answers), placement)


def detect(infer: Infer, pixels: npt.NDArray[np.uint8], task: DenseTask) -> Detections:
    """The objects of an image, the surest first.

    Args:
        infer: The network.
        pixels: uint8 [h, w, c].
        task: How the image becomes its input, and the score from which on an object is reported.

    Returns:
        Boxes and masks in pixels of the image.

    Raises:
        UserError: The image cannot be resized, or the network gave something else than answers.
    """
    placement, windows = prepared(pixels, task)
    boxes, scores, labels, masks = (array[0] for array in infer(windows))
    return detections_of(boxes, scores, labels, masks, placement, task.min_score)
