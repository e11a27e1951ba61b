"""Many callers at once, and queries that arrive when they please: waiting counts, and a rate that is too high is said to be so."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from g2sd_export.edge.conditions import Counters, Sign, Watch
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.measuring import MeasureSettings, Subject, measure_offline, measure_server
from g2sd_export.edge.queries import Load, Query, Served, Window
from g2sd_export.edge.serving_load import unsustained

Machine = Any


def served(machine: Machine, ms: float, rate_per_s: float, **settings: Any) -> Any:
    call = Subject("a", 2, lambda: machine.work(ms))
    wanted = MeasureSettings(**{"percentile": 90.0, "seconds": 60.0, **settings})
    return measure_server(call, rate_per_s, wanted, watch=Watch(machine, None))


def waiting_of(arrivals_s: list[float], service_s: float) -> list[float]:
    """Lindley's recursion for one server: latency of each query, in s."""
    free, found = 0.0, []
    for arrival in arrivals_s:
        free = max(free, arrival) + service_s
        found.append(free - arrival)
    return found


def test_latency_counts_from_the_arrival_on_however_long_the_queue_was(machine: Machine) -> None:
    session = served(machine, 10.0, 70.0, percentile=99.0)
    row = session.rows["a"]
    arrivals_s = Load(70.0, 1, 0, 60.0, 662).arrivals_s()
    expected_ms = 1000 * np.array(waiting_of(arrivals_s, 0.010))[: row["num_samples"]]
    assert row["p99_ms"] == pytest.approx(np.percentile(expected_ms, 99), rel=1e-3)
    assert row["p50_ms"] == pytest.approx(np.percentile(expected_ms, 50), rel=1e-3)
    assert row["p99_ms"] > 40 and row["min_ms"] == pytest.approx(10.0, rel=1e-3)  # a closed loop would say 10 ms throughout
    assert (row["verdict"], row["reasons"], row["scenario"], row["streams"]) == ("valid", [], "server", 1)
    assert row["server"]["rate_per_s"] == 70.0 and row["server"]["seed"] == 0
    assert row["server"]["achieved_per_s"] == pytest.approx(70, rel=0.1)
    assert row["images_per_s"] == pytest.approx(2 * row["server"]["achieved_per_s"])


