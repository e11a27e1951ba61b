"""Figures of the classes of pixels against loops over pixels and over sets of them, and what they are where there is nothing to tell."""

from fractions import Fraction
from inspect import unwrap

import numpy as np
import pytest

from g2sd_deploy.data.dense.annotations import IGNORED
from g2sd_deploy.evaluation.resampling import jackknife_interval
from g2sd_deploy.evaluation.segmentation import SegmentationTally, confusion_matrix

NAMES = ("sky", "sea", "sand", "nothing ever")
Map = np.ndarray


def maps_of(num: int, *, num_classes: int = 3, seed: int = 0) -> list[tuple[Map, Map]]:
    """Predictions that are right at two thirds of the pixels, of images of several sizes; a tenth of the pixels is ignored."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(num):
        size = tuple(random.integers(3, 9, 2))
        truth = random.integers(0, num_classes, size).astype(np.uint8)
        predicted = np.where(random.random(size) < 0.66, truth, random.integers(0, num_classes, size)).astype(np.uint8)
        truth[random.random(size) < 0.1] = IGNORED
        pairs.append((predicted, truth))
    return pairs


def tally_of(pairs: list[tuple[Map, Map]], num_classes: int = len(NAMES)) -> SegmentationTally:
    tally = SegmentationTally(num_classes)
    for pair in pairs:
        tally.add(*pair)
    return tally


def pixels_of(pairs: list[tuple[Map, Map]]) -> list[tuple[int, int]]:
    """(predicted, true) of every pixel that is asked for."""
    return [(int(p), int(t)) for predicted, truth in pairs for p, t in zip(predicted.flat, truth.flat, strict=True) if t != IGNORED]


def test_the_figures_are_those_of_a_loop_over_pixels() -> None:
    pairs = maps_of(12)
    told = tally_of(pairs).scores(NAMES)
    both, predicted, true = ([0.0] * 4 for _ in range(3))
    for p, t in pixels_of(pairs):
        predicted[p] += 1
        true[t] += 1
        both[t] += p == t
    iou = [both[c] / (predicted[c] + true[c] - both[c]) for c in range(3)]
    assert told["iou_by_class"] == pytest.approx(dict(zip(NAMES, [*iou, None], strict=True)), abs=1e-15)
    assert told["miou"] == pytest.approx(sum(iou) / 3, abs=1e-15)
    assert told["aacc"] == pytest.approx(sum(both) / sum(true), abs=1e-15)
    assert told["macc"] == pytest.approx(sum(both[c] / true[c] for c in range(3)) / 3, abs=1e-15)


def test_the_figures_are_those_of_sets_of_pixels() -> None:
    pairs = maps_of(5, seed=1)
    numbered = list(enumerate(pixels_of(pairs)))
    iou = []
    for name in range(3):
        predicted, true = ({place for place, pixel in numbered if pixel[side] == name} for side in (0, 1))
        iou.append(Fraction(len(predicted & true), len(predicted | true)))
    told = tally_of(pairs).scores(NAMES)
    assert told["miou"] == pytest.approx(float(sum(iou) / 3), abs=1e-15)
    assert list(told["iou_by_class"].values())[:3] == pytest.approx([float(value) for value in iou], abs=1e-15)


def test_rows_are_the_truth_and_columns_what_was_told() -> None:
    truth = np.array([[0, 0, 0, 1], [IGNORED, 2, 2, 1]], np.uint8)
    predicted = np.array([[0, 1, 1, 1], [2, 2, 0, 0]], np.uint8)
    matrix = confusion_matrix(predicted, truth, 3)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 0], [1, 0, 1]]


def test_a_class_that_is_told_and_never_true_counts_in_miou_and_not_in_macc() -> None:
    truth, predicted = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    told = tally_of([(predicted, truth)]).scores(NAMES)
    assert told["iou_by_class"] == {"sky": 0.75, "sea": 0.0, "sand": None, "nothing ever": None}
    assert (told["miou"], told["aacc"], told["macc"]) == (0.375, 0.75, 0.75)


def test_what_is_ignored_may_be_told_as_anything() -> None:
    truth = np.array([[0, IGNORED], [1, IGNORED]], np.uint8)
    some, other = (np.array([[0, value], [0, value]], np.uint8) for value in (1, 200))
    assert tally_of([(some, truth)]).scores(NAMES) == tally_of([(other, truth)]).scores(NAMES)


@pytest.mark.parametrize("pairs", [[], [(np.zeros((2, 2), np.uint8), np.full((2, 2), IGNORED, np.uint8))] * 3])
def test_without_a_pixel_to_tell_nothing_is_told(pairs: list[tuple[Map, Map]]) -> None:
    told = tally_of(pairs).scores(NAMES)
    assert told == {"miou": None, "miou_interval": None, "aacc": None, "macc": None, "iou_by_class": dict.fromkeys(NAMES)}


def test_classes_that_do_not_exist_and_maps_of_other_sizes_are_refused() -> None:
    small = np.array([[0, 1]], np.uint8)
    with pytest.raises(ValueError, match="the truth has class 4; there are 4, counted from 0"):
        confusion_matrix(small, np.array([[0, 4]], np.uint8), 4)
    with pytest.raises(ValueError, match="the prediction has class 7"):
        confusion_matrix(np.array([[7, 0]], np.uint8), small, 4)
    with pytest.raises(ValueError, match=r"predicted map is \[1, 2\] and the true one \[2, 1\]"):
        unwrap(confusion_matrix)(small, small.T.copy(), 4)  # as users run it: without the annotations, which refuse it too


def test_the_interval_is_that_of_leaving_out_each_image() -> None:
    pairs = maps_of(6, seed=2)
    told = tally_of(pairs).scores(NAMES)
    values = [tally_of([*pairs[:i], *pairs[i + 1 :]]).scores(NAMES)["miou"] for i in range(6)]
    assert told["miou_interval"] == pytest.approx(jackknife_interval(told["miou"], np.array(values)), abs=1e-12)
    assert told["miou_interval"][0] < told["miou"] < told["miou_interval"][1]


def test_a_class_that_one_image_alone_shows_widens_the_interval() -> None:
    """Told wrongly: without that image the figure would be 1."""
    right, wrong = (np.zeros((2, 2), np.uint8),) * 2, (np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8))
    low, high = tally_of([right] * 9 + [wrong]).scores(NAMES)["miou_interval"]
    assert low == 0.0 and high > 0.9


def test_one_image_has_no_interval_and_what_is_always_right_none_to_either_side() -> None:
    assert tally_of(maps_of(1)).scores(NAMES)["miou_interval"] is None
    pairs = [(np.full((1, 1), value, np.uint8),) * 2 for value in (0, 0, 0, 1)]
    assert tally_of(pairs).scores(NAMES)["miou_interval"] == (1.0, 1.0)


def test_the_interval_covers_the_truth_where_classes_are_rare() -> None:
    """20 classes, of which the first is as frequent as the last ten; three in an image. Percentiles of resamples hold it in 70 of 100."""
    random, num_classes, shares = np.random.default_rng(0), 20, 1 / np.arange(1, 21)

    def areas_of(num: int) -> np.ndarray:
        areas = np.zeros((num, 3, num_classes), np.int64)
        for image in areas:
            shown = random.choice(num_classes, 3, replace=False, p=shares / shares.sum())
            true = random.integers(100, 5000, 3)
            right = (true * random.beta(3, 1.2, 3)).astype(np.int64)
            image[:, shown] = right, right, true
            image[1, random.choice(num_classes, p=shares / shares.sum())] += (true - right).sum()
        return areas

    def tally(areas: np.ndarray) -> SegmentationTally:
        """Of these areas; an interval asks for no more."""
        made = SegmentationTally(num_classes)
        made._areas = list(areas)
        return made

    def miou(areas: np.ndarray) -> float:
        right, predicted, true = areas.sum(axis=0)
        union = predicted + true - right
        return float((right[union > 0] / union[union > 0]).mean())

    everything = areas_of(4000)
    held = 0
    for _ in range(60):
        some = everything[random.integers(0, len(everything), 50)]
        low, high = tally(some)._interval(miou(some)) or (1.0, 0.0)
        held += low <= miou(everything) <= high
    assert held >= 52


def test_of_an_image_three_numbers_a_class_are_kept() -> None:
    tally = tally_of(maps_of(10), num_classes=150)
    assert sum(areas.nbytes for areas in tally._areas) == 10 * 3 * 150 * 8
    assert tally.scores([str(name) for name in range(150)])["miou_interval"] is not None
