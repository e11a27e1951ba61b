"""How many samples carry a percentile, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.sampling import half_width, histogram, interval_of_median, interval_of_p50, samples_needed, summarise


@pytest.mark.parametrize(("percentile", "needed"), [(90.0, 64), (99.0, 662), (50.0, 11), (95.0, 130), (99.9, 6636)])
def test_the_fewest_samples_of_which_two_lie_beyond_the_percentile_with_99_percent_confidence(percentile: float, needed: int) -> None:
    beyond = 1 - percentile / 100
    assert samples_needed(percentile) == needed
    assert stats.binom.sf(1, needed, beyond) >= 0.99 > stats.binom.sf(1, needed - 1, beyond)


def test_less_confidence_needs_fewer_samples() -> None:
    assert samples_needed(99.0, confidence=0.9) == 388
    assert stats.binom.sf(1, 388, 0.01) >= 0.9 > stats.binom.sf(1, 387, 0.01)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.0, float("nan")])
def test_a_percentile_that_no_samples_carry_is_refused(percentile: float) -> None:
    with pytest.raises(UserError, match=r"the percentile is .*; it must be above 0 and at most 99.99"):
        samples_needed(percentile)


def test_summary_of_a_known_series() -> None:
    got = summarise([float(value) for value in range(1000, -1, -1)], batch=8)  # 0..1000 ms: a percentile is ten times its own value
    assert got == {
        "p50_ms": 500.0,
        "p90_ms": 900.0,
        "p99_ms": 990.0,
        "p999_ms": None,
        "mean_ms": 500.0,
        "min_ms": 0.0,
        "images_per_s": 16.0,
        "num_samples": 1001,
        "withheld": {"p999_ms": "1001 of the 6636 samples that it takes"},
    }


def test_a_percentile_is_told_from_the_first_sample_that_carries_it_on() -> None:
    assert summarise(np.ones(63), 1)["p90_ms"] is None and summarise(np.ones(64), 1)["p90_ms"] == 1.0
    assert summarise(np.ones(661), 1)["p99_ms"] is None and summarise(np.ones(662), 1)["p99_ms"] == 1.0
    assert summarise([3.0], 1)["p50_ms"] == 3.0


@pytest.mark.parametrize("samples", [[2.0], [2.0] * 9, [0.0, 0.0], list(np.random.default_rng(0).lognormal(size=500))])
def test_every_sample_is_in_the_histogram(samples: list[float]) -> None:
    found = histogram(samples)
    assert sum(found["counts"]) == len(samples) and len(found["edges_ms"]) == len(found["counts"]) + 1
    assert found["edges_ms"][0] <= min(samples) and max(samples) <= found["edges_ms"][-1]
    assert found["edges_ms"] == sorted(found["edges_ms"])


def test_an_interval_of_the_median_holds_it_as_often_as_it_promises() -> None:
    draw = np.random.default_rng(1)
    intervals = [interval_of_median(draw.normal(10.0, 1.0, 15)) for _ in range(400)]
    held = np.mean([low <= 10.0 <= high for low, high in intervals])
    assert 0.91 <= held <= 0.99


def test_the_interval_of_the_p50_is_as_wide_as_rounds_differ_and_not_as_the_many_samples_would_make_it() -> None:
    draw = np.random.default_rng(2)
    levels = draw.normal(10.0, 1.0, 12)
    rounds = [level + draw.normal(0, 0.01, 500) for level in levels]
    low, high = interval_of_p50(rounds)
    by_rounds = interval_of_median(levels)
    assert (low, high) == pytest.approx(by_rounds, abs=0.25)
    assert half_width((low, high), 10.0) > 5 * half_width(
        interval_of_p50([row - level + 10 for row, level in zip(rounds, levels, strict=True)]), 10
    )


def test_the_same_rounds_give_the_same_interval() -> None:
    rounds = [np.random.default_rng(seed).lognormal(size=20) for seed in range(10)]
    assert interval_of_p50(rounds) == interval_of_p50(rounds) != interval_of_p50(rounds, seed=1)


def test_the_interval_of_equal_samples_is_a_point() -> None:
    assert interval_of_p50([[2.0, 2.0], [2.0]]) == interval_of_median([2.0, 2.0]) == (2.0, 2.0)
