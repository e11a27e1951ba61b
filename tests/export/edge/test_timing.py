"""Latency is that of the finished work, and its summary is honest arithmetic."""

from __future__ import annotations

import pytest

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.timing import measure_in_turns, measure_latency, summarise

LAUNCH_NS, WORK_NS = 10_000, 5_000_000


class FakeGpu:
    """A clock and a queue: a launch costs 10 us, the work 5 ms; work queues up behind work."""

    def __init__(self) -> None:
        self.now = 0
        self.idle_at = 0
        self.launches = 0

    def launch(self) -> None:
        self.now += LAUNCH_NS
        self.idle_at = max(self.now, self.idle_at) + WORK_NS
        self.launches += 1

    def wait(self) -> None:
        self.now = max(self.now, self.idle_at)


def test_latency_counts_the_work_and_not_the_launch() -> None:
    gpu = FakeGpu()
    got = measure_latency(gpu.launch, gpu.wait, warmup=3, repeats=4, clock=lambda: gpu.now)
    assert got == [5.01] * 4  # 0.01 if the final wait is lost, 19.98 if warm-up is not waited for
    assert gpu.launches == 7


def test_latency_by_the_real_clock_is_positive() -> None:
    got = measure_latency(lambda: sum(range(1000)), lambda: None, warmup=0, repeats=3)
    assert len(got) == 3 and min(got) > 0


def test_turns_alternate_and_each_has_its_own_warm_up() -> None:
    log: list[str] = []
    told: list[tuple[int, int]] = []
    runs = {name: lambda name=name: log.append(name) for name in "ab"}
    found = measure_in_turns(runs, [2, 1], warmup=1, tick=lambda done, total: told.append((done, total)))
    assert "".join(log) == "aaabbb" + "aabb"
    assert {name: [len(turn) for turn in turns] for name, turns in found.items()} == {"a": [2, 1], "b": [2, 1]}
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("warmup", "repeats"), [(-1, 1), (0, 0)])
def test_latency_refuses_to_measure_nothing(warmup: int, repeats: int) -> None:
    with pytest.raises(UserError, match=f"warmup is {warmup} and repeats is {repeats}"):
        measure_latency(lambda: None, lambda: None, warmup=warmup, repeats=repeats)


def test_summary_of_a_known_series() -> None:
    got = summarise([float(value) for value in range(100, -1, -1)], batch=8)  # 0..100 ms: a percentile is its own value
    assert got == {
        "p50_ms": 50.0,
        "p90_ms": 90.0,
        "p99_ms": 99.0,
        "mean_ms": 50.0,
        "min_ms": 0.0,
        "images_per_s": 160.0,
        "num_samples": 101,
    }
