"""What a file's input wants, given the images as they come from the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..edge.errors import UserError
from ..edge.preprocess import Preprocessing, normalise

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Feed:
    """Turns images into a network's input.

    Attributes:
        name: Of the input.
        preprocessing: How a float network wants its images; None for a network that takes uint8 [B, H, W, C] as it is.
    """

    name: str
    preprocessing: Preprocessing | None

    def of(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.generic]]:
        """uint8 [B, H, W, C] to what a session of the network takes."""
        return {self.name: images if self.preprocessing is None else normalise(images, self.preprocessing)}

    def each(self, images: npt.NDArray[np.uint8]) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """The images one by one."""
        return (self.of(images[at : at + 1]) for at in range(len(images)))


def feed_of(model: onnx.ModelProto) -> Feed:
    """How to feed a file: by its input's type, and by the preprocessing in its metadata.

    Raises:
        UserError: A float file says nothing of its preprocessing, or the input is neither float32 nor uint8.
    """
    import onnx

    tensor = model.graph.input[0]
    kind = tensor.type.tensor_type.elem_type
    told = {item.key: item.value for item in model.metadata_props}
    if kind == onnx.TensorProto.UINT8:
        return Feed(tensor.name, None)
    if kind != onnx.TensorProto.FLOAT:
        raise UserError(f"the input {tensor.name!r} is of type {onnx.TensorProto.DataType.Name(kind)}; wanted FLOAT or UINT8")
    if "preprocessing" not in told:
        raise UserError("the float file's metadata has no 'preprocessing'; wanted a file written by `g2sd export`")
    return Feed(tensor.name, Preprocessing.from_dict(json.loads(told["preprocessing"])))
