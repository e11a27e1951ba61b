"""Load as a server has it: many callers at once, or queries that arrive when they please."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from .conditions import Watch
from .energy import Meter
from .errors import UserError
from .queries import Load, Served, serve
from .rounds import MIN_ROUNDS, WARMUP_MOST_S, Turn, conditions_of, disturbed, take_rounds, take_turn, turn_seconds, warm_up
from .rows import is_enough, row_of
from .sampling import interval_of_median, samples_needed
from .session import MeasureSettings, Session, Subject, check_subjects
from .trends import trend

GROWTH_P_VALUE = 0.01
GROWTH_CALLS = 2.0
"""Calls' worth of waiting by which the queue may grow over a run."""
BACKLOG_SHARE = 0.05
"""Of all queries, that may still wait at the end."""
_NS_PER_MS = 1e6


def measure_offline(
    subject: Subject,
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008 (frozen)
    *,
    streams: int = 1,
    watch: Watch | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> Session:
    """Throughput where all images are there: some callers, each of which calls again as soon as it has its answer.

    Args:
        subject: What is timed; with several streams it is called by several threads at once.
        settings: How much is wanted, and how long it may take.
        streams: Callers.
        watch: Reads the machine; None watches this one.
        tick: Told the clean rounds so far and how many there will be at least.

    Raises:
        UserError: There are fewer than 1 streams.
    """
    _check(subject, settings, streams)
    watch = watch or Watch()
    meter = Meter.of(watch.system, watch.gpu)
    before = watch.snapshot()
    warmup_calls = warm_up(subject.call, watch, min(WARMUP_MOST_S, settings.seconds / 2))
    take = partial(take_turn, subject, turn_seconds(settings.seconds), watch, Meter(watch.system))
    with ThreadPoolExecutor(streams) as pool:
        record = take_rounds(
            {subject.name: partial(_turn_of_all, take, streams, pool, meter)},
            watch,
            enough=lambda rounds: is_enough(rounds, [subject.name], settings),
            seconds=settings.seconds,
            tick=tick,
        )
    conditions = conditions_of(record, watch, before)
    rates = [one.turns[subject.name].images_per_s for one in record.shown]
    row = {
        **row_of(subject, record, settings, disturbed(record, watch), meter, "offline"),
        "images_per_s": float(np.median(rates)),
        "images_per_s_interval": list(interval_of_median(rates)),
        "streams": streams,
        "warmup_calls": warmup_calls,
    }
    return Session({subject.name: row}, conditions)


def measure_server(
    subject: Subject,
    rate_per_s: float,
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008 (frozen)
    *,
    streams: int = 1,
    seed: int = 0,
    watch: Watch | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> Session:
    """Tail latency where queries arrive at random times (a Poisson process), each counted from its arrival on.

    A query that finds all streams busy waits, and its waiting counts: the times of arrival are set before the run and no slow answer
    puts them off.

    Args:
        subject: What is timed; with several streams it is called by several threads at once. A query is one call.
        rate_per_s: Queries per second, on average.
        settings: How much is wanted, and how long it may take.
        streams: Queries that are worked on at once.
        seed: Of the times of arrival.
        watch: Reads the machine; None watches this one.
        tick: Told the clean windows so far and how many there will be at least.

    Raises:
        UserError: The rate is not above 0, or there are fewer than 1 streams.
    """
    _check(subject, settings, streams)
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise UserError(f"the rate is {rate_per_s:g} queries per second; it must be above 0")
    watch = watch or Watch()
    meter = Meter.of(watch.system, watch.gpu)
    before = watch.snapshot()
    warmup_calls = warm_up(subject.call, watch, min(WARMUP_MOST_S, settings.seconds / 2))
    load = Load(rate_per_s, streams, seed, settings.seconds, samples_needed(settings.percentile))
    served = serve(subject, load, watch, meter, tick)
    record = served.record(subject)
    conditions = conditions_of(record, watch, before)
    disturbances = disturbed(record, watch)
    reasons = [*disturbances, *unsustained(served)]
    row = {
        **row_of(subject, record, settings, disturbances, meter, "server"),
        "verdict": "invalid" if reasons else "valid",
        "reasons": reasons,
        "images_per_s": served.achieved_per_s * subject.batch,
        "streams": streams,
        "server": {
            "rate_per_s": rate_per_s,
            "achieved_per_s": served.achieved_per_s,
            "num_queries": len(served.queries),
            "seed": seed,
        },
        "warmup_calls": warmup_calls,
    }
    return Session({subject.name: row}, conditions)


def unsustained(served: Served) -> list[str]:
    """Why the streams did not keep up with the rate."""
    num_arrived = len(served.queries) + served.num_waiting
    if served.num_waiting > BACKLOG_SHARE * num_arrived:
        return [f"the rate cannot be sustained: {served.num_waiting} of {num_arrived} queries still waited at the end"]
    waits_ms = np.array([query.start_ns - query.arrival_ns for query in served.queries]) / _NS_PER_MS
    call_ms = float(np.median([query.end_ns - query.start_ns for query in served.queries])) / _NS_PER_MS
    means = [float(part.mean()) for part in np.array_split(waits_ms, MIN_ROUNDS)]
    growth_ms = means[-1] - means[0]
    if trend(np.array(means) + call_ms).p_value < GROWTH_P_VALUE and growth_ms > GROWTH_CALLS * call_ms:
        return [f"the rate cannot be sustained: the queue grew by {growth_ms:.0f} ms over the run"]
    return []


def _turn_of_all(take: Callable[[], Turn], streams: int, pool: ThreadPoolExecutor, meter: Meter) -> Turn:
    """A turn of every stream at once; each counts its own calls over its own time, for they do not end at one moment."""
    energy = meter.read()
    others = [pool.submit(take) for _ in range(streams - 1)]
    turns = [take(), *(other.result() for other in others)]
    used = meter.used(energy, meter.read())
    latencies_ms = tuple(latency for turn in turns for latency in turn.latencies_ms)
    return Turn(latencies_ms, sum(turn.images_per_s for turn in turns), sum(turn.num_images for turn in turns), used)


def _check(subject: Subject, settings: MeasureSettings, streams: int) -> None:
    check_subjects([subject], replace(settings, reference=None))
    if streams < 1:
        raise UserError(f"--streams is {streams}; it must be at least 1")
