"""Paired differences of accuracy, against sums of their own and against simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import optimize, stats

from g2sd_export.paired import mcnemar_p, paired_drop, score_interval


def test_only_images_that_change_sides_count() -> None:
    before = np.array([True, True, True, False, False, True])
    after = np.array([True, False, False, True, False, True])
    got = paired_drop(before, after)
    assert (got.num_images, got.lost, got.gained, got.drop) == (6, 2, 1, pytest.approx(1 / 6))
    assert got.to_dict()["interval"] == list(got.interval)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (0, 6), (5, 5), (9, 2), (3, 30)])
def test_the_exact_test_is_a_sum_of_coin_tosses(lost: int, gained: int) -> None:
    tosses = lost + gained
    chance = [Fraction(math.comb(tosses, heads), 2**tosses) for heads in range(tosses + 1)]
    tail = sum(chance[: min(lost, gained) + 1], Fraction(0))
    assert mcnemar_p(lost, gained) == pytest.approx(float(min(Fraction(1), 2 * tail)), rel=1e-15)
    assert mcnemar_p(lost, gained) == pytest.approx(stats.binomtest(lost, max(tosses, 1)).pvalue if tosses else 1.0, rel=1e-12)


def test_thousands_of_changes_neither_overflow_nor_underflow_to_nonsense() -> None:
    assert mcnemar_p(5_000, 5_000) == 1.0
    assert mcnemar_p(5_200, 4_800) == pytest.approx(stats.binomtest(4_800, 10_000).pvalue, rel=1e-9)
    assert mcnemar_p(10_000, 0) == 0.0


@pytest.mark.parametrize(("lost", "gained", "num"), [(9, 2, 60), (12, 12, 100), (0, 0, 50), (3, 0, 40), (1, 30, 200)])
def test_the_interval_ends_where_the_score_test_rejects(lost: int, gained: int, num: int) -> None:
    """The likeliest shares under a given drop are found here by search over the likelihood, not by Tango's formula."""

    def z(drop: float) -> float:
        def surprise(share: float) -> float:  # of the gained images; -log likelihood of the three kinds of images
            kinds = ((gained, share), (lost, share + drop), (num - lost - gained, 1 - 2 * share - drop))
            return -sum(count * math.log(max(p, 1e-300)) for count, p in kinds if count)

        low, high = max(0.0, -drop), (1 - drop) / 2
        share = optimize.minimize_scalar(surprise, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
        return (lost - gained - num * drop) / math.sqrt(num * (2 * share + drop - drop**2))

    low, high = score_interval(lost, gained, num)
    assert low < (lost - gained) / num < high
    assert z(low) == pytest.approx(1.959964, abs=1e-3) and z(high) == pytest.approx(-1.959964, abs=1e-3)


def test_the_interval_is_mirrored_when_the_models_are() -> None:
    low, high = score_interval(9, 2, 60)
    assert score_interval(2, 9, 60) == (pytest.approx(-high), pytest.approx(-low))


def test_no_change_still_leaves_room_for_chance() -> None:
    low, high = score_interval(0, 0, 100)
    z2 = 1.959963984540054**2
    assert (low, high) == (pytest.approx(-z2 / (100 + z2)), pytest.approx(z2 / (100 + z2)))


@pytest.mark.parametrize(("lost", "gained", "num"), [(10, 0, 10), (0, 10, 10), (1, 0, 1), (1, 1, 2)])
def test_extremes_stay_within_what_is_possible(lost: int, gained: int, num: int) -> None:
    low, high = score_interval(lost, gained, num)
    assert -1 <= low <= (lost - gained) / num <= high <= 1


def test_the_interval_covers_the_truth_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    for share_lost, share_gained in ((0.02, 0.01), (0.05, 0.05), (0.01, 0.001)):
        draws = rng.multinomial(400, [share_lost, share_gained, 1 - share_lost - share_gained], 2000)
        limits = {pair: score_interval(*pair, 400) for pair in {(int(a), int(b)) for a, b, _ in draws}}
        inside = [limits[int(a), int(b)][0] <= share_lost - share_gained <= limits[int(a), int(b)][1] for a, b, _ in draws]
        assert 0.935 <= np.mean(inside) <= 0.985


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        paired_drop(np.zeros(0, bool), np.zeros(0, bool))
    for lost, gained, num in ((3, 3, 5), (0, 0, 0), (-1, 0, 5)):
        with pytest.raises(ValueError, match="no counts"):
            score_interval(lost, gained, num)
