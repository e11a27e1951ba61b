"""Answer for whole images with a bundle that has a task: what is seen, as text, JSON and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..manifest import Bundle
from .applying import detect, segment
from .detections import SHOWN_SCORE, Detections
from .drawing import draw_detections, draw_segmentation, legend, magnification, magnified, magnified_detections
from .files import classes_png, picture_png, run_lengths
from .lettering import font_px_of
from .preparing import load_pixels
from .task import DenseTask


@dataclass(frozen=True)
class Segmented:
    """The classes of an image.

    Attributes:
        pixels: uint8 [h, w, c]: the image.
        classes: uint8 [h, w].
        class_names: Of classes 0, 1, ...
    """

    pixels: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.uint8]
    class_names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: ``size`` and the ``classes`` that are there, the most frequent first, with their share of the pixels."""
        return {"size": list(self.classes.shape), "classes": self._shares()}

    def lines(self) -> list[str]:
        """Text: a line for each class that is there."""
        return [f"{item['share']:7.2%} {item['name']}" for item in self._shares()]

    def files(self) -> dict[str, bytes]:
        """By the end of its name: the picture, and the map of classes as a PNG."""
        times = magnification(*self.classes.shape)
        large, classes = magnified(self.pixels, times), magnified(self.classes, times)
        picture = draw_segmentation(large, classes, self.class_names)
        below = legend(classes, self.class_names, picture.shape[1], font_px_of(*picture.shape[:2]))
        return {"drawn": picture_png(np.concatenate([picture, below])), "classes": classes_png(self.classes)}

    def _shares(self) -> list[dict[str, Any]]:
        counts = np.bincount(self.classes.ravel(), minlength=len(self.class_names))
        order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
        return [{"index": index, "name": self.class_names[index], "share": counts[index] / self.classes.size} for index in order]


@dataclass(frozen=True)
class Detected:
    """The objects of an image.

    Attributes:
        pixels: uint8 [h, w, c]: the image.
        found: The objects, the surest first.
        class_names: Of classes 0, 1, ...
        shown_score: Objects of this score or more are drawn.
    """

    pixels: npt.NDArray[np.uint8]
    found: Detections
    class_names: tuple[str, ...]
    shown_score: float = SHOWN_SCORE

    def to_dict(self) -> dict[str, Any]:
        """JSON values: ``size`` and ``objects``, each with its class, score, box and mask (run lengths as COCO has them)."""
        return {"size": list(self.pixels.shape[:2]), "objects": [self._object(index) for index in range(len(self.found))]}

    def lines(self) -> list[str]:
        """Text: a line for each object."""
        lines = []
        for box, score, label in zip(self.found.boxes, self.found.scores, self.found.labels):
            left, top, right, bottom = (f"{value:.1f}" for value in box)
            lines.append(f"{score:.2f} {self.class_names[int(label)]} at {left}, {top} to {right}, {bottom}")
        return lines or ["no object"]

    def files(self) -> dict[str, bytes]:
        """By the end of its name: the picture."""
        times = magnification(*self.pixels.shape[:2])
        shown = magnified_detections(self.found.from_score(self.shown_score), times)
        drawn = draw_detections(magnified(self.pixels, times), shown, self.class_names)
        return {"drawn": picture_png(drawn)}

    def _object(self, index: int) -> dict[str, Any]:
        label = int(self.found.labels[index])
        return {
            "index": label,
            "name": self.class_names[label],
            "score": float(self.found.scores[index]),
            "box": [float(value) for value in self.found.boxes[index]],
            "mask": run_lengths(self.found.masks[index]),
        }


Seen = Union[Segmented, Detected]


@dataclass(frozen=True)
class DenseAnswer:
    """What became of one image.

    Attributes:
        image: Its path, or ``-`` for standard input.
        seen: What is in it; None where the image could not be read.
        error: Why it could not be read; empty where it could.
    """

    image: str
    seen: Seen | None = None
    error: str = ""


class Observer:
    """A variant of a bundle that has a task, opened once for many images; may be used by several threads at once.

    Args:
        bundle: An opened bundle.
        threads: Threads of the runtime; None takes one per CPU this process may use.
        variant: Name of the variant; None takes the default one.
        min_score: Of detection: objects of this score or more are told and drawn; None tells all that the bundle gives and draws those of
            0.3 or more.

    Raises:
        UserError: The smallest score is no share, or not of detection; the variant or the bundle failed its proof at export, there is no
            such variant, the runtime is absent, or the bundle is one of a classifier.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None, variant: str | None = None, min_score: float | None = None) -> None:
        if min_score is not None and not 0 <= min_score <= 1:
            raise UserError(f"the smallest score is {min_score:g}; it must be from 0 to 1")
        if min_score is not None and bundle.task is not None and bundle.task.kind != "detection":
            raise UserError("a smallest score is for detection, and this bundle tells classes of pixels; leave it out")
        if refusal := bundle.refusal(bundle.variant(variant)):
            raise UserError(f"{bundle.folder}: {refusal}; it gives no answers")
        self.bundle = bundle
        self.network = bundle.network(threads=threads, variant=variant)
        self._min_score = min_score

    def observe(self, source: str | os.PathLike[str] | bytes) -> Seen:
        """What is in an image.

        Args:
            source: A path, or the bytes of an encoded image.

        Raises:
            UserError: The image cannot be read or resized.
        """
        task: DenseTask = self.network.task
        pixels = load_pixels(source, task.num_channels)
        if task.kind == "detection":
            found = detect(self.network.infer, pixels, task)
            if self._min_score is None:
                return Detected(pixels, found, self.bundle.class_names)
            return Detected(pixels, found.from_score(self._min_score), self.bundle.class_names, self._min_score)
        return Segmented(pixels, segment(self.network.infer, pixels, task), self.bundle.class_names)

    def answers(self, sources: Iterable[tuple[str, str | bytes]]) -> Iterator[DenseAnswer]:
        """Answers as they are ready, in order; an image that cannot be read is told and does not stop the others.

        Args:
            sources: Name, and path or bytes, of each image.
        """
        for name, source in sources:
            try:
                yield DenseAnswer(name, self.observe(source))
            except UserError as error:
                yield DenseAnswer(name, error=str(error))


class Album:
    """A folder that takes the pictures of answers, each under its own name: ``cat.drawn.png``, for the next cat ``cat-2.drawn.png``.

    Args:
        folder: Made where it does not exist.

    Raises:
        UserError: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._given: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); give --out a folder that can be written to") from error

    def keep(self, image: str, seen: Seen) -> dict[str, str]:
        """Write the pictures of an answer.

        Args:
            image: Name of the image, as it was asked for.
            seen: What is in it.

        Returns:
            Paths, by what they show: ``drawn``, and ``class_map`` in segmentation.

        Raises:
            UserError: A file cannot be written.
        """
        stem = self._name("stdin" if image == "-" else PurePath(image).stem)
        kept = {}
        for what, content in seen.files().items():
            path = self.folder / f"{stem}.{what}.png"
            try:
                path.write_bytes(content)
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error.strerror}); give --out another folder") from error
            kept["class_map" if what == "classes" else what] = str(path)
        return kept

    def _name(self, stem: str) -> str:
        name, count = stem, 1
        while name.lower() in self._given:  # some file systems do not tell capitals apart
            count += 1
            name = f"{stem}-{count}"
        self._given.add(name.lower())
        return name
