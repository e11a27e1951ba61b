"""Scoring of dense networks from their answers: batches, bad images, sets and networks that do not fit each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.dense.annotations import IGNORED, Annotated, Instances
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.evaluation.average_precision import PrecisionTally
from g2sd_deploy.evaluation.dense_scoring import Answer, Scoring, score_detector, score_segmenter
from g2sd_deploy.evaluation.segmentation import SegmentationTally
from g2sd_export.edge.dense.detections import detections_of
from g2sd_export.edge.dense.preparing import prepared
from g2sd_export.edge.dense.stitching import class_map
from g2sd_export.edge.dense.task import DenseTask

PX = 16
NAMES = ("dark", "light")
GREY = {"num_channels": 1, "mean": (0.5,), "std": (0.25,)}
WHOLE = DenseTask("segmentation", PX, **GREY)
SLIDE = DenseTask("segmentation", PX, **GREY, inference="slide", stride=10)
OBJECTS = DenseTask("detection", PX, **GREY)


@dataclass
class Images:
    """Images in memory; a text stands for one that cannot be used."""

    images: Sequence[Annotated | str]
    reads: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def read(self, index: int) -> Annotated:
        self.reads.append(index)
        image = self.images[index]
        if isinstance(image, str):
            raise BadImage(image)
        return image


def image_of(height: int, width: int, seed: int) -> Annotated:
    """A light rectangle on the dark; a border column is not asked for. The rectangle is the only object."""
    random = np.random.default_rng(seed)
    pixels, classes = random.integers(0, 90, (height, width, 1)), np.zeros((height, width), np.uint8)
    top, left = random.integers(0, height // 2), random.integers(0, width // 2)
    box = np.array([[left, top, left + width // 3, top + height // 3]], np.float32)
    light = np.s_[top : top + height // 3, left : left + width // 3]
    pixels[light], classes[light] = 230, 1
    mask = (classes == 1)[np.newaxis]
    classes[:, -1] = IGNORED
    return Annotated(pixels.astype(np.uint8), classes, Instances(box, np.ones(1, np.int64), mask, np.zeros(1, bool)))


def images(num: int = 7) -> list[Annotated]:
    return [image_of(12 + 5 * (seed % 3), 14 + 7 * (seed % 4), seed) for seed in range(num)]


def told_by_brightness(batch: np.ndarray) -> Answer:
    """Logits at a quarter of the size: a place is light where its pixels are."""
    small = batch[..., 0].reshape(len(batch), PX // 4, 4, PX // 4, 4).mean(axis=(2, 4), dtype=np.float64).astype(np.float32)
    return (np.stack([130 - small, small - 130], axis=1),)


def found_by_brightness(batch: np.ndarray) -> Answer:
    """The box around what is light, and two rows that fill the answer up."""
    boxes, scores = np.zeros((len(batch), 3, 4), np.float32), np.zeros((len(batch), 3), np.float32)
    for box, score, image in zip(boxes, scores, batch[..., 0], strict=True):
        rows, columns = (np.flatnonzero((image > 150).any(axis=axis)) for axis in (1, 0))
        if len(rows):
            box[0] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            score[0] = 0.5 + float(image.mean()) / 1000
    return boxes, scores, np.ones((len(batch), 3), np.int64), np.ones((len(batch), 3, 28, 28), np.float32)


def silent(*_: int) -> None:
    """A tick that nobody hears."""


@pytest.mark.parametrize("task", [WHOLE, SLIDE])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_classes_are_scored_at_the_images_own_sizes(task: DenseTask, batch_size: int) -> None:
    told = score_segmenter(told_by_brightness, Images(images()), task, NAMES, silent, Scoring(seed=3, batch_size=batch_size))
    tally = SegmentationTally(2)
    for image in images():
        placement, windows = prepared(image.pixels, task)
        answer = told_by_brightness(windows)[0]
        assert image.classes is not None
        tally.add(class_map(answer, placement), image.classes)
    assert told == {"num_images": 7, "num_skipped": 0, "skipped": [], **tally.scores(NAMES)}
    assert 0.5 < told["miou"] < 1


def test_classes_that_the_network_chose_itself_are_scored_too() -> None:
    pixels = image_of(PX, PX, 0)
    told = score_segmenter(lambda batch: ((batch[..., 0] > 150).astype(np.uint8),), Images([pixels]), WHOLE, NAMES, silent)
    assert (told["miou"], told["aacc"]) == (1.0, 1.0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_objects_are_scored_at_the_images_own_sizes(batch_size: int) -> None:
    told = score_detector(found_by_brightness, Images(images()), OBJECTS, NAMES, silent, Scoring(seed=3, batch_size=batch_size))
    tally = PrecisionTally(NAMES)
    for image in images():
        placement, windows = prepared(image.pixels, OBJECTS)
        boxes, scores, labels, masks = (of[0] for of in found_by_brightness(windows))
        assert image.instances is not None
        tally.add(detections_of(boxes, scores, labels, masks, placement, OBJECTS.min_score), image.instances)
    assert told == {"num_images": 7, "num_skipped": 0, "skipped": [], **tally.scores(seed=3)}
    assert 0.5 < told["box"]["ap50"] <= 1 and told["box_ap_by_class"]["dark"] is None


def test_no_pass_is_larger_than_asked_and_windows_of_several_images_share_one() -> None:
    sizes: list[int] = []

    def infer(batch: np.ndarray) -> Answer:
        sizes.append(len(batch))
        return told_by_brightness(batch)

    score_segmenter(infer, Images(images(8)), WHOLE, NAMES, silent, Scoring(batch_size=3))
    assert sizes == [3, 3, 2]
    sizes.clear()
    score_segmenter(infer, Images([image_of(PX, 70, 0)]), SLIDE, NAMES, silent, Scoring(batch_size=4))
    assert sizes == [4, 3]  # windows begin at 0, 10 .. 50, 54


def test_progress_counts_images_up_to_all_of_them() -> None:
    ticks: list[tuple[int, int]] = []
    samples = Images([*images(4), "broken"])
    score_segmenter(told_by_brightness, samples, WHOLE, NAMES, lambda *tick: ticks.append(tick), Scoring(max_bad=1, batch_size=2))
    assert ticks[0] == (0, 5) and ticks[-1] == (5, 5)
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)
    assert samples.reads == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("score", [score_segmenter, score_detector])
def test_bad_images_are_left_out_and_counted_up_to_what_is_allowed(score: Callable[..., dict[str, Any]]) -> None:
    infer, task = (told_by_brightness, WHOLE) if score is score_segmenter else (found_by_brightness, OBJECTS)
    good = images(3)
    bad = [good[0], "cannot be decoded", good[1], "has no annotation", good[2]]
    told = score(infer, Images(bad), task, NAMES, silent, Scoring(max_bad=2))
    reasons = [{"name": "1.png", "reason": "cannot be decoded"}, {"name": "3.png", "reason": "has no annotation"}]
    assert told == score(infer, Images(good), task, NAMES, silent) | {"num_skipped": 2, "skipped": reasons}
    with pytest.raises(RunFailed, match=r"1.png: cannot be decoded; 3.png: has no annotation: 2 bad images, and at most 1 are allowed"):
        score(infer, Images(bad), task, NAMES, silent, Scoring(max_bad=1))
    with pytest.raises(RunFailed, match=r"1.png: cannot be decoded: 1 bad image, and at most 0"):
        score(infer, Images(bad), task, NAMES, silent)


def test_an_image_that_is_too_narrow_is_a_bad_image() -> None:
    narrow = Annotated(np.zeros((1, 3_200_000, 1), np.uint8), np.zeros((1, 3_200_000), np.uint8), None)
    with pytest.raises(RunFailed, match=r"0.png: the image of 3200000 x 1 pixels is too narrow"):
        score_segmenter(told_by_brightness, Images([narrow]), SLIDE, NAMES, silent)


def test_a_set_of_which_nothing_is_left_is_no_result() -> None:
    with pytest.raises(RunFailed, match="none of the 2 images can be scored"):
        score_segmenter(told_by_brightness, Images(["broken", "broken"]), WHOLE, NAMES, silent, Scoring(max_bad=2))
    with pytest.raises(RunFailed, match="none of the 0 images can be scored"):
        score_detector(found_by_brightness, Images([]), OBJECTS, NAMES, silent)


def test_a_set_with_the_truth_of_another_task_is_refused() -> None:
    (image,) = images(1)
    with pytest.raises(UserError, match=r"0.png has no semantic map"):
        score_segmenter(told_by_brightness, Images([Annotated(image.pixels, None, image.instances)]), WHOLE, NAMES, silent)
    with pytest.raises(UserError, match=r"0.png has no objects marked"):
        score_detector(found_by_brightness, Images([Annotated(image.pixels, image.classes, None)]), OBJECTS, NAMES, silent)


def test_a_network_of_other_classes_is_refused() -> None:
    with pytest.raises(UserError, match="the network tells 2 classes and the set has 3"):
        score_segmenter(told_by_brightness, Images(images(1)), WHOLE, (*NAMES, "third"), silent)
    with pytest.raises(UserError, match=r"the network told class 4 of 0.png and the set has 2"):
        score_segmenter(lambda batch: (np.full(batch.shape[:3], 4, np.uint8),), Images(images(1)), WHOLE, NAMES, silent)
    with pytest.raises(UserError, match=r"the network told classes 1 to 1 of 0.png and the set has 1"):
        score_detector(found_by_brightness, Images(images(1)), OBJECTS, ("only",), silent)


def test_answers_that_are_no_numbers_or_of_other_inputs_are_no_result() -> None:
    with pytest.raises(RunFailed, match="not all finite numbers"):
        score_segmenter(lambda batch: (told_by_brightness(batch)[0] * np.nan,), Images(images(1)), WHOLE, NAMES, silent)
    with pytest.raises(RunFailed, match=r"answers 1 inputs with \[\[0, 2, 4, 4\]\]; wanted 1 outputs with a row for each input"):
        score_segmenter(lambda batch: (told_by_brightness(batch)[0][1:],), Images(images(1)), WHOLE, NAMES, silent)
    with pytest.raises(RunFailed, match="wanted 4 outputs"):
        score_detector(told_by_brightness, Images(images(1)), OBJECTS, NAMES, silent)
