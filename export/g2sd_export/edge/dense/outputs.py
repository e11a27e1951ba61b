"""What a network for pixels or objects gives: the names, kinds and shapes of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from .placement import Placement
from .stitching import class_map
from .task import MASK_PX, DenseTask

LOGITS = "logits"
CLASSES = "classes"
DETECTION_OUTPUTS = ("boxes", "scores", "labels", "masks")

_FLOATS = ("float16", "float32", "float64")
_WANTED = {
    LOGITS: f"{LOGITS} float32 [batch, classes, side, side]",
    CLASSES: f"{CLASSES} uint8 [batch, px, px]",
    "detection": f"boxes float32 [batch, K, 4], scores float32 [batch, K], labels int64 [batch, K] and masks float32 "
    f"[batch, K, {MASK_PX}, {MASK_PX}]",
}


def output_names(task: DenseTask, available: Sequence[str]) -> tuple[str, ...]:
    """The outputs that answer a task, in the order in which ``infer`` gives them.

    Args:
        task: What the network does.
        available: Names of the network's outputs.

    Returns:
        ``("logits",)`` or ``("classes",)`` in segmentation, ``DETECTION_OUTPUTS`` in detection.

    Raises:
        UserError: The network does not have them.
    """
    listed = ", ".join(available) or "none"
    if task.kind == "detection":
        if missing := [name for name in DETECTION_OUTPUTS if name not in available]:
            raise UserError(f"the detector has no output {', '.join(missing)}, only {listed}; wanted {_WANTED['detection']}")
        return DETECTION_OUTPUTS
    found = [name for name in (LOGITS, CLASSES) if name in available]
    if len(found) != 1:
        raise UserError(f"the segmentation network gives {listed}; wanted either {_WANTED[LOGITS]} or {_WANTED[CLASSES]}")
    return (found[0],)


def checked(outputs: Sequence[npt.NDArray[Any]], task: DenseTask, num_classes: int) -> tuple[npt.NDArray[Any], ...]:
    """Outputs in their kinds of number, if they are what the task asks for.

    Args:
        outputs: In the order of ``output_names``.
        task: What the network does.
        num_classes: Classes that have a name.

    Returns:
        float32 logits, or uint8 classes; or boxes, scores and masks in float32 and labels in int64.

    Raises:
        UserError: Another shape or kind of number, a number that is NaN or infinite, or a class without a name.
    """
    arrays = tuple(np.asarray(output) for output in outputs)
    return _checked_objects(arrays, num_classes) if task.kind == "detection" else (_checked_pixels(arrays, task, num_classes),)


def answer_of(outputs: Sequence[npt.NDArray[Any]], task: DenseTask) -> dict[str, npt.NDArray[Any]]:
    """What is compared of a network's outputs, and kept in a bundle's sample.

    Args:
        outputs: As ``infer`` gives them, of N square inputs.
        task: What the network does.

    Returns:
        ``classes`` uint8 [N, px, px], the class of each pixel of the inputs; or the four outputs of a detector by name.
    """
    if task.kind == "detection":
        return dict(zip(DETECTION_OUTPUTS, outputs))
    if outputs[0].ndim == 3:
        return {CLASSES: outputs[0]}
    px = task.image_px
    whole = Placement((px, px), (px, px), ((0, 0),), px)
    return {CLASSES: np.stack([class_map(logits[None], whole) for logits in outputs[0]])}


def _checked_pixels(arrays: tuple[npt.NDArray[Any], ...], task: DenseTask, num_classes: int) -> npt.NDArray[Any]:
    if len(arrays) != 1:
        raise UserError(f"the segmentation network gave {len(arrays)} arrays; wanted either {_WANTED[LOGITS]} or {_WANTED[CLASSES]}")
    (found,) = arrays
    if found.ndim == 4 and found.dtype.name in _FLOATS and found.shape[1] == num_classes and min(found.shape[2:]) > 0:
        _refuse_infinite(LOGITS, found)
        return found.astype(np.float32, copy=False)
    if found.dtype == np.uint8 and found.ndim == 3 and found.shape[1:] == (task.image_px,) * 2:
        if found.size and int(found.max()) >= num_classes:
            raise UserError(f"the segmentation network gave class {int(found.max())}, and {num_classes} classes are named")
        return found
    raise UserError(
        f"the segmentation network gave {found.dtype} {list(found.shape)} for {num_classes} classes and {task.image_px} px; "
        f"wanted {_WANTED[LOGITS]} or {_WANTED[CLASSES]}"
    )


def _checked_objects(arrays: tuple[npt.NDArray[Any], ...], num_classes: int) -> tuple[npt.NDArray[Any], ...]:
    shapes = [list(array.shape) for array in arrays]
    head = shapes[1] if len(shapes) == len(DETECTION_OUTPUTS) and len(shapes[1]) == 2 else None
    if head is None or shapes != [[*head, 4], head, head, [*head, MASK_PX, MASK_PX]]:
        raise UserError(f"the detector gave arrays of shapes {shapes}; wanted {_WANTED['detection']}")
    boxes, scores, labels, masks = arrays
    if labels.dtype.kind not in "iu" or any(array.dtype.name not in _FLOATS for array in (boxes, scores, masks)):
        kinds = ", ".join(f"{name} {array.dtype}" for name, array in zip(DETECTION_OUTPUTS, arrays))
        raise UserError(f"the detector gave {kinds}; wanted {_WANTED['detection']}")
    for name, array in (("boxes", boxes), ("scores", scores), ("masks", masks)):
        _refuse_infinite(name, array)
    real = labels[scores > 0]
    if real.size and not 0 <= int(real.min()) <= int(real.max()) < num_classes:
        raise UserError(f"the detector gave class {int(real.min())} or {int(real.max())}, and {num_classes} classes are named")
    return (
        boxes.astype(np.float32, copy=False),
        scores.astype(np.float32, copy=False),
        labels.astype(np.int64, copy=False),
        masks.astype(np.float32, copy=False),
    )


def _refuse_infinite(name: str, array: npt.NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        raise UserError(f"the network's {name} are NaN or infinite in places; the file or the runtime is broken")
