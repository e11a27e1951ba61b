"""A series that drifts or jumps is told from one that only scatters."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from g2sd_export.edge.trends import is_stationary, jump, trend


def test_the_trend_of_a_straight_line_is_its_rise_over_its_middle() -> None:
    found = trend([100.0, 110.0, 120.0, 130.0, 140.0])
    assert found.share == pytest.approx(40 / 120)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(9 / math.sqrt(5 * 4 * 15 / 18)))


def test_the_slope_is_that_of_theil_and_sen_and_the_test_knows_ties() -> None:
    values = np.random.default_rng(3).integers(10, 20, 14).astype(float)
    slope = stats.theilslopes(values, np.arange(14)).slope
    assert trend(values).share == pytest.approx(slope * 13 / np.median(values))
    score = sum(np.sign(b - a) for a, b in itertools.combinations(values, 2))
    counts = [int((values == value).sum()) for value in set(values)]
    variance = (14 * 13 * 33 - sum(count * (count - 1) * (2 * count + 5) for count in counts)) / 18
    assert trend(values).p_value == pytest.approx(2 * stats.norm.sf((abs(score) - 1) / math.sqrt(variance)))


def test_one_outlier_makes_no_trend() -> None:
    assert trend([10.0] * 10 + [90.0]).p_value > 0.05 and trend([10.0] * 11).p_value == 1.0


def test_what_only_scatters_is_rarely_called_a_trend_or_a_jump() -> None:
    draw = np.random.default_rng(4)
    series = [draw.lognormal(2.0, 0.1, 12) for _ in range(1000)]
    assert np.mean([trend(values).p_value < 0.05 for values in series]) <= 0.06
    assert np.mean([jump(values).p_value < 0.05 for values in series]) <= 0.06


def test_a_step_is_found_with_its_height_wherever_it_is() -> None:
    for place in (4, 8, 12):
        values = np.full(16, 10.0)
        values[place:] = 12.0
        found = jump(values)
        assert found.share == pytest.approx(2 / np.median(values)) and found.p_value < 0.01


def test_the_p_value_of_a_jump_is_the_share_of_orders_that_show_as_much() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 16.0, 17.0, 18.0, 19.0, 20.0]  # only two of the 252 ways to halve ten values are as far apart
    assert jump(values).p_value == pytest.approx(2 / 252, abs=0.003)
    assert jump([*values[:4], 16.0, 5.0, *values[6:]]).p_value > 2 / 252 + 0.003


def test_a_series_that_goes_up_and_down_neither_drifts_nor_jumps() -> None:
    values = [10.0, 12.0] * 8
    assert trend(values).p_value > 0.3 and jump(values).p_value > 0.3


@pytest.mark.parametrize(
    ("values", "is_still"),
    [
        ([10.0, 9.9, 10.1, 10.0, 9.9, 10.2, 10.0, 10.1], True),
        ([20.0, 18.0, 16.0, 14.0, 13.0, 12.0, 11.0, 10.0], False),
        ([10.0, 10.0, 10.0, 10.0, 11.0, 11.0, 11.0, 11.0], False),
        ([10.0, 10.02, 10.04, 10.06, 10.08, 10.1, 10.12, 10.14], False),  # slight, and too orderly to be chance
    ],
)
def test_a_series_is_stationary_when_it_neither_moves_nor_ends_elsewhere(values: list[float], is_still: bool) -> None:
    assert is_stationary(values, share=0.05, p_value=0.05) is is_still
