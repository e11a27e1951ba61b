"""Metrics against loops in plain Python floats."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from g2sd_deploy.evaluation.metrics import (
    agreement,
    classification_metrics,
    expected_calibration_error,
    negative_log_likelihood,
    top1_confidence,
    top_k_accuracy,
)


def probabilities(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def accuracy_by_sorting(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        ranking = sorted(range(len(row)), key=lambda index: (-row[index], index))
        right += label in ranking[:k]
    return right / len(labels)


def ece_by_loops(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    total = 0.0
    rows = [probabilities(row) for row in logits.astype(float).tolist()]
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = [(row, label) for row, label in zip(rows, labels.tolist(), strict=True) if low < max(row) <= high]
        if inside:
            confidence = math.fsum(max(row) for row, _ in inside) / len(inside)
            accuracy = sum(row.index(max(row)) == label for row, label in inside) / len(inside)
            total += len(inside) / len(rows) * abs(accuracy - confidence)
    return total


@st.composite
def scored_batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    num, classes = draw(st.integers(1, 12)), draw(st.integers(1, 8))
    whole = draw(hnp.arrays(np.int64, (num, classes), elements=st.integers(-40, 40)))
    labels = draw(hnp.arrays(np.int64, num, elements=st.integers(0, classes - 1)))
    return (whole / 4).astype(draw(st.sampled_from([np.float32, np.float64]))), labels


@given(batch=scored_batches())
@settings(max_examples=60, deadline=None)
def test_all_metrics_equal_their_definitions(batch: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = batch
    got = classification_metrics(logits, labels)
    losses = [-math.log(probabilities(row)[label]) for row, label in zip(logits.astype(float).tolist(), labels.tolist(), strict=True)]
    assert got.top1 == accuracy_by_sorting(logits, labels, 1)
    assert got.top5 == accuracy_by_sorting(logits, labels, 5)
    assert got.nll == pytest.approx(math.fsum(losses) / len(losses), rel=1e-9, abs=1e-12)
    assert got.ece == pytest.approx(ece_by_loops(logits, labels), rel=1e-9, abs=1e-12)
    assert got.num_images == len(labels)
    assert 0 <= got.ece <= 1
    assert got.top1 <= got.top5 <= 1
    assert got.nll >= 0


@given(batch=scored_batches(), shift=st.integers(-1000, 1000), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_metrics_ignore_a_constant_in_the_logits_and_the_order_of_images(
    batch: tuple[np.ndarray, np.ndarray], shift: int, order: object
) -> None:
    logits, labels = batch
    rows = list(range(len(labels)))
    order.shuffle(rows)  # type: ignore[attr-defined]
    before, after = classification_metrics(logits, labels), classification_metrics(logits[rows] + shift, labels[rows])
    assert after.to_dict() == pytest.approx(before.to_dict(), rel=1e-9, abs=1e-9)


def test_metrics_become_plain_json_with_the_five_agreed_keys() -> None:
    got = classification_metrics(np.array([[2.0, 1.0], [0.0, 3.0]], dtype=np.float32), np.array([0, 0], dtype=np.uint8))
    values = json.loads(json.dumps(got.to_dict()))
    assert list(values) == ["top1", "top5", "nll", "ece", "num_images"]
    assert list(values.values())[:2] == [0.5, 1.0]
    assert values["num_images"] == 2


def test_a_model_that_answers_the_same_for_every_class_is_right_only_for_the_first_ones() -> None:
    labels = np.arange(10)
    assert top_k_accuracy(np.zeros((10, 10)), labels, k=1) == 0.1
    assert top_k_accuracy(np.zeros((10, 10)), labels, k=5) == 0.5


def test_top5_of_three_classes_is_top3() -> None:
    logits, labels = np.array([[3.0, 2.0, 1.0]]), np.array([2])
    assert top_k_accuracy(logits, labels, k=2) == 0
    assert top_k_accuracy(logits, labels, k=5) == 1


def test_likelihood_survives_logits_whose_exponential_overflows() -> None:
    assert negative_log_likelihood(np.array([[1e4, 0.0]]), np.array([1])) == 1e4
    assert negative_log_likelihood(np.array([[1e4, 0.0]]), np.array([0])) == 0


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    # softmax of equal logits over 5 classes is 0.2 = 3/15, the upper edge of the third bin; the other row has 0.25, in the fourth
    logits = np.array([[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, -1e4]])
    assert expected_calibration_error(logits, np.array([0, 1])) == pytest.approx((0.8 + 0.25) / 2)
    assert expected_calibration_error(logits, np.array([0, 1]), num_bins=1) == pytest.approx(abs(0.5 - 0.225))


def test_a_model_that_is_as_often_right_as_it_claims_has_no_calibration_error() -> None:
    logits = np.tile(np.array([[math.log(3.0), 0.0]]), (4, 1))  # claims 75 %
    assert expected_calibration_error(logits, np.array([0, 0, 0, 1])) == pytest.approx(0, abs=1e-12)


def test_first_class_and_its_probability() -> None:
    first, probability = top1_confidence(np.array([[0.0, math.log(4.0)], [1.0, 1.0]]))
    assert first.tolist() == [1, 0]
    assert probability.tolist() == pytest.approx([0.8, 0.5])


def test_agreement_counts_equal_first_classes_whether_right_or_wrong() -> None:
    teacher = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    student = np.array([[9.0, 8.0], [0.0, 0.1], [5.0, 6.0], [3.0, 3.0]])
    assert agreement(teacher, student) == 0.75


GOOD = np.zeros((3, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (GOOD, np.zeros(2, dtype=int), r"labels have shape \(2,\), wanted \(3,\)"),
        (GOOD, np.zeros((3, 1), dtype=int), r"labels have shape \(3, 1\)"),
        (GOOD, np.zeros(3), "labels have dtype float64, wanted whole numbers"),
        (GOOD, np.array([0, 4, 0]), r"label 4 of image 1 is outside 0\.\.3"),
        (GOOD, np.array([0, 0, -1]), "label -1 of image 2"),
        (GOOD[0], np.zeros(4, dtype=int), r"wanted \[images, classes\]"),
        (GOOD[:0], np.zeros(0, dtype=int), "nothing to score"),
        (GOOD.astype(int), np.zeros(3, dtype=int), "logits have dtype int64, wanted floats"),
        (GOOD + np.array([[0], [np.nan], [0]]), np.zeros(3, dtype=int), "1 of 3 images are not finite, first image 1"),
        (GOOD - np.array([[0], [0], [np.inf]]), np.zeros(3, dtype=int), "1 of 3 images are not finite, first image 2"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(logits: np.ndarray, labels: np.ndarray, message: str) -> None:
    for metric in (classification_metrics, negative_log_likelihood, expected_calibration_error):
        with pytest.raises(ValueError, match=message):
            metric(logits, labels)
    with pytest.raises(ValueError, match=message):
        top_k_accuracy(logits, labels, k=1)


def test_agreement_and_settings_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(3, 3\) cannot be compared"):
        agreement(GOOD, GOOD[:, :3])
    with pytest.raises(ValueError, match="nothing to score"):
        agreement(GOOD[:0], GOOD[:0])
    with pytest.raises(ValueError, match="not finite"):
        agreement(GOOD, GOOD * np.nan)
    with pytest.raises(ValueError, match="k is 0"):
        top_k_accuracy(GOOD, np.zeros(3, dtype=int), k=0)
    with pytest.raises(ValueError, match="num_bins is 0"):
        expected_calibration_error(GOOD, np.zeros(3, dtype=int), num_bins=0)
