"""The pace of a training against steps whose times are known."""

import time
from collections.abc import Iterator

import pytest
import torch

from g2sd_deploy.data.loading import Loaded
from g2sd_deploy.training import pace
from g2sd_deploy.training.pace import Pace, Waits, compute_ms, warm_up_of

CPU = torch.device("cpu")


def loaded(num: int, seconds: float) -> Loaded:
    return Loaded(torch.zeros(num, 1, 1, 1, dtype=torch.uint8), torch.zeros(num, dtype=torch.int64), (), seconds)


def slowly(batches: list[Loaded], seconds: float) -> Iterator[Loaded]:
    for batch in batches:
        time.sleep(seconds)
        yield batch


def test_steps_that_did_not_wait_tell_what_computing_takes() -> None:
    # three workers hand over at once: one step in three waits for them
    assert compute_ms([900.0, 101.0, 99.0, 900.0, 100.0, 100.0], [800.0, 0.0, 0.0, 800.0, 1.0, 0.0]) == 100.0


def test_where_every_step_waits_the_waiting_is_taken_off() -> None:
    assert compute_ms([500.0, 520.0, 480.0], [400.0, 419.0, 382.0]) == 100.0


def test_first_steps_are_left_out_where_others_follow() -> None:
    assert [warm_up_of(num) for num in (1, 2, 3, 8, 9, 20)] == [0, 1, 1, 1, 3, 3]


def test_a_loader_takes_its_workers_time_shared_among_them() -> None:
    waits = Waits()
    assert len(list(waits.watched(iter([loaded(8, 0.8), loaded(8, 0.8), loaded(4, 0.4)]), num_workers=4))) == 3
    # 20 images of 100 ms, 2 steps, 4 workers
    assert waits.loader_ms(2) == pytest.approx(250)


def test_waiting_counts_with_workers_only() -> None:
    with_workers, alone = Waits(), Waits()
    list(with_workers.watched(slowly([loaded(2, 0.0)] * 3, 0.02), num_workers=1))
    list(alone.watched(slowly([loaded(2, 0.5)] * 3, 0.02), num_workers=0))
    assert 0.06 <= with_workers.waited_s < 1
    assert (alone.waited_s, alone.loader_ms(3)) == (0.0, 0.0)


def test_the_pace_is_that_of_settled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    waits = Waits()
    found = Pace(CPU, waits)
    found.mark()
    for step in range(10):
        now[0] += 5.0 if step < 3 else 0.1
        waits.waited_s += 0.0 if step < 3 else 0.02
        found.mark()
    figures = found.figures()
    assert figures["compute_ms"] == pytest.approx(80)  # each waited for a fifth of its time
    assert figures["waited_share"] == pytest.approx(0.2)


def test_a_long_training_is_judged_by_its_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    found = Pace(CPU, Waits())
    found.mark()
    for step in range(1000):
        now[0] += 1.0 if step < 900 else 0.25
        found.mark()
    assert found.figures()["compute_ms"] == pytest.approx(250)


def test_no_step_has_no_pace() -> None:
    found = Pace(CPU, Waits())
    found.mark()
    assert found.figures() == {}
