"""What a bundle is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from ..edge.preprocess import Preprocessing


@dataclass(frozen=True)
class TrainingImages:
    """Images of the training set, for what must not see the images of the proof.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: Class of each.
        ids: Name of each.
        source: Where they come from, for people.
    """

    images: UInt8[np.ndarray, "num height width channels"]
    labels: Int64[np.ndarray, "num"]
    ids: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Material:
    """A model and the images that its files are made and judged with.

    Attributes:
        float_onnx: Its float32 file, input [B, C, H, W] of normalised images.
        preprocessing: How it wants its images.
        images: uint8 [N, H, W, C], what every file has to answer like the torch model.
        labels: Class of each; none for a model that is no classifier.
        calibration: Training images that INT8 is calibrated with; None where there are none.
        held_out: Other training images, on which one quantiser is chosen among several; None likewise.
        quantised_onnx: Float32 file of the same student after quantisation-aware distillation; INT8 is made from it where it is given.
    """

    float_onnx: Path
    preprocessing: Preprocessing
    images: UInt8[np.ndarray, "num height width channels"]
    labels: Int64[np.ndarray, " labels"]
    calibration: TrainingImages | None = None
    held_out: TrainingImages | None = None
    quantised_onnx: Path | None = None
