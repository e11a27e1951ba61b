"""The input of a network, whoever wrote its file: names, shapes, layouts, kinds of number, and batches of a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .preprocess import Preprocessing, check_images, normalise

Layout = Literal["NCHW", "NHWC"]
"""Order of the input's dimensions: images, channels, rows, columns, or with the channels last."""
InputDtype = Literal["float32", "float16", "uint8"]
"""Kind of number that the input holds; uint8 takes the pixels as they are, the others normalised images."""


@dataclass(frozen=True)
class ImageInput:
    """The input of a network; None for what is free.

    Attributes:
        name: Of the tensor.
        layout: Order of its dimensions.
        batch: Images at a time.
        num_channels: 1 (grey) or 3 (RGB).
        image_px: Side of the square image.
        dtype: Kind of number.
    """

    name: str
    layout: Layout
    batch: int | None
    num_channels: int | None
    image_px: int | None
    dtype: InputDtype = "float32"

    def check(self, pre: Preprocessing) -> None:
        """Raise UserError unless prepared images fit."""
        if self.num_channels not in (None, pre.num_channels) or self.image_px not in (None, pre.image_px):
            side = "any size" if self.image_px is None else f"{self.image_px} px"
            raise UserError(
                f"the model's input {self.name!r} takes images of {self.num_channels or 'any number of'} channels and {side}; "
                f"the preprocessing makes {pre.num_channels} channels and {pre.image_px} px"
            )

    def prepared(self, images: npt.NDArray[np.uint8], pre: Preprocessing) -> npt.NDArray[Any]:
        """What this input takes for images.

        Args:
            images: uint8 [B, H, W, C].
            pre: Mean and standard deviation, used where the input is not uint8.

        Returns:
            [B, C, H, W] or [B, H, W, C] in this input's kind of number, contiguous.

        Raises:
            ValueError: The images are not uint8 of the size that ``pre`` asks for.
        """
        if self.dtype == "uint8":
            check_images(images, pre)
            return np.ascontiguousarray(images if self.layout == "NHWC" else images.transpose(0, 3, 1, 2))
        unit = normalise(images, pre)
        arranged = unit if self.layout == "NCHW" else unit.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(arranged, dtype=self.dtype)


def read_image_input(name: str, shape: Sequence[int | str | None], layout: Layout | None = None, dtype: str = "float32") -> ImageInput:
    """What kind of images an input takes.

    Args:
        name: Of the input.
        shape: Its dimensions, as the graph has them: a number above 0 is fixed, anything else is free.
        layout: Order of the dimensions where it is known.
        dtype: Kind of number, as numpy names it.

    Raises:
        UserError: It takes no square images of 1 or 3 channels, another kind of number, or the shape leaves open where the channels are.
    """
    if dtype not in get_args(InputDtype):
        raise UserError(f"the model's input {name!r} is {dtype}; wanted float32 or float16 (normalised images), or uint8 (their pixels)")
    kind = cast(InputDtype, dtype)
    dims = [dim if isinstance(dim, int) and dim > 0 else None for dim in shape]
    readings = []
    for order in ("NCHW", "NHWC") if layout is None and len(dims) == 4 else (layout,) if len(dims) == 4 else ():
        channels, rows, columns = (dims[order.index(letter)] for letter in "CHW")  # type: ignore[union-attr]
        if channels in (None, 1, 3) and (rows == columns or None in (rows, columns)):
            readings.append(ImageInput(name, order, dims[0], channels, rows or columns, kind))  # type: ignore[arg-type]
    told = [reading for reading in readings if reading.num_channels is not None] or readings
    listed = ", ".join("free" if dim is None else str(dim) for dim in dims)
    if not told:
        wanted = "[batch, channels, side, side] or [batch, side, side, channels]" if layout is None else layout
        raise UserError(f"the model's input {name!r} has shape [{listed}]; wanted {wanted} with square images of 1 or 3 channels")
    if len(told) > 1:
        raise UserError(f"the model's input {name!r} has shape [{listed}], which leaves open where the channels are; say NCHW or NHWC")
    return told[0]


def choose_output(outputs: Mapping[str, Sequence[int | str | None]], asked: str | None = None) -> str:
    """Name of the output that holds the logits: the one asked for, or the only one with two dimensions.

    Raises:
        UserError: There is no such output, or several.
    """
    shown = {name: ", ".join("free" if dim is None else str(dim) for dim in shape) for name, shape in outputs.items()}
    listed = ", ".join(f"{name} [{dims}]" for name, dims in shown.items())
    if asked is not None and asked not in outputs:
        raise UserError(f"the model has no output {asked!r}; it gives {listed}")
    fitting = [name for name, shape in outputs.items() if len(shape) == 2 and asked in (None, name)]
    if len(fitting) != 1:
        what = "several outputs that may be logits" if fitting else "no output of logits"
        raise UserError(f"the model has {what}; it gives {listed}, and wanted is one of shape [batch, num_classes]; name the right one")
    return fitting[0]


def in_parts(inputs: npt.NDArray[Any], most: int, run: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Run a network that takes at most so many images at a time.

    Args:
        inputs: [B, ...], B at least 1.
        most: Images at a time.
        run: From a part of the inputs to its logits.

    Returns:
        float32 logits [B, num_classes], in order.
    """
    parts = [run(inputs[start : start + most]) for start in range(0, len(inputs), most)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def filled_up(inputs: npt.NDArray[Any], least: int) -> npt.NDArray[Any]:
    """The inputs with images of zeros after them, so that there are at least so many."""
    missing = least - len(inputs)
    return inputs if missing <= 0 else np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])


def as_logits(output: npt.NDArray[Any], *, probabilities: bool) -> npt.NDArray[np.float32]:
    """A network's answer as float32 logits; of probabilities the logarithm, whose softmax they are."""
    logits = np.asarray(output, dtype=np.float32)
    return np.log(np.maximum(logits, np.finfo(np.float32).tiny)) if probabilities else logits