def test_arrivals_are_a_poisson_process_that_the_seed_repeats() -> None:
    times = Load(50.0, 1, 3, 100.0, 1).arrivals_s()
    gaps = np.diff(times)
    assert len(times) == pytest.approx(5000, rel=0.05) and gaps.mean() == pytest.approx(0.02, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as of an exponential distribution
    assert times == Load(50.0, 1, 3, 100.0, 1).arrivals_s() != Load(50.0, 1, 4, 100.0, 1).arrivals_s()


def test_a_rate_above_what_the_model_can_do_is_invalid_and_ends_in_time(machine: Machine) -> None:
    session = served(machine, 10.0, 150.0, seconds=20.0, percentile=99.9)
    row = session.rows["a"]
    assert row["verdict"] == "invalid" and row["reasons"][0].startswith("the rate cannot be sustained: ")
    assert row["server"]["achieved_per_s"] == pytest.approx(100, rel=0.02) and machine.now_s < 40


def test_a_queue_that_grows_slowly_is_found() -> None:
    queries = tuple(Query(k * 100, k * 100 + k, k * 100 + k + 101) for k in range(1000))
    assert unsustained(Served(queries, (), 0))[0].startswith("the rate cannot be sustained: the queue grew")
    steady = tuple(Query(k * 100, k * 100 + k % 7, k * 100 + 60) for k in range(1000))
    assert unsustained(Served(steady, (), 10)) == [] and "10 of 110" in unsustained(Served(steady[:100], (), 10))[0]


def test_queries_of_disturbed_windows_and_those_queued_behind_them_do_not_count(machine: Machine) -> None:
    machine.others = lambda now_s: 1.0 if 3 < now_s < 5 else 0.0
    call = Subject("a", 1, lambda: machine.work(60.0 if 3 < machine.now_s < 5 else 5.0))
    session = measure_server(call, 20.0, MeasureSettings(percentile=90.0, seconds=30.0), watch=Watch(machine, None))
    row = session.rows["a"]
    assert session.conditions["num_void"] >= 4 and row["verdict"] == "valid"
    assert max(row["round_p50_ms"]) < 12 and row["histogram"]["edges_ms"][-1] < 30  # nor the queue that it left


def test_a_query_counts_again_from_the_first_that_found_no_queue_on() -> None:
    def window(first_s: int, last_s: int, *signs: Sign) -> Window:
        return Window(Counters(first_s * 10**9, 0.0), Counters(last_s * 10**9, 0.0), signs, {})

    def query(arrival_s: float, start_s: float, end_s: float) -> Query:
        return Query(*(round(1e9 * time_s) for time_s in (arrival_s, start_s, end_s)))

    windows = (window(0, 1), window(1, 2, Sign("busy")), window(2, 3), window(3, 4))
    queries = (
        query(0.5, 0.5, 0.6),
        query(0.9, 0.9, 1.2),  # ran into the disturbance
        query(1.5, 1.5, 2.2),
        query(2.1, 2.2, 2.3),  # waited behind it
        query(2.25, 2.3, 2.4),  # and behind the one that did
        query(3.1, 3.1, 3.2),
    )
    run = Served(queries, windows, 0)
    assert run.clean() == [True, False, False, False, False, True]
    record = run.record(Subject("a", 1, lambda: None))
    assert [len(one.turns["a"].latencies_ms) for one in record.clean] == [1, 1]
    assert record.voids() == {"busy": 1, "the queue of a disturbed moment had not emptied": 1}


def test_several_streams_serve_the_same_queue() -> None:
    seen: set[int] = set()

    def call() -> None:
        seen.add(threading.get_ident())
        time.sleep(0.02)

    row = measure_server(Subject("a", 1, call), 70.0, MeasureSettings(percentile=90.0, seconds=2.0), streams=2).rows["a"]
    assert len(seen) == 2 and row["streams"] == 2


def test_a_stream_that_fails_ends_the_run() -> None:
    def call() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise UserError("the model is gone")

    with pytest.raises(UserError, match="the model is gone"):
        measure_server(Subject("a", 1, call), 100.0, MeasureSettings(percentile=90.0, seconds=5.0), streams=3)


def test_offline_throughput_is_that_of_all_streams() -> None:
    seen: set[int] = set()

    def call() -> None:
        seen.add(threading.get_ident())
        time.sleep(0.02)

    row = measure_offline(Subject("a", 4, call), MeasureSettings(percentile=50.0, seconds=2.0), streams=3).rows["a"]
    assert len(seen) >= 3 and row["streams"] == 3 and row["scenario"] == "offline"
    assert row["images_per_s"] > 1.5 * 4000 / row["mean_ms"]  # what one stream gives


def test_offline_images_per_second_of_one_stream(machine: Machine) -> None:
    row = measure_offline(Subject("a", 8, lambda: machine.work(20)), MeasureSettings(percentile=90.0), watch=Watch(machine, None)).rows["a"]
    assert row["verdict"] == "valid" and row["images_per_s"] == pytest.approx(400, rel=1e-3)
    assert row["images_per_s_interval"] == pytest.approx([400, 400], rel=1e-3)


@pytest.mark.parametrize(
    ("rate", "streams", "message"),
    [
        (0.0, 1, "the rate is 0 queries"),
        (float("inf"), 1, "the rate is inf"),
        (5.0, 0, "--streams is 0"),
        (0.1, 1, r"at 0.1 queries .* arrive in 30"),
    ],
)
def test_loads_that_cannot_be_are_refused(machine: Machine, rate: float, streams: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure_server(Subject("a", 1, lambda: machine.work(5)), rate, streams=streams, watch=Watch(machine, None))
