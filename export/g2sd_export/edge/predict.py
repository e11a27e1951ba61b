"""Classify one image with a bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import UserError
from .manifest import open_bundle
from .preprocess import load_image


@dataclass(frozen=True)
class Prediction:
    """One class and how probable it is.

    Attributes:
        index: Position among the logits.
        name: Its name.
        probability: Softmax of the logits, in [0, 1].
    """

    index: int
    name: str
    probability: float

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


def predict_image(folder: Path, image: Path, *, top_k: int = 5, threads: int | None = None) -> list[Prediction]:
    """The most probable classes of an image.

    Args:
        folder: The bundle; every file is verified first.
        image: An image file that Pillow can decode.
        top_k: How many classes; at least 1, cut to the number there are.
        threads: Threads of the runtime; None takes one per CPU this process may use.

    Returns:
        The classes, most probable first.

    Raises:
        UserError: ``top_k`` is below 1, the image cannot be read, the bundle was changed, or the runtime is absent.
    """
    if top_k < 1:
        raise UserError(f"--top-k is {top_k}; it must be at least 1")
    bundle = open_bundle(folder)
    pixels = load_image(image, bundle.preprocessing)
    logits = bundle.runner(threads=threads).infer(pixels[None])[0].astype(np.float64)
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return [Prediction(int(index), bundle.class_names[index], float(probabilities[index])) for index in order]
