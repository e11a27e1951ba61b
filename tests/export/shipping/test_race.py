"""Candidates are timed in turn, and what disturbed them is told."""

import json
from typing import Any

import numpy as np
import pytest

from g2sd_export.edge.conditions import Watch
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.shipping.race import RaceSettings, race


class Machine:
    """Time that passes only when a runner works; a neighbour that may use one of two processors."""

    name, process = "Linux", 1

    def __init__(self) -> None:
        self.now_s = self.others_s = self.neighbour = 0.0

    def work(self, ms: float) -> None:
        self.now_s += ms / 1000
        self.others_s += self.neighbour * ms / 1000

    def clock(self) -> int:
        return round(self.now_s * 1e9)

    def own_cpu_s(self) -> float:
        return self.now_s

    def cpus(self) -> tuple[int, ...]:
        return (0, 1)

    def text(self, path: str) -> str | None:
        busy = round(100 * (self.now_s + self.others_s))
        return f"cpu0 {busy} 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0" if path == "proc/stat" else None

    def number(self, path: str) -> float | None:
        return None

    def paths(self, pattern: str) -> list[str]:
        return []

    def command(self, *words: str) -> str | None:
        return None


class Slow:
    """Takes a set time for each call."""

    name, version, num_classes = "slow", "1", 2
    preprocessing = Preprocessing(4, 4, 1, (0.0,), (1.0,))

    def __init__(self, machine: Machine, ms: float) -> None:
        self.machine, self.ms = machine, ms
        self.sizes: set[int] = set()

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return images.astype(np.float32)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        self.sizes.add(len(inputs))
        self.machine.work(self.ms)
        return np.zeros((len(inputs), 2), np.float32)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.forward(self.prepare(images))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def watching(machine: Any) -> Watch:
    return Watch(machine, None)


def test_each_runner_is_timed_with_the_batch_asked_for(machine: Machine) -> None:
    runners = {"a": Slow(machine, 2.0), "b": Slow(machine, 3.0)}
    found = race(runners, RaceSettings(batch=4), watch=watching(machine))
    assert {name: row["p50_ms"] for name, row in found.items()} == pytest.approx({"a": 2.0, "b": 3.0})
    assert found["a"]["images_per_s"] == pytest.approx(2000) and found["a"]["batch"] == 4 and found["a"]["num_samples"] >= 64
    assert (found["a"]["verdict"], found["a"]["reasons"], found["a"]["spread"]) == ("valid", [], pytest.approx(0, abs=1e-6))
    assert runners["a"].sizes == {4} and json.loads(json.dumps(found)) == found


def test_a_race_on_a_loaded_machine_has_numbers_and_says_that_they_are_not_to_be_believed(machine: Machine) -> None:
    machine.neighbour = 1.0
    found = race({"a": Slow(machine, 2.0)}, watch=watching(machine))
    assert found["a"]["p50_ms"] == pytest.approx(2.0) and found["a"]["verdict"] == "invalid"
    assert "other processes used 50 % of the processors" in found["a"]["reasons"][0]
    assert machine.now_s < 4 + 2 + 1


def test_progress_is_told_round_by_round(machine: Machine) -> None:
    told: list[tuple[int, int]] = []
    race({"a": Slow(machine, 1.0)}, watch=watching(machine), tick=lambda *now: told.append(now))
    assert told[0] == (1, 10) and told[-1] == (12, 12)
