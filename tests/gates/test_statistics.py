"""The tests behind the gates, against formulas that share nothing with them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from g2sd_deploy.gates.statistics import (
    Sureness,
    detectable_drop,
    drop_p,
    holm,
    lost_p,
    normal_test,
    paired_test,
    student_test,
    unpaired_test,
)

SURE = Sureness()


def mid_p(lost: int, gained: int) -> float:
    if lost + gained == 0:
        return 0.5
    exact = stats.binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue
    return float(exact - stats.binom.pmf(lost, lost + gained, 0.5) / 2)


def test_four_lost_and_none_gained_is_half_of_one_in_sixteen() -> None:
    assert lost_p(4, 0) == 1 / 32
    assert lost_p(4, 1) == (1 + 5 / 2) / 32
    assert lost_p(0, 0) == 0.5
    assert lost_p(0, 7) == 1 - 1 / 256


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_p_value_is_that_of_a_one_sided_test_of_a_coin_less_half_of_what_was_found(lost: int, gained: int) -> None:
    assert lost_p(lost, gained) == pytest.approx(mid_p(lost, gained), rel=1e-9)


@pytest.mark.parametrize("changed", [0.0005, 0.001, 0.002, 0.005, 0.02, 0.07])
def test_a_model_that_is_as_good_is_failed_in_at_most_five_of_a_hundred_checks(changed: float) -> None:
    numbers = np.arange(0, 600)
    failed = [sum(stats.binom.pmf(k, n, 0.5) for k in range(n // 2, n + 1) if lost_p(k, n - k) <= 0.05) for n in range(120)]
    share = stats.binom.pmf(numbers[:120], 3925 if changed < 0.02 else 1000, changed) @ np.array(failed)
    assert share <= 0.0505


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000), st.floats(0.001, 0.2))
def test_above_a_tolerance_the_score_is_that_of_the_likeliest_shares(lost: int, gained: int, same: int, tolerance: float) -> None:
    num = lost + gained + same
    if num == 0:
        return
    # The share that gains is the one of highest likelihood among those whose balance is the tolerance, found by search.
    shares = np.linspace(1e-9, (1 - tolerance) / 2 - 1e-9, 200_001)
    likelihood = lost * np.log(shares + tolerance) + gained * np.log(shares) + same * np.log(1 - 2 * shares - tolerance)
    share = shares[likelihood.argmax()]
    variance = num * (2 * share + tolerance - tolerance**2)
    z = (lost - gained - num * tolerance) / math.sqrt(variance)
    assert drop_p(lost, gained, num, tolerance) == pytest.approx(stats.norm.sf(z), abs=2e-3)


def test_the_bound_is_where_the_score_test_just_rejects() -> None:
    tested = paired_test(60, 30, 3925, tolerance=0.0, sureness=SURE)
    assert tested.value == 30 / 3925 and 0 < tested.bound < tested.value
    assert drop_p(60, 30, 3925, tested.bound) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(("num", "changed"), [(20, 0.6), (36, 0.3)])
def test_the_detectable_drop_is_found_as_often_as_is_said(num: int, changed: float) -> None:
    drop = detectable_drop(num, changed, tolerance=0.0, sureness=SURE)
    changed = max(changed, drop)
    shares = [(changed + drop) / 2, (changed - drop) / 2, 1 - changed]
    found = 0.0  # over every way that num images can turn out
    for lost in range(num + 1):
        for gained in range(num + 1 - lost):
            if mid_p(lost, gained) <= 0.05:
                found += stats.multinomial.pmf([lost, gained, num - lost - gained], num, np.clip(shares, 0, 1))
    assert found == pytest.approx(0.95, abs=1e-3)


def test_where_a_drop_is_all_that_changes_four_lost_images_have_to_turn_up() -> None:
    drop = detectable_drop(3925, 0.0, tolerance=0.0, sureness=SURE)
    assert stats.binom.sf(3, 3925, drop) == pytest.approx(0.95, abs=1e-6)


def test_a_point_is_found_with_3925_images_while_fewer_than_three_in_a_hundred_change_sides() -> None:
    assert detectable_drop(3925, 0.03, tolerance=0.0, sureness=SURE) < 0.01
    assert detectable_drop(3925, 0.08, tolerance=0.0, sureness=SURE) > 0.01


def test_a_tolerance_moves_what_is_found_by_itself() -> None:
    without, with_one = (detectable_drop(3925, 0.03, tolerance=tolerance, sureness=SURE) for tolerance in (0.0, 0.005))
    assert with_one - without == pytest.approx(0.005, abs=0.001)


def test_no_drop_is_found_surely_in_a_handful_of_images() -> None:
    assert detectable_drop(3, 0.5, tolerance=0.0, sureness=SURE) == 1.0


def test_unpaired_accuracies_are_compared_with_a_right_and_a_wrong_answer_more() -> None:
    tested = unpaired_test((90, 100), (70, 100), tolerance=0.0, sureness=SURE)
    one, other = 91 / 102, 71 / 102
    z = (one - other) / math.sqrt(one * (1 - one) / 102 + other * (1 - other) / 102)
    assert tested.value == pytest.approx(0.2) and tested.p == pytest.approx(stats.norm.sf(z))
    assert unpaired_test((50, 50), (50, 50), tolerance=0.0, sureness=SURE).p == 0.5


def test_a_mean_difference_is_tested_as_scipy_does() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 25)
    error = float(values.std(ddof=1)) / 5
    tested = student_test(float(values.mean()), error, 24, 0.1, SURE)
    assert tested.p == pytest.approx(stats.ttest_1samp(values, 0.1, alternative="greater").pvalue)
    assert tested.bound == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").confidence_interval(0.95).low)
    assert tested.detectable == pytest.approx(0.1 + 2 * stats.t.ppf(0.95, 24) * error)


def test_a_difference_without_error_is_certain() -> None:
    assert normal_test(0.02, 0.0, 0.01, SURE).p == 0.0
    assert normal_test(0.01, 0.0, 0.01, SURE).p == 1.0
    assert student_test(0.0, 0.0, 9, 0.0, SURE).p == 1.0


def test_holm_raises_the_smallest_p_most_and_keeps_the_order() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
