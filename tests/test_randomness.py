"""Draws against SplitMix64 written with Python's integers, and the promises that resuming and reordering rest on."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from g2sd_deploy.randomness import generator, order_in_windows, permutation, torch_seed, uniform

WORD = 2**64
GOLDEN_RATIO = 0x9E3779B97F4A7C15


def splitmix_finaliser(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % WORD
    return x ^ (x >> 31)


def expected_draw(seed: int, stream: str, epoch: int, index: int, place: int) -> float:
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=8).digest(), "little")
    row = splitmix_finaliser((key + GOLDEN_RATIO * (index + 1)) % WORD)
    return (splitmix_finaliser((row + GOLDEN_RATIO * (place + 1)) % WORD) >> 11) / 2**53


@given(
    st.integers(0, 2**40),
    st.sampled_from(["mask", "crop", ""]),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 2**62), min_size=1, max_size=4),
)
def test_a_draw_is_splitmix_of_seed_stream_epoch_index_and_place(seed: int, stream: str, epoch: int, indices: list[int]) -> None:
    got = uniform(seed, stream, epoch, np.array(indices, dtype=np.int64), 3)
    assert got.tolist() == [[expected_draw(seed, stream, epoch, index, place) for place in range(3)] for index in indices]


def test_a_samples_draws_do_not_depend_on_the_batch_around_it_or_its_order() -> None:
    everything = uniform(3, "mask", 2, np.arange(100), 5)
    picks = np.array([42, 7, 99, 7])
    assert np.array_equal(uniform(3, "mask", 2, picks, 5), everything[picks])


def test_asking_for_more_numbers_keeps_the_first_ones() -> None:
    assert np.array_equal(uniform(0, "mask", 0, np.arange(9), 64)[:, :5], uniform(0, "mask", 0, np.arange(9), 5))


@pytest.mark.parametrize(("seed", "stream", "epoch"), [(1, "mask", 0), (0, "crop", 0), (0, "mask", 1)])
def test_another_seed_stream_or_epoch_draws_other_numbers(seed: int, stream: str, epoch: int) -> None:
    here, there = uniform(0, "mask", 0, np.arange(500), 4), uniform(seed, stream, epoch, np.arange(500), 4)
    assert not np.isclose(here, there, atol=1e-9).any()
    assert abs(np.corrcoef(here.ravel(), there.ravel())[0, 1]) < 0.07  # 3 standard errors of 2,000 independent pairs


def test_draws_are_uniform_on_zero_to_one() -> None:
    draws = uniform(0, "mask", 0, np.arange(4000), 16).ravel()
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.chisquare(np.histogram(draws, bins=64, range=(0.0, 1.0))[0]).pvalue > 0.01


@pytest.mark.parametrize("pairing", ["neighbouring samples", "neighbouring places"])
def test_neighbouring_draws_are_independent(pairing: str) -> None:
    draws = uniform(0, "mask", 0, np.arange(8000), 2)
    first, second = (draws[:-1:2, 0], draws[1::2, 0]) if pairing == "neighbouring samples" else draws.T
    cells = np.histogram2d(first, second, bins=8, range=[(0.0, 1.0), (0.0, 1.0)])[0]
    assert stats.chisquare(cells.ravel()).pvalue > 0.01


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 300))
def test_an_order_visits_every_sample_once(seed: int, epoch: int, size: int) -> None:
    assert np.array_equal(np.sort(permutation(seed, "order", epoch, size)), np.arange(size))


def test_orders_differ_between_epochs_and_are_no_near_copies_of_the_source_order() -> None:
    orders = [permutation(0, "order", epoch, 1000) for epoch in range(3)]
    for order, other in ((orders[0], orders[1]), (orders[1], orders[2]), (orders[0], np.arange(1000))):
        assert abs(stats.spearmanr(order, other).statistic) < 0.1


def test_draws_stay_what_they_were_so_that_a_run_can_be_repeated_and_continued() -> None:
    assert uniform(0, "mask", 0, np.array([0, 1]), 2).tolist() == [
        [0.9914439769586878, 0.05907877649100546],
        [0.2832760368414369, 0.5069249519092829],
    ]
    assert permutation(7, "order", 3, 8).tolist() == [5, 4, 3, 7, 0, 1, 6, 2]
    assert generator(0, "mix", 1, 2).random(2).tolist() == [0.5900750345331078, 0.6647055460866312]
    assert torch_seed(0, "weights/generic") == 1710258247251908264


def test_a_generator_is_a_function_of_seed_stream_and_counters() -> None:
    first = generator(5, "mix", 1, 2).random(3)
    assert np.array_equal(first, generator(5, "mix", 1, 2).random(3))
    others = [
        generator(6, "mix", 1, 2),
        generator(5, "mask", 1, 2),
        generator(5, "mix", 2, 1),
        generator(5, "mix", 12),
        generator(5, "mix", 1),
    ]
    assert not any(np.isclose(first, other.random(3)).any() for other in others)


def test_a_torch_seed_fits_a_signed_64_bit_number_and_differs_between_stages() -> None:
    seeds = {torch_seed(seed, f"weights/{stage}") for seed in range(20) for stage in ("generic", "specific", "baseline")}
    assert len(seeds) == 60
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("window", [1, 2, 3, 5, 9, None])
def test_windows_of_blocks_hold_every_sample_once_and_read_few_blocks_at_a_time(window: int | None) -> None:
    sizes = np.array([5, 1, 7, 4, 3], np.int64)
    block_of = np.repeat(np.arange(5), sizes)
    order = order_in_windows(0, "order", 3, sizes, window)
    assert sorted(order.tolist()) == list(range(20))
    if window is None or window >= 5:
        assert np.array_equal(order, permutation(0, "order", 3, 20))
        return
    visited = list(dict.fromkeys(block_of[order].tolist()))
    for first in range(0, 5, window):
        together = set(visited[first : first + window])
        places = np.flatnonzero(np.isin(block_of[order], list(together)))
        assert np.array_equal(places, np.arange(places[0], places[0] + len(places)))  # one run of the order


def test_blocks_and_the_samples_in_them_come_in_another_order_in_each_epoch() -> None:
    sizes = np.full(8, 10, np.int64)
    one, two = (order_in_windows(0, "order", epoch, sizes, 2) for epoch in (0, 1))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, order_in_windows(0, "order", 0, sizes, 2))
    first_blocks = {tuple(sorted(set((order_in_windows(0, "order", epoch, sizes, 2)[:20] // 10).tolist()))) for epoch in range(20)}
    assert len(first_blocks) > 5
    assert len(set((one[:20] // 10).tolist())) == 2 and not np.array_equal(np.sort(one[:10]), one[:10])
