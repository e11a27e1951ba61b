"""The latency of several things on one machine: in rounds, of which those that something else disturbed are void."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .conditions import Watch
from .energy import Meter
from .rounds import WARMUP_MOST_S, conditions_of, disturbed, take_rounds, take_turn, turn_seconds, warm_up
from .rows import is_enough, row_of
from .serving_load import measure_offline, measure_server
from .session import MeasureSettings, Session, Subject, check_subjects, join_conditions


def measure(
    subjects: Sequence[Subject],
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008 (frozen)
    *,
    watch: Watch | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> Session:
    """Time subjects in turn, A B C, B C A, one call at a time.

    Each is called until its latencies are stationary. Then every round times each of them for a moment, and is void for all of them
    where something else used the machine or the machine slowed down. Rounds are measured until enough are clean, hold the samples that
    the percentile takes, and tell medians and ratios precisely, or time is up.

    Args:
        subjects: What is timed; all of them stay open.
        settings: How much is wanted, and how long it may take.
        watch: Reads the machine; None watches this one.
        tick: Told the clean rounds so far and how many there will be at least.

    Returns:
        A row of each subject, and the conditions. A row without any clean round shows the numbers of void ones, and is invalid.

    Raises:
        UserError: There is nothing to measure, or two subjects have one name, or the reference is not among them.
    """
    check_subjects(subjects, settings)
    watch = watch or Watch()
    meter = Meter.of(watch.system, watch.gpu)
    before = watch.snapshot()
    most_s = min(WARMUP_MOST_S, settings.seconds / 2)
    warm = {subject.name: warm_up(subject.call, watch, most_s) for subject in subjects}
    record = take_rounds(
        {subject.name: partial(take_turn, subject, turn_seconds(settings.seconds), watch, meter) for subject in subjects},
        watch,
        enough=lambda rounds: is_enough(rounds, list(warm), settings),
        seconds=settings.seconds * len(subjects),
        tick=tick,
    )
    conditions = conditions_of(record, watch, before)
    disturbances = disturbed(record, watch)
    rows = {
        subject.name: {**row_of(subject, record, settings, disturbances, meter), "warmup_calls": warm[subject.name]} for subject in subjects
    }
    return Session(rows, conditions)


__all__ = ["MeasureSettings", "Session", "Subject", "Watch", "join_conditions", "measure", "measure_offline", "measure_server"]
