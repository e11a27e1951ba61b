"""Calibration and risk-coverage against loops in plain Python floats, and the coverage of their intervals by simulation."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from g2sd_deploy.evaluation.calibration import (
    area_under_risk_coverage,
    calibration_error_interval,
    equal_mass_bins,
    equal_width_bins,
    expected_calibration_error,
    reliability,
    risk_coverage_curve,
    risk_coverage_interval,
)

ANSWERS = st.lists(
    st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=40
)  # confidence in 60ths, so that ties and edges occur


def arrays(answers: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([sixtieths / 60 for sixtieths, _ in answers]), np.array([right for _, right in answers])


def gap_of(groups: list[list[tuple[float, bool]]]) -> float:
    num = sum(map(len, groups))
    return math.fsum(abs(sum(right for _, right in group) - math.fsum(c for c, _ in group)) for group in groups) / num


@given(answers=ANSWERS)
@settings(max_examples=80, deadline=None)
def test_the_error_over_bins_of_equal_width_equals_its_definition(answers: list[tuple[int, bool]]) -> None:
    confidence, correct = arrays(answers)
    pairs = list(zip(confidence.tolist(), correct.tolist(), strict=True))
    groups = [[(c, right) for c, right in pairs if m / 15 < c <= (m + 1) / 15] for m in range(15)]
    assert expected_calibration_error(equal_width_bins(confidence, correct)) == pytest.approx(gap_of(groups), rel=1e-9, abs=1e-12)
    wanted = [next(m for m in range(15) if m / 15 < c <= (m + 1) / 15) for c, _ in pairs]
    assert equal_width_bins(confidence, correct).num.tolist() == [wanted.count(m) for m in range(15)]


@given(answers=ANSWERS)
@settings(max_examples=80, deadline=None)
def test_bins_of_equal_mass_are_runs_of_the_sorted_images_that_never_part_ties(answers: list[tuple[int, bool]]) -> None:
    confidence, correct = arrays(answers)
    pairs = sorted(zip(confidence.tolist(), correct.tolist(), strict=True))
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for place, (c, right) in enumerate(pairs):
        first = min(i for i, (other, _) in enumerate(pairs) if other == c)
        groups[first * 15 // len(pairs)].append((c, right))  # its own bin, or that of the first with the same confidence
        assert first <= place
    got = equal_mass_bins(confidence, correct)
    assert got.num.tolist() == [len(group) for group in groups]
    assert expected_calibration_error(got) == pytest.approx(gap_of(groups), rel=1e-9, abs=1e-12)


def test_bins_of_equal_mass_hold_equally_many_images_where_none_tie() -> None:
    confidence = np.random.default_rng(0).random(150)
    assert equal_mass_bins(confidence, confidence > 0.5).num.tolist() == [10] * 15
    assert set(equal_mass_bins(confidence[:100], confidence[:100] > 0.5).num.tolist()) == {6, 7}


def test_a_model_that_says_the_same_of_every_image_has_one_bin() -> None:
    bins = equal_mass_bins(np.full(10, 0.75), np.arange(10) < 6)
    assert bins.num.tolist() == [10] + [0] * 14
    assert expected_calibration_error(bins) == pytest.approx(0.15)


def test_reliability_rows_tell_where_the_model_is_wrong_about_itself() -> None:
    rows = reliability(equal_width_bins(np.array([0.05, 0.97, 0.99, 1.0]), np.array([False, True, False, True])))
    assert len(rows) == 15 and [row["num"] for row in rows] == [1] + [0] * 13 + [3]
    assert rows[0] == {"low": 0.0, "high": 1 / 15, "num": 1, "confidence": 0.05, "accuracy": 0.0}
    assert rows[7]["confidence"] is None and rows[7]["accuracy"] is None
    assert (rows[14]["low"], rows[14]["high"]) == (14 / 15, 1.0)
    assert rows[14]["confidence"] == pytest.approx(2.96 / 3) and rows[14]["accuracy"] == pytest.approx(2 / 3)


def area_by_all_orders(answers: list[tuple[int, bool]]) -> float:
    """Mean over every order of the images that never puts a less confident one first."""
    areas = []
    for order in permutations(answers):
        if all(one[0] >= other[0] for one, other in pairwise(order)):
            risks = [sum(not right for _, right in order[:k]) / k for k in range(1, len(order) + 1)]
            areas.append(math.fsum(risks) / len(order))
    return math.fsum(areas) / len(areas)


@given(answers=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_area_is_the_mean_over_all_orders_of_the_ties(answers: list[tuple[int, bool]]) -> None:
    assert area_under_risk_coverage(*arrays(answers)) == pytest.approx(area_by_all_orders(answers), rel=1e-9, abs=1e-12)


@given(answers=ANSWERS, order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_no_number_depends_on_the_order_of_the_images(answers: list[tuple[int, bool]], order: object) -> None:
    shuffled = answers.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = arrays(answers), arrays(shuffled)
    assert area_under_risk_coverage(*one) == pytest.approx(area_under_risk_coverage(*other), rel=1e-12, abs=1e-15)
    assert risk_coverage_interval(*one) == pytest.approx(risk_coverage_interval(*other), rel=1e-9, abs=1e-15)
    assert equal_mass_bins(*one).num.tolist() == equal_mass_bins(*other).num.tolist()
    for bins in (equal_width_bins, equal_mass_bins):
        got = calibration_error_interval(bins(*one), num_resamples=10)
        assert got == pytest.approx(calibration_error_interval(bins(*other), num_resamples=10), abs=1e-9)


def test_a_good_order_has_less_area_than_a_bad_one_and_no_order_has_the_error_rate() -> None:
    correct = np.arange(100) < 80
    falling = np.linspace(0.99, 0.5, 100)
    best, worst = area_under_risk_coverage(falling, correct), area_under_risk_coverage(falling[::-1], correct)
    assert best == pytest.approx(sum((k - 80) / k for k in range(81, 101)) / 100)
    assert area_under_risk_coverage(np.full(100, 0.9), correct) == pytest.approx(0.2)
    assert best < 0.2 < worst


def test_the_curve_ends_at_the_error_rate_and_has_at_most_a_point_a_percent() -> None:
    random = np.random.default_rng(0)
    confidence, correct = random.random(12_345), random.random(12_345) < 0.7
    curve = risk_coverage_curve(confidence, correct)
    assert len(curve["coverage"]) == len(curve["risk"]) == 100
    assert curve["coverage"][-1] == 1 and curve["risk"][-1] == pytest.approx(float((~correct).mean()))
    assert curve["coverage"] == pytest.approx([i / 100 for i in range(1, 101)], abs=1e-4)
    most = np.argsort(-confidence)[: math.ceil(0.25 * 12_345)]
    assert curve["risk"][24] == pytest.approx(float((~correct[most]).mean()))
    assert risk_coverage_curve(confidence[:3], correct[:3])["coverage"] == pytest.approx([1 / 3, 2 / 3, 1])


def sets_of(accuracy_of: object, num: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    made = []
    for seed in range(count):
        random = np.random.default_rng((num, seed))
        confidence = 0.05 + 0.95 * random.beta(2, 1, num)
        made.append((confidence, random.random(num) < accuracy_of(confidence)))  # type: ignore[operator]
    return made


def percentile_interval(confidence: np.ndarray, correct: np.ndarray) -> tuple[float, float]:
    """The plain bootstrap of images, for comparison."""
    random, num = np.random.default_rng(0), len(confidence)
    picks = random.integers(0, num, (100, num))
    values = [expected_calibration_error(equal_width_bins(confidence[rows], correct[rows])) for rows in picks]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("num", [200, 2_000])
@pytest.mark.parametrize("bins", [equal_width_bins, equal_mass_bins])
def test_the_interval_of_a_calibrated_model_reaches_down_to_no_error(num: int, bins: object) -> None:
    sets = sets_of(lambda confidence: confidence, num, 100)
    intervals = [calibration_error_interval(bins(*one), num_resamples=200) for one in sets]  # type: ignore[operator]
    assert sum(low == 0 for low, _ in intervals) >= 0.9 * len(sets)
    assert not any(percentile_interval(*one)[0] == 0 for one in sets[:5])  # why the plain bootstrap was not taken


@pytest.mark.parametrize("num", [200, 2_000])
def test_the_interval_of_a_miscalibrated_model_covers_its_true_error(num: int) -> None:
    grid = 0.05 + 0.95 * np.sqrt((np.arange(200_000) + 0.5) / 200_000)  # quantiles of Beta(2, 1)
    gaps = np.bincount(np.ceil(grid * 15).astype(int), weights=np.minimum(0.1, grid / 2))
    true = float(np.abs(gaps).sum() / len(grid))
    sets = sets_of(lambda confidence: confidence - np.minimum(0.1, confidence / 2), num, 100)
    intervals = [calibration_error_interval(equal_width_bins(*one), num_resamples=200) for one in sets]
    assert sum(low <= true <= high for low, high in intervals) >= 0.9 * len(sets)
    assert np.mean([high - low for low, high in intervals]) <= 4 / math.sqrt(num)  # and says something


@pytest.mark.parametrize("num", [300, 3_000])
def test_the_interval_of_the_area_covers_the_true_area(num: int) -> None:
    grid = 1 - (np.arange(100_000) + 0.5) / 100_000  # coverage from the bottom: the confidence of quantile q is 0.05 + 0.95 sqrt(q)
    errors = 1 - (0.05 + 0.95 * np.sqrt(grid))
    true = float((np.cumsum(errors) / np.arange(1, 100_001)).mean())
    sets = sets_of(lambda confidence: confidence, num, 200)
    intervals = [risk_coverage_interval(*one) for one in sets]
    assert 0.9 * len(sets) <= sum(low <= true <= high for low, high in intervals) <= 0.99 * len(sets)


@pytest.mark.parametrize("digits", [1, 9])
def test_the_spread_of_the_area_is_that_of_leaving_one_image_out(digits: int) -> None:
    confidence, correct = sets_of(lambda confidence: confidence, 250, 1)[0]
    confidence = confidence.round(digits)  # one digit: many ties
    without = [area_under_risk_coverage(np.delete(confidence, i), np.delete(correct, i)) for i in range(250)]
    error = math.sqrt(249 / 250 * float(np.square(np.array(without) - np.mean(without)).sum()))
    area, (low, high) = area_under_risk_coverage(confidence, correct), risk_coverage_interval(confidence, correct)
    assert math.sqrt(low * high) == pytest.approx(area)
    half = float(stats.t.ppf(0.975, int((~correct).sum()))) * error / area
    assert math.log(high / low) / 2 == pytest.approx(half, rel=0.02)


def test_an_area_without_errors_or_without_answers_is_not_taken_for_certain() -> None:
    confidence = np.linspace(0.5, 0.9, 50)
    low, high = risk_coverage_interval(confidence, np.ones(50, dtype=bool))
    assert low == 0 and 0.05 < high < 0.3
    low, high = risk_coverage_interval(confidence, np.zeros(50, dtype=bool))
    assert 0.7 < low < 0.95 and high == 1
    low, high = risk_coverage_interval(confidence, np.arange(50) > 0)  # the one error is the least confident answer
    assert 0 < low < 1 / 2500 < high < 0.4
    for only in (True, False):
        low, high = risk_coverage_interval(np.array([0.7]), np.array([only]))
        assert 0 <= low < high <= 1


def test_intervals_are_drawn_from_their_seed_alone() -> None:
    bins = equal_width_bins(*sets_of(lambda confidence: confidence**2, 500, 1)[0])
    assert calibration_error_interval(bins, seed=3) == calibration_error_interval(bins, seed=3)
    assert calibration_error_interval(bins, seed=3) != calibration_error_interval(bins, seed=4)


@pytest.mark.parametrize("bins", [equal_width_bins, equal_mass_bins])
def test_what_cannot_be_binned_is_refused(bins: object) -> None:
    with pytest.raises(ValueError, match="num_bins is 0, wanted at least 1"):
        bins(np.array([0.5]), np.array([True]), num_bins=0)  # type: ignore[operator]
    with pytest.raises(ValueError, match="nothing to score"):
        bins(np.array([]), np.array([], dtype=bool))  # type: ignore[operator]
    with pytest.raises(ValueError, match="nothing to score"):
        area_under_risk_coverage(np.array([]), np.array([], dtype=bool))
