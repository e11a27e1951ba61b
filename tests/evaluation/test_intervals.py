"""Intervals against published numbers, scipy and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from g2sd_deploy.evaluation.intervals import CaseTotals, Interval, mean_interval, wilson_interval


@pytest.mark.parametrize(("hits", "num"), [(0, 1), (1, 1), (0, 29), (15, 148), (263, 263), (37_423, 50_000)])
def test_the_interval_of_a_share_is_scipys_wilson_interval(hits: int, num: int) -> None:
    theirs = stats.binomtest(hits, num).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, num) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_ends_of_a_share_are_exactly_0_and_1() -> None:
    assert wilson_interval(0, 20)[0] == 0 and wilson_interval(20, 20)[1] == 1
    assert wilson_interval(0, 20)[1] > 0.1  # no error in 20 images is no proof


@pytest.mark.parametrize(("hits", "num"), [(0, 0), (-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(hits: int, num: int) -> None:
    with pytest.raises(ValueError, match=f"{hits} hits of {num} trials"):
        wilson_interval(hits, num)


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([2.0, 3.0, 7.0, 9.0])
    half = 3.182446305284263 * math.sqrt(sum((v - 5.25) ** 2 for v in values.tolist()) / 3) / 2  # t of 3 degrees of freedom
    assert mean_interval(values) == pytest.approx((5.25 - half, 5.25 + half), rel=1e-12)
    assert mean_interval(values, low=1.0, high=8.0) == pytest.approx((1.0, 8.0))


def test_the_mean_of_one_value_has_no_interval_and_of_none_no_mean() -> None:
    assert mean_interval(np.array([3.0])) is None
    with pytest.raises(ValueError, match="no values"):
        mean_interval(np.array([]))


def mean_of(correct: np.ndarray) -> tuple[float, Interval | None]:
    """Share of correct answers over all cases, each of which has the same images in the same order."""
    totals = CaseTotals({case: [1 / len(correct)] for case in range(len(correct))})
    for case, values in enumerate(correct):
        totals.add(case, values, range(len(values)))
    return totals.total(low=0.0, high=1.0)


def hard_and_easy(cases: int, num: int, seed: int) -> np.ndarray:
    """Answers where an image that is hard is hard in all cases."""
    random = np.random.default_rng(seed)
    ease = random.beta(0.5, 0.5, num)
    return random.random((cases, num)) < ease


def test_the_interval_over_complete_cases_is_that_of_the_images_own_means() -> None:
    correct = hard_and_easy(6, 50, seed=0)
    mean, interval = mean_of(correct)
    own = correct.mean(axis=0)
    wanted = stats.ttest_1samp(own, 0).confidence_interval(0.95)
    assert mean == pytest.approx(float(correct.mean()), rel=1e-12)
    assert interval == pytest.approx((wanted.low, wanted.high), rel=1e-9)


def test_the_mean_over_cases_covers_the_truth_where_counting_answers_would_not() -> None:
    covered = counted = 0
    for seed in range(300):
        correct = hard_and_easy(20, 100, seed)
        _, interval = mean_of(correct)
        assert interval is not None
        covered += interval[0] <= 0.5 <= interval[1]
        low, high = wilson_interval(int(correct.sum()), correct.size)
        counted += low <= 0.5 <= high
    assert covered >= 0.92 * 300
    assert counted <= 0.6 * 300


def test_portions_and_orders_of_the_answers_do_not_matter() -> None:
    correct, weights = hard_and_easy(3, 30, seed=1), {"fog": [0.5, 2.0], "snow": [0.25, 0.0], "blur": [0.25, -1.0]}
    whole, portions = CaseTotals(weights), CaseTotals(weights)
    names = [f"n0144/{i}.jpg" for i in range(30)]
    for case, values in zip(weights, correct, strict=True):
        whole.add(case, values, names)
    for start in (20, 0, 10):
        for case, values in reversed(list(zip(weights, correct, strict=True))):
            picks = np.random.default_rng(start).permutation(np.arange(start, start + 10))
            portions.add(case, values[picks], [names[i] for i in picks])
    for index in (0, 1):
        value, interval = whole.total(index)
        got, got_interval = portions.total(index)
        assert got == pytest.approx(value, rel=1e-12) and got_interval == pytest.approx(interval, rel=1e-9)
    assert whole.total(1)[0] == pytest.approx(2 * correct[0].mean() - correct[2].mean())
    assert whole.case_mean("snow") == correct[1].mean()


def test_an_image_that_a_case_lacks_counts_where_it_is() -> None:
    totals = CaseTotals({"fog": [0.5], "snow": [0.5]})
    totals.add("fog", np.array([True, True, False, False]), "abcd")
    totals.add("snow", np.array([True, False, True]), "bca")
    value, interval = totals.total()
    assert value == pytest.approx((0.5 + 2 / 3) / 2)
    half = 4.302652729911275 * np.std([1.0, 1.0, 0.0], ddof=1) / math.sqrt(3)  # a, b and c; t of 2 degrees of freedom
    assert interval == pytest.approx((value - half, value + half), rel=1e-9)
    assert totals.total(low=0.2, high=0.9)[1] == (0.2, 0.9)


def test_a_single_image_has_a_mean_without_an_interval() -> None:
    assert mean_of(np.array([[True], [False]])) == (0.5, None)


def test_cases_that_cannot_be_summed_are_refused() -> None:
    totals = CaseTotals({"fog": [1.0]})
    with pytest.raises(ValueError, match="no image of fog was added"):
        totals.total()
    with pytest.raises(ValueError, match=r"3 values of 2 different images \(3 keys\)"):
        totals.add("fog", np.array([True, False, True]), ["a", "b", "a"])
    with pytest.raises(ValueError, match=r"1 values of 2 different images"):
        totals.add("fog", np.array([True]), ["a", "b"])
    for weights in ({}, {"fog": [1.0], "snow": [1.0, 2.0]}):
        with pytest.raises(ValueError, match="as many of each"):
            CaseTotals(weights)
    with pytest.raises(ValueError, match="at least one case"):
        mean_of(np.zeros((0, 3), dtype=bool))
