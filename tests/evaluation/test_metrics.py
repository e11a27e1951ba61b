"""Scores of a set: what is in them, and that they are those of the outcomes."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from g2sd_deploy.evaluation.calibration import (
    area_under_risk_coverage,
    calibration_error_interval,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    risk_coverage_interval,
)
from g2sd_deploy.evaluation.metrics import brief_scores, full_scores
from g2sd_deploy.evaluation.outcomes import Outcomes, concatenate, outcomes_of

BRIEF = ["num_images", "top1", "top5", "nll", "brier", "ece"]
FULL = [*BRIEF, "ece_equal_mass", "aurc", "intervals", "per_class", "reliability", "risk_coverage", "agreement"]


def probabilities(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def accuracy_by_sorting(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    right = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        right += label in sorted(range(len(row)), key=lambda index: (-row[index], index))[:k]
    return right / len(labels)


def ece_by_loops(logits: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    rows = [probabilities(row) for row in logits.astype(float).tolist()]
    for number in range(15):
        inside = [(row, label) for row, label in zip(rows, labels.tolist(), strict=True) if number / 15 < max(row) <= (number + 1) / 15]
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


def a_set(num: int = 400, num_classes: int = 12, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits that are mostly right, labels of all classes but the last, and a teacher's logits."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes - 1, num)
    logits = random.standard_normal((num, num_classes)) + 2.5 * (np.arange(num_classes) == labels[:, np.newaxis])
    return logits.astype(np.float32), labels, (logits + random.standard_normal(logits.shape)).astype(np.float32)


def of_a_set(*, teacher: bool = True) -> Outcomes:
    logits, labels, theirs = a_set()
    return outcomes_of(logits, labels, teacher=theirs if teacher else None)


@given(batch=scored_batches())
@settings(max_examples=60, deadline=None)
def test_the_six_numbers_equal_their_definitions(batch: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = batch
    got = brief_scores(outcomes_of(logits, labels))
    rows = [probabilities(row) for row in logits.astype(float).tolist()]
    losses = [-math.log(row[label]) for row, label in zip(rows, labels.tolist(), strict=True)]
    squares = [math.fsum((p - (k == label)) ** 2 for k, p in enumerate(row)) for row, label in zip(rows, labels.tolist(), strict=True)]
    assert list(got) == BRIEF and got["num_images"] == len(labels)
    assert got["top1"] == accuracy_by_sorting(logits, labels, 1) and got["top5"] == accuracy_by_sorting(logits, labels, 5)
    assert got["nll"] == pytest.approx(math.fsum(losses) / len(losses), rel=1e-9, abs=1e-12)
    assert got["brier"] == pytest.approx(math.fsum(squares) / len(squares), rel=1e-9, abs=1e-12)
    assert got["ece"] == pytest.approx(ece_by_loops(logits, labels), rel=1e-9, abs=1e-12)


@given(batch=scored_batches(), shift=st.integers(-1000, 1000), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_scores_ignore_a_constant_in_the_logits_and_the_order_of_images(
    batch: tuple[np.ndarray, np.ndarray], shift: int, order: object
) -> None:
    logits, labels = batch
    rows = list(range(len(labels)))
    order.shuffle(rows)  # type: ignore[attr-defined]
    before, after = brief_scores(outcomes_of(logits, labels)), brief_scores(outcomes_of(logits[rows] + shift, labels[rows]))
    assert after == pytest.approx(before, rel=1e-9, abs=1e-9)


def test_full_scores_are_plain_json_and_begin_with_the_brief_ones() -> None:
    outcomes = of_a_set()
    got = full_scores(outcomes, num_classes=12)
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert list(got) == FULL
    assert {name: got[name] for name in BRIEF} == brief_scores(outcomes)


def test_every_score_lies_in_its_interval_or_above_it_where_chance_lifts_it() -> None:
    got = full_scores(of_a_set(), num_classes=12)
    assert list(got["intervals"]) == [*BRIEF[1:], "ece_equal_mass", "aurc"]
    for name, (low, high) in got["intervals"].items():
        assert 0 <= low < high, name
        assert low < got[name] < high or name.startswith("ece"), name
    assert list(got["agreement"]) == ["same", "kl", "intervals"]
    for name, (low, high) in got["agreement"]["intervals"].items():
        assert low < got["agreement"][name] < high, name


def test_intervals_are_wilsons_for_shares_and_students_for_means() -> None:
    outcomes = of_a_set()
    got = full_scores(outcomes, num_classes=12)
    assert outcomes.same is not None and outcomes.kl is not None
    shares = {"top1": outcomes.rank == 0, "top5": outcomes.rank < 5, "same": outcomes.same}
    intervals = got["intervals"] | got["agreement"]["intervals"]
    for name, hits in shares.items():
        theirs = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
        assert intervals[name] == pytest.approx([theirs.low, theirs.high]), name
    for name, values in {"nll": outcomes.nll, "brier": outcomes.brier, "kl": outcomes.kl}.items():
        student = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert intervals[name] == pytest.approx([student.low, student.high]), name


def test_calibration_and_area_are_those_of_the_confidence() -> None:
    outcomes = of_a_set()
    confidence, correct = outcomes.top1_prob, outcomes.correct
    got = full_scores(outcomes, num_classes=12, seed=3)
    for name, bins in {"ece": equal_width_bins(confidence, correct), "ece_equal_mass": equal_mass_bins(confidence, correct)}.items():
        assert got[name] == expected_calibration_error(bins)
        assert got["intervals"][name] == list(calibration_error_interval(bins, seed=3))
    assert got["aurc"] == area_under_risk_coverage(confidence, correct)
    assert got["intervals"]["aurc"] == list(risk_coverage_interval(confidence, correct))
    assert sum(row["num"] for row in got["reliability"]) == 400 and len(got["risk_coverage"]["risk"]) == 100


def test_classes_are_scored_one_by_one_and_those_without_images_have_no_score() -> None:
    logits, labels, _ = a_set()
    got = full_scores(outcomes_of(logits, labels), num_classes=12)["per_class"]
    right = logits.argmax(axis=1) == labels
    for k in range(11):
        assert got["num"][k] == (labels == k).sum()
        assert got["top1"][k] == pytest.approx(right[labels == k].mean())
        assert got["intervals"][k][0] < got["top1"][k] <= got["intervals"][k][1]
    assert (got["num"][11], got["top1"][11], got["intervals"][11]) == (0, None, None)


def test_without_a_teacher_there_is_no_agreement() -> None:
    assert full_scores(of_a_set(teacher=False), num_classes=12)["agreement"] is None


def test_label_sets_have_accuracy_and_calibration_but_no_likelihood() -> None:
    logits, labels, theirs = a_set()
    right = (np.arange(12) == labels[:, np.newaxis]) | (np.arange(12) == 3)
    got = full_scores(outcomes_of(logits, labels, right=right, teacher=theirs), num_classes=12)
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    first = logits.argmax(axis=1)
    assert got["top1"] == pytest.approx(((first == labels) | (first == 3)).mean())
    unknown = [got["nll"], got["brier"], got["per_class"], got["intervals"]["nll"], got["intervals"]["brier"]]
    assert unknown == [None] * 5
    assert got["intervals"]["ece"] and got["agreement"]["kl"] > 0


def test_a_single_image_has_scores_and_the_intervals_that_one_image_allows() -> None:
    got = full_scores(outcomes_of(np.array([[2.0, 1.0, 0.0]]), np.array([0])), num_classes=3)
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert got["top1"] == 1 and got["intervals"]["top1"][0] < 0.3
    assert got["intervals"]["nll"] is None and got["intervals"]["brier"] is None


def test_how_a_set_was_cut_into_batches_changes_no_digit() -> None:
    logits, labels, theirs = a_set(100)
    whole = full_scores(outcomes_of(logits, labels, teacher=theirs), num_classes=12)
    parts = [outcomes_of(logits[i : i + 7], labels[i : i + 7], teacher=theirs[i : i + 7]) for i in range(0, 100, 7)]
    assert full_scores(concatenate(parts), num_classes=12) == whole


def test_a_model_that_ignores_its_input_is_right_by_chance_and_knows_nothing() -> None:
    labels = np.arange(200) % 10
    got = full_scores(outcomes_of(np.tile(np.linspace(1, 0, 10), (200, 1)), labels), num_classes=10)
    assert got["top1"] == 0.1 and got["top5"] == 0.5
    assert got["aurc"] == pytest.approx(0.9)  # the error rate: its confidence sorts nothing
    assert got["per_class"]["top1"] == [1.0] + [0.0] * 9


def test_a_model_that_is_as_often_right_as_it_claims_has_no_calibration_error() -> None:
    logits = np.tile(np.array([[math.log(3.0), 0.0]]), (4, 1))  # claims 75 %
    got = full_scores(outcomes_of(logits, np.array([0, 0, 0, 1])), num_classes=2)
    assert got["ece"] == pytest.approx(0, abs=1e-12) and got["ece_equal_mass"] == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_scored_is_refused() -> None:
    outcomes = of_a_set()
    with pytest.raises(ValueError, match="nothing to score"):
        brief_scores(outcomes.take(np.arange(0)))
    with pytest.raises(ValueError, match="nothing to score"):
        full_scores(outcomes.take(np.arange(0)), num_classes=12)
    with pytest.raises(ValueError, match=r"label 10 is outside 0\.\.4, the range of 5 classes"):
        full_scores(outcomes, num_classes=5)
