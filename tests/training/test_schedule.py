"""The learning rate against MAE's formula."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2sd_deploy.training.schedule import learning_rate


@given(st.integers(1, 500), st.integers(0, 500), st.floats(1e-6, 1.0), st.floats(0.0, 1e-6))
def test_the_rate_is_a_ramp_and_then_half_a_cosine(num_steps: int, warmup_steps: int, peak: float, floor: float) -> None:
    warmup_steps = min(warmup_steps, num_steps)
    for step in range(num_steps):
        if step < warmup_steps:
            expected = peak * (step / warmup_steps)
        else:
            expected = floor + (peak - floor) * math.cos(math.pi / 2 * (step - warmup_steps) / (num_steps - warmup_steps)) ** 2
        got = learning_rate(step, num_steps=num_steps, warmup_steps=warmup_steps, peak=peak, floor=floor)
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_the_rate_starts_at_zero_peaks_after_the_warm_up_and_ends_at_the_floor() -> None:
    rates = [learning_rate(step, num_steps=100, warmup_steps=10, peak=2.4e-3, floor=2.5e-6) for step in range(101)]
    assert rates[0] == 0.0
    assert max(rates) == rates[10] == 2.4e-3
    assert rates[55] == pytest.approx((2.4e-3 + 2.5e-6) / 2)
    assert rates[100] == pytest.approx(2.5e-6)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_without_a_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert learning_rate(0, num_steps=7, warmup_steps=0, peak=0.5, floor=0.1) == 0.5


def test_a_single_step_has_the_peak_rate() -> None:
    assert learning_rate(0, num_steps=1, warmup_steps=0, peak=0.5, floor=0.1) == 0.5


def test_a_warm_up_as_long_as_the_stage_never_passes_the_peak() -> None:
    assert [learning_rate(step, num_steps=2, warmup_steps=2, peak=1.0, floor=0.0) for step in range(3)] == [0.0, 0.5, 1.0]


@given(st.integers(2, 500), st.integers(0, 400), st.floats(1e-6, 1.0), st.floats(0.0, 1e-6))
def test_a_linear_rate_falls_by_the_same_amount_at_each_step(num_steps: int, warmup_steps: int, peak: float, floor: float) -> None:
    warmup_steps = min(warmup_steps, num_steps - 1)
    sizes = {"num_steps": num_steps, "warmup_steps": warmup_steps}
    for step in range(warmup_steps, num_steps):
        left = (num_steps - step) / (num_steps - warmup_steps)
        got = learning_rate(step, **sizes, peak=peak, floor=floor, schedule="linear")
        assert got == pytest.approx(peak * left + floor * (1 - left), rel=1e-9, abs=1e-15)
    if warmup_steps:
        assert learning_rate(0, **sizes, peak=peak, floor=floor, schedule="linear") == 0.0


def test_a_rate_in_steps_falls_to_a_tenth_at_each_drop() -> None:
    rates = [
        learning_rate(step, num_steps=20, warmup_steps=2, peak=1.0, floor=0.0, schedule="steps", drops=(0.5, 0.9)) for step in range(20)
    ]
    assert rates == pytest.approx([0.0, 0.5, *[1.0] * 8, *[0.1] * 8, *[0.01] * 2])
