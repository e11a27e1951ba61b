"""Classify images with a bundle: files, folders, or what comes from another program."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .manifest import Bundle, open_bundle
from .preprocess import load_image
from .runner import Runner

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Ends of the names, in small letters, by which images in a folder are known."""


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


@dataclass(frozen=True)
class Answer:
    """What became of one image.

    Attributes:
        image: Its path, or ``-`` for standard input.
        predictions: The classes, most probable first; empty where the image could not be read.
        error: Why it could not be read; empty where it could.
    """

    image: str
    predictions: tuple[Prediction, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``image``, and ``predictions`` or ``error``."""
        if self.error:
            return {"image": self.image, "error": self.error}
        return {"image": self.image, "predictions": [item.to_dict() for item in self.predictions]}


class Classifier:
    """A variant of a bundle, opened once for many images; may be used by several threads at once.

    Args:
        bundle: An opened bundle.
        threads: Threads of the runtime; None takes one per CPU this process may use.
        variant: Name of the variant; None takes the default one.

    Raises:
        UserError: The variant or the bundle failed its proof at export, there is no such variant, or the runtime is absent.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, variant: str | None = None) -> None:
        if refusal := bundle.refusal(bundle.variant(variant)):
            raise UserError(f"{bundle.folder}: {refusal}; it gives no answers")
        self.bundle = bundle
        self.runner: Runner = bundle.runner(threads=threads, variant=variant)

    def classify(self, source: str | os.PathLike[str] | bytes, *, top_k: int = 5) -> tuple[Prediction, ...]:
        """The most probable classes of an image.

        Args:
            source: A path, or the bytes of an encoded image.
            top_k: How many classes; at least 1, cut to the number there are.

        Raises:
            UserError: ``top_k`` is below 1, or the image cannot be read.
        """
        if top_k < 1:
            raise UserError(f"--top-k is {top_k}; it must be at least 1")
        pixels = load_image(source, self.bundle.preprocessing)
        logits = self.runner.infer(pixels[None])[0].astype(np.float64)
        weights = np.exp(logits - logits.max())
        probabilities = weights / weights.sum()
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        names = self.bundle.class_names
        return tuple(Prediction(int(index), names[index], float(probabilities[index])) for index in order)

    def answers(self, sources: Iterable[tuple[str, str | bytes]], *, top_k: int = 5) -> Iterator[Answer]:
        """Answers as they are ready, in order; an image that cannot be read is told and does not stop the others.

        Args:
            sources: Name, and path or bytes, of each image.
            top_k: How many classes; at least 1.
        """
        for name, source in sources:
            try:
                yield Answer(name, self.classify(source, top_k=top_k))
            except UserError as error:
                yield Answer(name, error=str(error))


def predict_image(
    folder: Path, image: Path, *, top_k: int = 5, threads: int | None = None, variant: str | None = None
) -> tuple[Prediction, ...]:
    """The most probable classes of one image.

    Args:
        folder: The bundle; every file is verified first.
        image: An image file that Pillow can decode.
        top_k: How many classes; at least 1, cut to the number there are.
        threads: Threads of the runtime; None takes one per CPU this process may use.
        variant: Name of the variant; None takes the default one.

    Returns:
        The classes, most probable first.

    Raises:
        UserError: ``top_k`` is below 1, the image cannot be read, the bundle was changed or failed its proof, or the runtime is absent.
    """
    return Classifier(open_bundle(folder), threads=threads, variant=variant).classify(image, top_k=top_k)


def images_below(path: str) -> Iterator[str]:
    """A file as it is; of a folder all images below it, by name, each folder's before those of the folders in it.

    Raises:
        UserError: A folder holds no image.
    """
    if not Path(path).is_dir():
        yield path
        return
    found = False
    for parent, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found = True
                yield str(Path(parent, name))
    if not found:
        raise UserError(f"{path}: holds no images; looked for {' '.join(sorted(IMAGE_SUFFIXES))}")
