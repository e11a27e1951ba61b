"""What a network does that answers for every pixel or every object, and how an image becomes its input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..preprocess import Preprocessing

KINDS = ("segmentation", "detection")
INFERENCES = ("whole", "slide")

MASK_PX = 28
"""Side of the small mask that a detector gives for each box."""


@dataclass(frozen=True)
class DenseTask:
    """How an image becomes the network's input, and its answer a result.

    Attributes:
        kind: "segmentation" or "detection".
        image_px: Side of the square input.
        num_channels: 1 (grey) or 3 (RGB).
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255; above 0.
        inference: "whole": the image is shrunk or enlarged to fit into the square, its aspect kept, and padded at the right and the bottom
            with the mean; "slide" (segmentation only): its short side becomes ``image_px``, windows of the square's size go over it, and
            the logits are averaged where they overlap.
        stride: Pixels between windows, from 1 to ``image_px``; None unless windows slide.
        min_score: In [0, 1]: detections below it are not reported; 0.05 and without a meaning in segmentation.

    Raises:
        UserError: A value lies outside its range.
    """

    kind: str
    image_px: int
    num_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inference: str = "whole"
    stride: int | None = None
    min_score: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"task: kind is {self.kind!r}; it must be {' or '.join(KINDS)}")
        if self.inference not in INFERENCES:
            raise UserError(f"task: inference is {self.inference!r}; it must be {' or '.join(INFERENCES)}")
        if self.kind == "detection" and self.inference == "slide":
            raise UserError("task: inference is 'slide' and kind is 'detection'; windows slide in segmentation only, so make it 'whole'")
        if (self.inference == "slide") != (self.stride is not None):
            raise UserError(
                f"task: inference is {self.inference!r} and stride is {self.stride}; windows slide with a stride, and only they"
            )
        if self.stride is not None and not 1 <= self.stride <= self.image_px:
            raise UserError(f"task: stride is {self.stride}; it must lie between 1 and image_px ({self.image_px})")
        if not 0 <= self.min_score <= 1:
            raise UserError(f"task: min_score is {self.min_score}; it must lie between 0 and 1")
        self.preprocessing()  # refuses a side, channels, a mean and a deviation that cannot be

    def preprocessing(self) -> Preprocessing:
        """The network's input as the runners check and normalise it: a square that is made already, so that nothing is cut off."""
        return Preprocessing(self.image_px, self.image_px, self.num_channels, tuple(self.mean), tuple(self.std), "bilinear")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the order of the fields; the inverse of ``from_dict``."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DenseTask:
        """Read what ``to_dict`` wrote.

        Raises:
            UserError: A key is missing, unknown or of the wrong type, or a value lies outside its range.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"task: it is {values!r}; wanted an object, or nothing in a bundle of a classifier")
        fields = {field.name for field in dataclasses.fields(cls)}
        if wrong := sorted(set(values) ^ fields):
            raise UserError(f"task: missing or unknown keys {', '.join(wrong)}; the keys are {', '.join(sorted(fields))}")
        for key in ("image_px", "num_channels", "stride"):
            if type(values[key]) is not int and not (key == "stride" and values[key] is None):
                raise UserError(f"task: {key} is {values[key]!r}; it must be a whole number")
        for key in ("kind", "inference"):
            if not isinstance(values[key], str):
                raise UserError(f"task: {key} is {values[key]!r}; it must be text")
        read = {**values, "mean": _numbers("mean", values["mean"]), "std": _numbers("std", values["std"])}
        (read["min_score"],) = _numbers("min_score", [values["min_score"]])
        return cls(**read)


def _numbers(key: str, values: object) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise UserError(f"task: {key} is {values!r}; it must be of finite numbers")
    return tuple(float(value) for value in values)
