"""Columns of outcomes against loops in plain Python floats."""

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from g2sd_deploy.evaluation.outcomes import Outcomes, concatenate, outcomes_of


def probabilities(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def ranking(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda index: (-row[index], index))


def columns(outcomes: Outcomes) -> dict[str, np.ndarray | None]:
    return {field.name: getattr(outcomes, field.name) for field in fields(outcomes)}


def assert_equal_to_the_bit(one: Outcomes, other: Outcomes) -> None:
    for name, column in columns(one).items():
        np.testing.assert_array_equal(column, columns(other)[name], err_msg=name, strict=column is not None)


def batch(num: int = 40, num_classes: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = (random.standard_normal((num, num_classes)) * 4).astype(np.float32)
    return logits, random.integers(0, num_classes, num), logits + random.standard_normal(logits.shape).astype(np.float32)


@st.composite
def scored_batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num, classes = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    grid = hnp.arrays(np.int64, (num, classes), elements=st.integers(-40, 40))  # whole numbers, so that ties are common
    labels = draw(hnp.arrays(np.int64, num, elements=st.integers(0, classes - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return (draw(grid) / 4).astype(dtype), labels, (draw(grid) / 4).astype(dtype)


@given(batch=scored_batches())
@settings(max_examples=60, deadline=None)
def test_every_column_equals_its_definition(batch: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    logits, labels, teacher = batch
    got = outcomes_of(logits, labels, teacher=teacher)
    assert got.same is not None and got.kl is not None and len(got) == len(labels)
    rows = zip(logits.astype(float).tolist(), labels.tolist(), teacher.astype(float).tolist(), strict=True)
    for i, (row, label, theirs) in enumerate(rows):
        probs, wanted = probabilities(row), probabilities(theirs)
        close = {"rel": 1e-9, "abs": 1e-12}
        assert got.label[i] == label
        assert got.top5[i].tolist() == ranking(row)[:5]
        assert got.rank[i] == ranking(row).index(label) and got.correct[i] == (ranking(row)[0] == label)
        assert got.label_logit[i] == row[label]
        assert got.label_prob[i] == pytest.approx(probs[label], **close)
        assert got.top1_prob[i] == pytest.approx(max(probs), **close)
        assert got.nll[i] == pytest.approx(-math.log(probs[label]), **close)
        assert got.brier[i] == pytest.approx(math.fsum((p - (k == label)) ** 2 for k, p in enumerate(probs)), **close)
        assert got.same[i] == (ranking(row)[0] == ranking(theirs)[0])
        kl = math.fsum(q * (math.log(q) - math.log(p)) for p, q in zip(probs, wanted, strict=True))
        assert got.kl[i] == pytest.approx(kl, rel=1e-9, abs=1e-11) and got.kl[i] >= 0


@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("kind", ["plain", "columns", "half"])
def test_the_size_of_the_batch_changes_no_bit(size: int, kind: str) -> None:
    logits, labels, teacher = batch(num_classes=203)
    if kind == "columns":  # picking columns leaves an array that lies column by column in memory
        picked = np.arange(202, -1, -1)
        logits, labels, teacher = logits[:, picked], 202 - labels, teacher[:, picked]
    if kind == "half":
        logits, teacher = logits.astype(np.float16), teacher.astype(np.float16)
    whole = outcomes_of(logits, labels, teacher=teacher)
    parts = [outcomes_of(logits[i : i + size], labels[i : i + size], teacher=teacher[i : i + size]) for i in range(0, 40, size)]
    assert_equal_to_the_bit(concatenate(parts), whole)


def test_taken_rows_are_those_of_the_images_asked_for() -> None:
    logits, labels, teacher = batch()
    picks = np.array([3, 39, 0, 3])
    assert_equal_to_the_bit(
        outcomes_of(logits, labels, teacher=teacher).take(picks), outcomes_of(logits[picks], labels[picks], teacher=teacher[picks])
    )
    assert outcomes_of(logits, labels).take(picks).same is None


def test_where_several_classes_are_right_the_best_of_them_counts() -> None:
    logits = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
    right = np.array([[False, True, True, False], [True, False, False, True], [False, True, False, True]])
    got = outcomes_of(logits, np.array([-1, 99, 0]), right=right)
    assert got.rank.tolist() == [1, 0, 1] and got.correct.tolist() == [False, True, False]
    assert got.label.tolist() == [-1, -1, -1]
    for column in (got.label_logit, got.label_prob, got.nll, got.brier):
        assert np.isnan(column).all()
    assert got.top1_prob[2] == 0.25


def test_one_right_class_in_a_set_ranks_as_a_label_does() -> None:
    logits, labels, _ = batch()
    right = np.arange(12) == labels[:, np.newaxis]
    np.testing.assert_array_equal(outcomes_of(logits, labels, right=right).rank, outcomes_of(logits, labels).rank)


def test_equal_logits_rank_by_index_so_that_a_model_without_an_opinion_answers_class_0() -> None:
    got = outcomes_of(np.zeros((3, 7)), np.array([0, 1, 6]))
    assert got.rank.tolist() == [0, 1, 6]
    assert got.top5.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_logits_whose_exponential_overflows_are_scored() -> None:
    got = outcomes_of(np.array([[1e4, 0.0], [1e4, 0.0]]), np.array([1, 0]), teacher=np.array([[1e4, 0.0], [0.0, 1e4]]))
    assert got.kl is not None
    assert got.nll.tolist() == [1e4, 0.0] and got.brier.tolist() == [2.0, 0.0] and got.kl.tolist() == [0.0, 1e4]
    assert math.copysign(1, got.nll[1]) == 1  # no -0.0 in a table


def test_a_teacher_of_the_same_opinion_is_at_no_distance() -> None:
    logits = batch()[0].astype(np.float64)
    got = outcomes_of(logits, batch()[1], teacher=logits + 0.3)  # rounding alone would leave some just below 0
    assert got.same is not None and got.kl is not None
    assert got.same.all() and (got.kl >= 0).all() and got.kl.max() < 1e-14


def test_a_batch_of_which_no_image_is_scored_has_no_rows() -> None:
    logits, labels, _ = batch()
    empty = outcomes_of(logits[:0], labels[:0])
    assert len(empty) == 0 and empty.top5.shape == (0, 5)
    assert_equal_to_the_bit(concatenate([empty, outcomes_of(logits, labels)]), outcomes_of(logits, labels))


GOOD = np.zeros((3, 4), dtype=np.float32)
LABELS = np.zeros(3, dtype=int)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (GOOD, np.zeros(2, dtype=int), r"labels have shape \(2,\), wanted \(3,\)"),
        (GOOD, np.zeros((3, 1), dtype=int), r"labels have shape \(3, 1\)"),
        (GOOD, np.zeros(3), "labels have dtype float64, wanted whole numbers"),
        (GOOD, np.array([0, 4, 0]), r"label 4 of image 1 is outside 0\.\.3"),
        (GOOD, np.array([0, 0, -1]), "label -1 of image 2"),
        (GOOD[0], np.zeros(4, dtype=int), r"wanted \[images, classes\]"),
        (GOOD[:, :0], LABELS, "nothing to score"),
        (GOOD.astype(int), LABELS, "logits have dtype int64, wanted floats"),
        (GOOD + np.array([[0], [np.nan], [0]]), LABELS, "1 of 3 images are not finite, first image 1"),
        (GOOD - np.array([[0], [0], [np.inf]]), LABELS, "1 of 3 images are not finite, first image 2"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_the_reason(logits: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outcomes_of(logits, labels)


def test_a_teacher_and_right_classes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3, 4\) and \(3, 3\) cannot be compared"):
        outcomes_of(GOOD, LABELS, teacher=GOOD[:, :3])
    with pytest.raises(ValueError, match="3 of 3 images are not finite"):
        outcomes_of(GOOD, LABELS, teacher=GOOD * np.nan)
    with pytest.raises(ValueError, match=r"right classes are bool of shape \(3, 3\), wanted bool of \(3, 4\)"):
        outcomes_of(GOOD, LABELS, right=np.ones((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="right classes are int64"):
        outcomes_of(GOOD, LABELS, right=np.ones((3, 4), dtype=np.int64))
    right = np.ones((3, 4), dtype=bool)
    right[1] = False
    with pytest.raises(ValueError, match="1 of 3 images have no right class, first image 1"):
        outcomes_of(GOOD, LABELS, right=right)


def test_outcomes_of_different_kinds_are_not_joined() -> None:
    logits, labels, teacher = batch()
    plain, taught = outcomes_of(logits, labels), outcomes_of(logits, labels, teacher=teacher)
    with pytest.raises(ValueError, match="a teacher for all or for none"):
        concatenate([plain, taught])
    with pytest.raises(ValueError, match="same number of classes"):
        concatenate([plain, outcomes_of(GOOD, LABELS)])
    with pytest.raises(ValueError, match="no outcomes to join"):
        concatenate([])


def test_the_columns_of_a_set_like_imagenet_stay_small() -> None:
    logits, labels, teacher = batch()
    rows = outcomes_of(logits, labels, teacher=teacher)
    assert sum(column.nbytes for column in columns(rows).values() if column is not None) / len(rows) <= 100
