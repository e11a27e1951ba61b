import numpy as np
import pytest

import g2sd_export.edge.timing as timing
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.shipping.race import RaceSettings, race


class Clock:
    """Time that passes only when a runner works."""

    def __init__(self) -> None:
        self.now, self.calls = 0, 0


class Slow:
    """Takes a set time for each call; from call `slow_from` to `slow_to` of all runners, ten times as long."""

    name, version, num_classes = "slow", "1", 2
    preprocessing = Preprocessing(4, 4, 1, (0.0,), (1.0,))

    def __init__(self, clock: Clock, ms: float, disturbed: range = range(0)) -> None:
        self.clock, self.ms, self.disturbed, self.log = clock, ms, disturbed, []
        self.log: list[int] = []

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return images.astype(np.float32)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.log.append(len(inputs))
        factor = 10 if self.clock.calls in self.disturbed else 1
        self.clock.calls += 1
        self.clock.now += int(self.ms * factor * 1e6)
        return np.zeros((len(inputs), 2), np.float32)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.forward(self.prepare(images))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing.measure_latency, "__kwdefaults__", {**timing.measure_latency.__kwdefaults__, "clock": lambda: made.now})
    return made


def test_runners_take_turns_and_each_is_timed_with_the_batch_asked_for(clock: Clock) -> None:
    runners = {"a": Slow(clock, 2.0), "b": Slow(clock, 3.0)}
    found = race(runners, RaceSettings(batch=4, rounds=3, calls=5))
    assert {name: row["p50_ms"] for name, row in found.items()} == {"a": 2.0, "b": 3.0}
    assert found["a"]["num_samples"] == 15
    assert found["a"]["images_per_s"] == pytest.approx(2000)
    assert set(runners["a"].log) == {4}


def test_a_disturbance_of_one_turn_does_not_move_the_median_and_shows_in_the_spread(clock: Clock) -> None:
    runners = {"a": Slow(clock, 2.0, range(8)), "b": Slow(clock, 3.0, range(8))}
    found = race(runners, RaceSettings(rounds=3, calls=5))
    assert found["a"]["p50_ms"] == 2.0
    assert found["a"]["spread"] == pytest.approx((20 - 2) / 2)
    assert found["b"]["spread"] == 0.0


def test_progress_is_told_turn_by_turn(clock: Clock) -> None:
    told: list[tuple[int, int]] = []
    race({"a": Slow(clock, 1.0)}, RaceSettings(rounds=2, calls=1), tick=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
