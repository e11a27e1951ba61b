"""Classes in another order are found, and bad models are left alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.class_order import misnumbered

Classes = npt.NDArray[np.int64]


def answered(top1: float, *, num: int = 1000, num_classes: int = 10, seed: int = 0) -> tuple[Classes, Classes]:
    """Answers of a model of this accuracy whose errors are spread evenly, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num)
    wrong = (labels + rng.integers(1, num_classes, size=num)) % num_classes
    return np.where(rng.random(num) < top1, labels, wrong), labels


@pytest.mark.parametrize("top1", [0.0, 0.1, 0.6, 1.0])
def test_a_model_of_any_accuracy_is_left_alone(top1: float) -> None:
    assert misnumbered(*answered(top1)) == ""


def test_labels_moved_by_one_are_told_with_the_counts() -> None:
    answers, labels = answered(0.9)
    got = misnumbered(answers, labels - 1)
    assert got.endswith("would be with every label moved by +1: the labels, or the classes of the model, are in another order")
    hits = (answers == labels)[1::2].sum()
    assert f" of 500 answers are right, and {hits} would be" in got


def test_classes_in_another_order_are_told() -> None:
    answers, labels = answered(0.8)
    order = np.array([3, 9, 1, 0, 2, 8, 5, 4, 7, 6])
    assert "label 0 as 3, 1 as 9, 2 as 1 and so on" in misnumbered(order[answers], labels)


def test_two_classes_the_wrong_way_round_are_told() -> None:
    answers, labels = answered(0.95, num_classes=2)
    assert "label 0 as 1, 1 as 0" in misnumbered(1 - answers, labels)


def test_the_images_may_be_sorted_by_class() -> None:
    answers, labels = answered(0.9)
    place = np.argsort(labels, kind="stable")
    assert misnumbered((answers[place] + 1) % 10, labels[place])


def test_a_poor_model_with_moved_labels_is_told_too() -> None:
    answers, labels = answered(0.4)
    assert "every label moved by +1" in misnumbered((answers + 1) % 10, labels - (labels == 9) * 10)


def test_a_model_that_often_confuses_neighbours_is_left_alone() -> None:
    labels = np.random.default_rng(0).integers(10, size=20_000)
    confused = np.random.default_rng(1).random(20_000) < 0.55
    assert misnumbered((labels + confused) % 10, labels) == ""


def test_a_model_that_answers_one_class_always_is_left_alone() -> None:
    _, labels = answered(0.5)
    assert misnumbered(np.full_like(labels, 3), labels) == ""
    assert misnumbered(np.full_like(labels, 3), np.zeros_like(labels)) == ""


def test_a_handful_of_images_proves_nothing() -> None:
    answers, labels = answered(1.0, num=30)
    assert misnumbered((answers + 1) % 10, labels) == ""
    assert misnumbered(labels[:0], labels[:0]) == ""


def test_one_image_a_class_proves_nothing_though_some_order_would_fit_them_all() -> None:
    labels = np.arange(1000)
    assert misnumbered(np.random.default_rng(0).permutation(1000), labels) == ""
