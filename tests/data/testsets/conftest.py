"""Miniatures of every ImageNet variant, and a model that answers what is painted on an image.

An image shows two numbers from 0 to 1023, one in its left half and one in its right half: the classes (of ImageNet's 1000) that the model
ranks first and second. So what a set scores can be worked out by hand.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.decoding import fit_to_all
from g2sd_deploy.data.testsets import LabelSpace, Options, TestSet, open_all
from g2sd_deploy.data.testsets.label_spaces import imagenet_subset, imagenet_wnids
from g2sd_deploy.data.testsets.protocols import imagenette_wnids
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing

Answers = Callable[[int], tuple[int, int]]
"""From an image's class to the two that the model answers."""

FIT = Preprocessing(image_px=32, resize_px=36, num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
NUM_VAL = 50_000


@lru_cache(None)
def painted(first: int, second: int, frame: int | None = None) -> bytes:
    """A JPEG of 32 px that shows two classes; with a frame, of 48 px, with another class all around."""
    pixels = np.empty((32, 32, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:] = _colour(first), _colour(second)
    if frame is not None:
        whole = np.empty((48, 48, 3), np.uint8)
        whole[:] = _colour(frame)
        whole[8:40, 8:40] = pixels
        pixels = whole
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def _colour(number: int) -> tuple[int, int, int]:
    return number // 32 * 8 + 4, number % 32 * 8 + 4, 128


@dataclass(frozen=True)
class Toy:
    """A model that reads its answer off the upper corners of the image.

    Attributes:
        names: Class of each logit; None for 1000 logits without names.
    """

    names: tuple[str, ...] | None = None

    @property
    def space(self) -> LabelSpace:
        return LabelSpace.of(self.names, len(self.names or imagenet_wnids()))

    def logits(self, image: np.ndarray) -> np.ndarray:
        found = np.zeros(self.space.num_logits)
        for column, value in ((30, 1.0), (1, 2.0)):
            red, green, _ = (int(level) for level in image[1, column])
            wnid = dict(enumerate(imagenet_wnids())).get(red // 8 * 32 + green // 8)
            order = self.names or imagenet_wnids()
            if wnid in order:
                found[order.index(wnid)] = value
        return found


def score(test: TestSet, name: str, model: Toy | None = None, *, as_stored: bool | None = None) -> tuple[int, int]:
    """Images that a model gets right, and those that are scored."""
    model = model or Toy()
    (scoring,) = (one for one in test.scorings if one.name == name)
    aligned = scoring.aligned(model.space)
    num_right = 0
    counted = np.flatnonzero(aligned.labels >= 0)
    for index in counted.tolist():
        stored = test.as_stored if as_stored is None else as_stored
        logits = model.logits(fit_to_all(test.samples.read(index), (FIT,), as_stored=stored)[0])
        kept = logits if aligned.columns is None else logits[aligned.columns]
        assert len(kept) == aligned.num_classes
        right = aligned.right(np.array([index]))
        answer = int(kept.argmax())
        num_right += bool(right[0, answer]) if right is not None else answer == aligned.labels[index]
    return num_right, len(counted)


def number_of(label: int) -> int:
    """Number of the one validation image of a class; the order of the numbers is not that of the classes."""
    return 1 + label * 37 % 1000


def write(folder: Path, images: Mapping[str, bytes]) -> Path:
    made = set()
    for name, content in images.items():
        place = folder / name
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True)
            made.add(place.parent)
        place.write_bytes(content)
    return folder


@dataclass(frozen=True)
class Miniatures:
    """Writes sets with one image of each class into folders as `g2sd data pull` leaves them: HOME/NAME.

    Attributes:
        home: The folder of all sets.
    """

    home: Path

    def val(self, answers: Answers, folder: str = "imagenet-val/val") -> Path:
        return self._classes(folder, imagenet_wnids(), answers, lambda label: f"ILSVRC2012_val_{number_of(label):08d}.JPEG")

    def real(self, labels: Mapping[int, list[int]], folder: str = "imagenet-real") -> Path:
        """real.json with these labels, by the number of the image; all other images have none."""
        lists = [labels.get(number, []) for number in range(1, NUM_VAL + 1)]
        return write(self.home / folder, {"real.json": json.dumps(lists).encode()})

    def v2(self, answers: Answers, folder: str = "imagenetv2-matched-frequency") -> Path:
        return self._classes(folder, tuple(map(str, range(1000))), answers, lambda label: f"{label * 7919 % 1009:04x}.jpeg")

    def subset(self, which: str, answers: Answers) -> Path:
        """ImageNet-A or -R; `answers` takes the class of the 1000."""
        names = imagenet_subset("a" if which == "a" else "r")
        order = imagenet_wnids()
        return self._classes(f"imagenet-{which}", names, lambda label: answers(order.index(names[label])), lambda label: "art_0.jpg")

    def sketch(self, answers: Answers) -> Path:
        return self._classes("imagenet-sketch", imagenet_wnids(), answers, lambda label: "sketch_1.JPEG")

    def stored(self, cases: Iterable[str], frame: int, answers: Answers, wnids: Sequence[str] | None = None) -> Path:
        """ImageNet-C; the frame is outside of the centre crop."""
        for case in cases:
            for label, wnid in enumerate(wnids or imagenet_wnids()):
                name = f"{case}/{wnid}/ILSVRC2012_val_{number_of(label):08d}.JPEG"
                write(self.home / "imagenet-c", {name: painted(*answers(label), frame)})
        return self.home / "imagenet-c"

    def imagenette(self, answers: Answers, folder: str = "imagenette2-320/val") -> Path:
        order, names = imagenet_wnids(), imagenette_wnids()
        return self._classes(
            folder, names, lambda label: answers(order.index(names[label])), lambda label: f"ILSVRC2012_val_{label + 1:08d}.JPEG"
        )

    def open(self, *specs: str, **options: object) -> list[TestSet]:
        return open_all(specs, options=Options(**options), home=self.home)  # type: ignore[arg-type]

    def one(self, *specs: str, **options: object) -> TestSet:
        (test,) = self.open(*specs, **options)
        return test

    def _classes(self, folder: str, names: Sequence[str], answers: Answers, file: Callable[[int], str]) -> Path:
        return write(self.home / folder, {f"{name}/{file(label)}": painted(*answers(label)) for label, name in enumerate(names)})


@pytest.fixture
def miniatures(tmp_path: Path) -> Miniatures:
    """Miniatures in a folder of their own."""
    return Miniatures(tmp_path / "home")


@pytest.fixture(scope="session")
def toy() -> Callable[..., Toy]:
    """The model that reads its answer off the image, with logits of the given classes."""
    return Toy


@pytest.fixture(scope="session")
def scored() -> Callable[..., tuple[int, int]]:
    """Right and counted images of a scoring; see `score`."""
    return score


@pytest.fixture(scope="session")
def refused() -> Callable[[Callable[[], object], str], None]:
    """Expects a refusal in one line."""

    def check(work: Callable[[], object], message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            work()
        assert "\n" not in str(caught.value)

    return check
