"""Intervals of figures whose images are drawn anew or left out, against formulas in plain numbers."""

import math
import statistics

import numpy as np
import pytest
from scipy.stats import t

from g2sd_deploy.evaluation.resampling import bootstrap_interval, jackknife_interval, times_drawn


def test_images_are_drawn_as_often_as_chance_would_have_it() -> None:
    times = times_drawn(0, "some", range(400), 50)
    assert times.shape == (400, 50) and (times.sum(axis=1) == 50).all()
    assert abs(float((times == 0).mean()) - (1 - 1 / 50) ** 50) < 0.01
    assert math.isclose(float(times.var()), 1 - 1 / 50, abs_tol=0.05)


def test_a_resample_depends_on_its_own_number_the_seed_and_the_stream_alone() -> None:
    times = times_drawn(0, "some", range(20), 9)
    assert (times_drawn(0, "some", range(5, 8), 9) == times[5:8]).all()
    assert (times_drawn(1, "some", range(20), 9) != times).any() and (times_drawn(0, "other", range(20), 9) != times).any()


def test_the_bootstrap_takes_the_bias_off() -> None:
    values = [0.30, 0.34, 0.29, 0.37, 0.35]
    low, high = bootstrap_interval(0.40, np.array(values), 12) or (0.0, 0.0)
    centre, half = 0.40 - (statistics.mean(values) - 0.40), t.ppf(0.975, 11) * statistics.stdev(values)
    assert (low, high) == pytest.approx((min(0.40, centre - half), centre + half), abs=1e-12)


def test_the_jackknife_of_a_mean_is_the_interval_of_the_mean() -> None:
    values = [0.2, 0.5, 0.9, 0.4]
    without = np.array([statistics.mean(values[:i] + values[i + 1 :]) for i in range(4)])
    half = t.ppf(0.975, 3) * statistics.stdev(values) / 2
    assert jackknife_interval(0.5, without) == pytest.approx((max(0.5 - half, 0), min(0.5 + half, 1)), abs=1e-12)


def test_the_jackknife_takes_the_bias_of_a_square_off() -> None:
    """Of the squared mean the bias is the squared standard error, exactly."""
    values = [0.41, 0.39, 0.44, 0.36, 0.40]
    without = np.array([statistics.mean(values[:i] + values[i + 1 :]) ** 2 for i in range(5)])
    low, high = jackknife_interval(statistics.mean(values) ** 2, without) or (0.0, 0.0)
    assert (low + high) / 2 == pytest.approx(statistics.mean(values) ** 2 - statistics.variance(values) / 5, abs=1e-12)


def test_an_interval_holds_the_figure_and_ends_where_shares_do() -> None:
    assert bootstrap_interval(0.9, np.array([0.30, 0.31, 0.30, 0.31]), 50) == pytest.approx((0.9, 1.0))
    low, high = jackknife_interval(0.1, np.array([0.0, 0.9, 0.1])) or (1.0, 0.0)
    assert (low, high) == (0.0, 1.0)


def test_what_is_too_little_for_an_interval_has_none() -> None:
    assert jackknife_interval(0.5, np.array([0.5])) is None
    assert jackknife_interval(0.5, np.array([0.5, math.nan])) is None
    assert bootstrap_interval(0.5, np.array([0.5, 0.6]), 1) is None
    assert bootstrap_interval(0.5, np.array([0.5, math.nan, math.nan]), 9) is None
