"""Queries that arrive at random times, are served by some streams, and are judged window by window."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .conditions import Counters, Sign, Watch
from .energy import Meter
from .errors import UserError
from .rounds import MIN_ROUNDS, Record, Round, Turn, usual_mhz
from .session import Subject

WINDOW_S = 0.5
"""Time of one window, which is what a round is to the other scenarios."""
QUERIES_PER_WINDOW = 5
_LEAST_WINDOWS = 1.5 * MIN_ROUNDS  # that have to fit into the time, even where few queries arrive in each
_AT_ONCE_NS = 1_000_000  # a query that begins within this of its arrival has found no queue
_NS_PER_S, _NS_PER_MS = 1e9, 1e6
_LEFT_OVER = Sign("the queue of a disturbed moment had not emptied")


@dataclass(frozen=True)
class Load:
    """How queries arrive, and how many are wanted.

    Attributes:
        rate_per_s: Queries per second, on average.
        streams: Queries that are worked on at once.
        seed: Of the times of arrival.
        seconds: The most time.
        needed: Undisturbed queries after which it may end.
    """

    rate_per_s: float
    streams: int
    seed: int
    seconds: float
    needed: int

    def arrivals_s(self) -> list[float]:
        """Times of arrival from the beginning on: intervals between them are exponential.

        Raises:
            UserError: None falls into the time.
        """
        draw = np.random.default_rng(self.seed)
        times: list[float] = []
        now = 0.0
        while now < self.seconds:
            times.append(now)
            now += float(draw.exponential(1 / self.rate_per_s))
        if len(times) < MIN_ROUNDS:
            raise UserError(
                f"at {self.rate_per_s:g} queries per second {len(times)} arrive in {self.seconds:g} s; "
                f"raise the rate, or the time, for at least {MIN_ROUNDS}"
            )
        return times

    def window_s(self) -> float:
        """Length of a window: some queries arrive in each, and enough windows fit into the time."""
        return max(WINDOW_S, min(QUERIES_PER_WINDOW / self.rate_per_s, self.seconds / _LEAST_WINDOWS))


@dataclass(frozen=True)
class Query:
    """One query.

    Attributes:
        arrival_ns: When it was to arrive.
        start_ns: When a stream took it.
        end_ns: When its answer was there.
    """

    arrival_ns: int
    start_ns: int
    end_ns: int

    @property
    def latency_ms(self) -> float:
        """From its arrival on, waiting included."""
        return (self.end_ns - self.arrival_ns) / _NS_PER_MS


@dataclass(frozen=True)
class Window:
    """A stretch of the run.

    Attributes:
        first: Read when it began.
        last: Read when it ended.
        signs: What disturbed it.
        energy_j: That the machine used, by source.
    """

    first: Counters
    last: Counters
    signs: tuple[Sign, ...]
    energy_j: Mapping[str, float]


@dataclass(frozen=True)
class Served:
    """A run under load.

    Attributes:
        queries: That were answered, in the order of their arrival.
        windows: In order.
        num_waiting: Queries that had arrived and that no stream had taken when the run ended.
    """

    queries: tuple[Query, ...]
    windows: tuple[Window, ...]
    num_waiting: int

    @property
    def achieved_per_s(self) -> float:
        """Answers over the time from the first arrival to the last answer."""
        last_ns = max(query.end_ns for query in self.queries)
        return len(self.queries) * _NS_PER_S / (last_ns - self.queries[0].arrival_ns)

    def clean(self) -> list[bool]:
        """Of each query: it neither waited nor ran in a window that was void, nor did it wait behind a query that did."""
        ends = [window.last.time_ns for window in self.windows]
        void = [bool(window.signs) for window in self.windows]
        found = []
        behind = False
        for query in self.queries:
            touched = void[bisect_left(ends, query.arrival_ns) : bisect_left(ends, query.end_ns) + 1]
            at_once = query.start_ns - query.arrival_ns <= _AT_ONCE_NS
            behind = any(touched) or (behind and not at_once)
            found.append(not behind)
        return found

    def record(self, subject: Subject) -> Record:
        """Windows as rounds; of a clean one, only queries that nothing disturbed."""
        clean = self.clean()
        ends = [window.last.time_ns for window in self.windows]
        held: list[list[tuple[Query, bool]]] = [[] for _ in self.windows]
        for query, is_clean in zip(self.queries, clean):
            held[min(bisect_left(ends, query.arrival_ns), len(ends) - 1)].append((query, is_clean))
        record = Record()
        for index, (window, queries) in enumerate(zip(self.windows, held)):
            counted = [query for query, is_clean in queries if is_clean]
            signs = window.signs or (() if counted else (_LEFT_OVER,))
            if queries:  # of a window in which none arrived there is nothing to tell
                turn = _turn(counted or [query for query, _ in queries], window, subject.batch, len(queries))
                record.rounds.append(Round(index, {subject.name: turn}, signs, window.first, window.last))
        return record


def _turn(queries: Sequence[Query], window: Window, batch: int, num_arrived: int) -> Turn:
    seconds = (window.last.time_ns - window.first.time_ns) / _NS_PER_S
    latencies_ms = tuple(query.latency_ms for query in queries)
    return Turn(latencies_ms, batch * num_arrived / seconds, batch * num_arrived, window.energy_j)


def serve(subject: Subject, load: Load, watch: Watch, meter: Meter, tick: Callable[[int, int], None] | None = None) -> Served:
    """Serve queries until enough of them were undisturbed, or time is up.

    Args:
        subject: Answers a query with one call; with several streams it is called by several threads at once.
        load: How queries arrive, and how many are wanted.
        watch: Judges each window.
        meter: Reads the machine's energy.
        tick: Told the clean windows so far and how many there will be at least.

    Raises:
        UserError: Hardly a query arrives in the time.
    """
    run = _Run(subject, load, watch, meter, tick)
    with ThreadPoolExecutor(load.streams) as pool:
        others = [pool.submit(run.work, watches=False) for _ in range(load.streams - 1)]
        run.work(watches=True)
        for other in others:
            other.result()
    return run.served()


class _Run:
    """Streams that take queries in the order of their arrival; one of them also reads the machine between its queries."""

    def __init__(self, subject: Subject, load: Load, watch: Watch, meter: Meter, tick: Callable[[int, int], None] | None) -> None:
        self._subject, self._load, self._watch, self._meter, self._tick = subject, load, watch, meter, tick
        self._lock = threading.Lock()
        self._taken = 0
        self._over = False
        self._queries: list[Query] = []
        self._windows: list[Window] = []
        arrivals_s = load.arrivals_s()
        self._counters, self._energy = watch.counters(), meter.read()
        begun_ns = watch.system.clock()
        self._end_ns = begun_ns + load.seconds * _NS_PER_S
        self._arrivals_ns = [begun_ns + round(time_s * _NS_PER_S) for time_s in arrivals_s]

    def work(self, *, watches: bool) -> None:
        """Take queries until the run is over."""
        try:
            while (arrival_ns := self._take()) is not None:
                self._answer(arrival_ns)
                if watches:
                    self._look()
        except BaseException:
            self._over = True  # or the other streams would go on to the end
            raise

    def served(self) -> Served:
        """What came out; the last window ends here."""
        self._close()
        waiting = sum(arrival_ns <= self._windows[-1].last.time_ns for arrival_ns in self._arrivals_ns[self._taken :])
        return Served(tuple(sorted(self._queries, key=lambda query: query.arrival_ns)), tuple(self._windows), waiting)

    def _take(self) -> int | None:
        with self._lock:
            if self._over or self._taken == len(self._arrivals_ns):
                return None
            self._taken += 1
            return self._arrivals_ns[self._taken - 1]

    def _answer(self, arrival_ns: int) -> None:
        system = self._watch.system
        wait_ns = arrival_ns - system.clock()
        if wait_ns > 0:
            system.sleep(wait_ns / _NS_PER_S)
        start_ns = system.clock()
        self._subject.call()
        self._queries.append(Query(arrival_ns, start_ns, system.clock()))

    def _look(self) -> None:
        """Close the window if it is long enough, and end the run if it is."""
        now_ns = self._watch.system.clock()
        if now_ns - self._counters.time_ns >= self._load.window_s() * _NS_PER_S:
            self._close()
            num_clean = sum(not window.signs for window in self._windows)
            if self._tick is not None:
                self._tick(num_clean, max(MIN_ROUNDS, num_clean + 1))
            self._over |= num_clean >= MIN_ROUNDS and self._num_clean_queries() >= self._load.needed
        self._over |= now_ns >= self._end_ns

    def _num_clean_queries(self) -> int:
        queries = sorted(self._queries, key=lambda query: query.arrival_ns)
        return sum(Served(tuple(queries), tuple(self._windows), 0).clean())

    def _close(self) -> None:
        counters, energy = self._watch.counters(), self._meter.read()
        usual = usual_mhz([window.last.clock_mhz for window in self._windows if not window.signs])
        signs = tuple(self._watch.signs(self._counters, counters, usual))
        used = self._meter.used(self._energy, energy)
        self._windows.append(Window(self._counters, counters, signs, used))
        self._counters, self._energy = counters, energy
