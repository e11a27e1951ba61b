"""Rounds: every subject has a turn in each, and a round that something else disturbed is void for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .conditions import Counters, Sign, Watch, added, told
from .energy import Meter
from .session import Subject
from .trends import is_stationary

TURN_S = 0.05
"""Time of a subject's calls in one round. Short, as the speed of a shared machine changes within a second and the turns of a round are
compared; a turn is one call at least. Where there is little time in all, less, so that there can be twice the rounds that are needed."""
UNTIMED_CALLS = 1
UNTIMED_S = 0.01
"""Calls of each turn before those that are timed, and the least time of them: weights come back into caches, and the threads of another
runtime, which look for work for some milliseconds, go to sleep."""
LEAST_SHARE = 1 / 6
"""Of the time there is, that is taken in any case: a drift takes time to show."""
MIN_ROUNDS = 10
"""Rounds that have to be clean: fewer tell neither a trend nor an interval."""
WARMUP_BLOCKS = 8
"""Blocks of calls of which a series has to be stationary before anything counts."""
WARMUP_BLOCK_S = 0.05
WARMUP_MOST_S = 10.0
"""Time after which a warm-up ends in any case; what still drifts then shows in the rounds."""
_WARMUP_SHARE = 0.05
_WARMUP_P_VALUE = 0.05
_NS_PER_S, _NS_PER_MS = 1e9, 1e6
_ROUNDS_THAT_TELL_A_CLOCK = 3
_NOTHING = Counters(0, 0.0)


@dataclass(frozen=True)
class Turn:
    """What one subject did in one round.

    Attributes:
        latencies_ms: Of its timed calls.
        images_per_s: In this turn.
        num_images: That the timed calls took.
        energy_j: That the machine used meanwhile, by source; empty where it cannot tell.
    """

    latencies_ms: tuple[float, ...]
    images_per_s: float
    num_images: int
    energy_j: Mapping[str, float]


@dataclass(frozen=True)
class Round:
    """A turn of every subject.

    Attributes:
        index: Its number, void rounds counted.
        turns: By subject.
        signs: What disturbed it; empty for a clean one.
        first: Read before its first turn.
        last: Read after its last.
    """

    index: int
    turns: Mapping[str, Turn]
    signs: tuple[Sign, ...] = ()
    first: Counters = _NOTHING
    last: Counters = _NOTHING


@dataclass
class Record:
    """All rounds of a session.

    Attributes:
        rounds: In order.
    """

    rounds: list[Round] = field(default_factory=list)

    @property
    def clean(self) -> list[Round]:
        """Rounds that nothing disturbed."""
        return [one for one in self.rounds if not one.signs]

    @property
    def shown(self) -> list[Round]:
        """Rounds that numbers are made of: the clean ones, and only where there is none, those that are void."""
        return self.clean or self.rounds

    @property
    def usual_mhz(self) -> float | None:
        """The clock of clean rounds; None before there are enough of them."""
        return usual_mhz([one.last.clock_mhz for one in self.clean])

    def voids(self) -> dict[str, int]:
        """Signs, with the largest amount of each, and how many rounds it made void."""
        found: dict[str, list[Sign]] = {}
        for one in self.rounds:
            for sign in one.signs:
                found.setdefault(sign.text, []).append(sign)
        return told(found)


def usual_mhz(clocks_mhz: Sequence[float | None]) -> float | None:
    """The median of the clocks of clean rounds; None before there are enough of them."""
    known = [clock for clock in clocks_mhz if clock is not None]
    return float(np.median(known)) if len(known) >= _ROUNDS_THAT_TELL_A_CLOCK else None


def take_rounds(
    takers: Mapping[str, Callable[[], Turn]],
    watch: Watch,
    *,
    enough: Callable[[Sequence[Round]], bool],
    seconds: float,
    tick: Callable[[int, int], None] | None = None,
) -> Record:
    """Measure rounds until the clean ones are enough, or time is up; at least one.

    Args:
        takers: By subject: takes its turn.
        watch: Judges each round.
        enough: Whether these clean rounds are.
        seconds: Time for all of them.
        tick: Told the clean rounds so far and how many there will be at least.
    """
    record = Record()
    names = list(takers)
    begun_ns = watch.system.clock()
    while True:
        shift = len(record.rounds) % len(names)  # whoever comes first meets what the round before left
        order = names[shift:] + names[:shift]
        record.rounds.append(_round(len(record.rounds), {name: takers[name] for name in order}, watch, record.usual_mhz))
        num, passed_s = len(record.clean), (watch.system.clock() - begun_ns) / _NS_PER_S
        done = passed_s >= seconds or (num >= MIN_ROUNDS and passed_s >= LEAST_SHARE * seconds and enough(record.clean))
        if tick is not None:
            tick(num, num if done else max(MIN_ROUNDS, num + 1))
        if done:
            return record


def _round(index: int, takers: Mapping[str, Callable[[], Turn]], watch: Watch, usual_mhz: float | None) -> Round:
    """Each turn is judged, and all of them together: what is short shows in the one, what is slight in the other."""
    readings: list[Counters] = [watch.counters()]
    turns = {}
    signs: list[Sign] = []
    for name, take in takers.items():
        turns[name] = take()
        readings.append(watch.counters())
        signs += watch.signs(readings[-2], readings[-1], usual_mhz)
    if len(takers) > 1:
        signs += watch.signs(readings[0], readings[-1], usual_mhz)
    largest: dict[str, Sign] = {}
    for sign in signs:
        if sign.text not in largest or sign.amount > largest[sign.text].amount:
            largest[sign.text] = sign
    return Round(index, turns, tuple(largest.values()), readings[0], readings[-1])


def turn_seconds(seconds: float) -> float:
    """Length of a turn where a subject has this much time in all, in s."""
    return min(TURN_S, seconds / (2 * MIN_ROUNDS))


def take_turn(subject: Subject, seconds: float, watch: Watch, meter: Meter) -> Turn:
    """Time calls one after another for the length of a turn.

    Args:
        subject: What is called.
        seconds: The length; the call that goes beyond it is the last.
        watch: Has the clock.
        meter: Reads the machine's energy.
    """
    call = subject.call
    clock = watch.system.clock
    _untimed(call, seconds, clock)
    energy = meter.read()
    first = clock()
    latencies_ms = []
    while True:
        start = clock()
        call()
        end = clock()
        latencies_ms.append((end - start) / _NS_PER_MS)
        if end - first >= seconds * _NS_PER_S:
            break
    used = meter.used(energy, meter.read())
    num_images = subject.batch * len(latencies_ms)
    return Turn(tuple(latencies_ms), 1000 * num_images / math.fsum(latencies_ms), num_images, used)


def _untimed(call: Callable[[], object], seconds: float, clock: Callable[[], int]) -> None:
    """Calls before those that count; one is enough where it takes as long as the turn."""
    begun = clock()
    num_calls = 0
    while True:
        call()
        num_calls += 1
        passed_s = (clock() - begun) / _NS_PER_S
        if passed_s >= UNTIMED_S and (num_calls >= UNTIMED_CALLS or passed_s >= seconds):
            return


def warm_up(call: Callable[[], object], watch: Watch, most_s: float = WARMUP_MOST_S) -> int:
    """Call until the latencies neither fall nor rise any more, or time is up.

    Args:
        call: Runs one batch.
        watch: Has the clock.
        most_s: Time after which it ends in any case.

    Returns:
        The number of calls.
    """
    clock = watch.system.clock
    begun = clock()
    blocks: list[float] = []
    num_calls = 0
    while True:
        latencies: list[int] = []
        start = clock()
        while not latencies or clock() - start < WARMUP_BLOCK_S * _NS_PER_S:
            before = clock()
            call()
            latencies.append(max(clock() - before, 1))
        num_calls += len(latencies)
        blocks.append(float(np.median(latencies)))
        last = blocks[-WARMUP_BLOCKS:]
        if len(last) == WARMUP_BLOCKS and is_stationary(last, share=_WARMUP_SHARE, p_value=_WARMUP_P_VALUE):
            return num_calls
        if clock() - begun >= most_s * _NS_PER_S:
            return num_calls


def disturbed(record: Record, watch: Watch) -> list[str]:
    """Why the machine was not undisturbed for long enough; empty where it was.

    Slight load that no single round shows is looked for in all clean rounds together.
    """
    clean, num_all = record.clean, len(record.rounds)
    if len(clean) < MIN_ROUNDS:
        why = ", ".join(f"{reason} (in {count})" for reason, count in record.voids().items()) or "time was up"
        shown = "" if clean else "; the numbers are those of disturbed rounds"
        return [f"{len(clean)} of {num_all} rounds were undisturbed and {MIN_ROUNDS} are needed: {why}{shown}"]
    first, last = added([one.first for one in clean]), added([one.last for one in clean])
    return [f"over all rounds together, {sign}" for sign in watch.load_signs(first, last)]


def conditions_of(record: Record, watch: Watch, before: Mapping[str, Any]) -> dict[str, Any]:
    """The profile's ``conditions``: a verdict on the machine, what was void and why, and its state before and now.

    Args:
        record: All rounds.
        watch: Reads the state.
        before: The state before the first round.
    """
    unjudged, reasons = watch.unjudged(), disturbed(record, watch)
    return {
        "verdict": "invalid" if reasons else "not_run" if unjudged else "valid",
        "reasons": reasons or ([unjudged] if unjudged else []),
        "num_rounds": len(record.rounds),
        "num_void": len(record.rounds) - len(record.clean),
        "voids": record.voids(),
        "before": dict(before),
        "after": watch.snapshot(),
    }
