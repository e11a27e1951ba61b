"""Latency that is believed: warm-up kept out, every launch waited for, percentiles instead of a mean alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .errors import UserError

NS_PER_MS = 1e6


def _nothing() -> None:
    """What is timed returns when its work is done."""


def measure_latency(
    launch: Callable[[], object],
    wait: Callable[[], object] = _nothing,
    *,
    warmup: int,
    repeats: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> list[float]:
    """Time ``launch`` until its work is finished, once per repeat.

    Args:
        launch: Starts one batch; may return before the work is done, as a GPU's does.
        wait: Returns when everything launched so far is done; left out where ``launch`` itself does.
        warmup: Launches that are run, waited for and not timed.
        repeats: Timed launches, each waited for.
        clock: Monotonic time in nanoseconds.

    Returns:
        One latency per repeat, in ms.

    Raises:
        UserError: ``warmup`` is negative or ``repeats`` below 1.
    """
    if warmup < 0 or repeats < 1:
        raise UserError(f"latency: warmup is {warmup} and repeats is {repeats}; they must be at least 0 and 1")
    for _ in range(warmup):
        launch()
    wait()
    samples_ms = []
    for _ in range(repeats):
        start = clock()
        launch()
        wait()
        samples_ms.append((clock() - start) / NS_PER_MS)
    return samples_ms


def measure_in_turns(
    runs: Mapping[str, Callable[[], object]],
    turns: Sequence[int],
    *,
    warmup: int,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, list[list[float]]]:
    """Time several functions in turn, A B C A B C, so that whatever else the machine does meets all of them alike.

    Args:
        runs: By name; each returns when its work is done.
        turns: Timed calls of each turn, at least one each.
        warmup: Calls before those of every turn that are not timed.
        tick: Told the turns that are done, and all of them.

    Returns:
        By name: the latencies of each turn, in ms.
    """
    samples: dict[str, list[list[float]]] = {name: [] for name in runs}
    for done, calls in enumerate(turns, 1):
        for name, run in runs.items():
            samples[name].append(measure_latency(run, warmup=warmup, repeats=calls))
        if tick is not None:
            tick(done, len(turns))
    return samples


def summarise(samples_ms: Sequence[float], batch: int) -> dict[str, float | int]:
    """Percentiles and throughput of a series of latencies.

    Args:
        samples_ms: Latency of one batch each, in ms; not empty.
        batch: Images per batch.

    Returns:
        ``p50_ms p90_ms p99_ms mean_ms min_ms`` (linear interpolation between samples), ``images_per_s`` (all images over
        all the time) and ``num_samples``. A p99 of fewer than 662 samples is an indication, not a bound (MLPerf's rule).
    """
    samples = np.asarray(samples_ms, dtype=np.float64)
    assert samples.size > 0 and batch > 0
    p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
    mean = float(samples.mean())
    return {
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "mean_ms": mean,
        "min_ms": float(samples.min()),
        "images_per_s": 1000 * batch / mean,
        "num_samples": int(samples.size),
    }
