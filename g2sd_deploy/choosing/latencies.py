"""Latency of each way of running a model: from profiles, from a device's history, or from the race while exporting."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2sd_deploy.choosing.points import Found, Point
from g2sd_deploy.errors import UserError

_WANTED = "wanted what `g2sd profile --json` or `--out` writes"


@dataclass(frozen=True)
class Latency:
    """Of one batch.

    Attributes:
        p50_ms: Median.
        low_ms: Of its 95 % interval.
        high_ms: Likewise.
        threads: On the CPU; None where that is not said, as on a GPU.
        machine: What it was measured on; the same text for the same machine.
        source: Who measured it, for people.
    """

    p50_ms: float
    low_ms: float
    high_ms: float
    threads: int | None
    machine: str
    source: str


@dataclass(frozen=True)
class Asked:
    """Which latency counts.

    Attributes:
        batch: Images of a call.
        threads: On the CPU; None takes the number with which most points were timed.
    """

    batch: int = 1
    threads: int | None = None


@dataclass(frozen=True)
class Profile:
    """Rows with the place that they come from."""

    source: str
    machine: str
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Timed:
    """What is known of the latency of all points.

    Attributes:
        latencies: Of those that were timed, by name.
        why_not: Of the others.
        source: Where the latencies come from.
        threads: With which they were taken.
    """

    latencies: Mapping[str, Latency]
    why_not: Mapping[str, str]
    source: str
    threads: int | None


def read_profile(path: Path) -> Profile:
    """A file of `g2sd profile`.

    Raises:
        UserError: It is none.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"--profile {path}: cannot be read ({error.strerror}); {_WANTED}") from None
    except ValueError:
        raise UserError(f"--profile {path}: is no JSON; {_WANTED}") from None
    if not isinstance(values, dict) or not isinstance(values.get("rows"), list):
        raise UserError(f"--profile {path}: holds no rows; {_WANTED}")
    return as_profile(values, str(path))


def as_profile(values: Mapping[str, Any], source: str) -> Profile:
    """A profile that was read already."""
    rows = tuple(row for row in values["rows"] if isinstance(row, dict))
    return Profile(source, machine_of(values.get("machine") or {}), rows)


def machine_of(described: Mapping[str, Any]) -> str:
    """A machine in a line."""
    gpu = described.get("gpu") or {}
    parts = [described.get("cpu") or described.get("machine") or "an unnamed processor", f"{described.get('cpus', '?')} CPUs"]
    return ", ".join([*map(str, parts), *([str(gpu["name"])] if gpu.get("name") else [])])


def timed(found: Sequence[Found], profiles: Sequence[Profile], asked: Asked, *, advice: str) -> Timed:
    """The latency of every point: from profiles where one of them knows any of the points, else from the races while exporting.

    Args:
        found: What was opened.
        profiles: The later ones win.
        asked: Batch and threads.
        advice: How to time what was not.
    """
    points = [point for one in found for point in one.points if not point.why_not]
    rows = {point.name: _rows_of(point, profiles) for point in points}
    if any(rows.values()):
        return _chosen(points, rows, asked, advice)
    return _chosen(points, {point.name: _raced(one, point) for one in found for point in one.points}, asked, advice)


_Rows = list[tuple[Mapping[str, Any], Profile]]


def _rows_of(point: Point, profiles: Iterable[Profile]) -> _Rows:
    wanted = (point.bundle, point.variant, "single_stream")
    return [
        (row, profile)
        for profile in profiles
        for row in profile.rows
        if (row.get("digest"), row.get("variant"), row.get("scenario", "single_stream")) == wanted
    ]


def _raced(found: Found, point: Point) -> _Rows:
    """Its row of the race that was run while exporting."""
    row = found.race.get(point.variant)
    if row is None:
        return []
    half = float(row.get("spread", 0.0)) / 2 * float(row["p50_ms"])
    whole = {"verdict": "valid", **row, "p50_interval_ms": [float(row["p50_ms"]) - half, float(row["p50_ms"]) + half]}
    profile = Profile("the export's own race, a session for each bundle", "the machine that exported", ())
    return [(whole, profile)]


def _chosen(points: Sequence[Point], rows: Mapping[str, _Rows], asked: Asked, advice: str) -> Timed:
    """Of each point the last valid row of the batch, the threads and the machine that most points have."""
    of_batch = {name: [one for one in found if one[0].get("batch") == asked.batch] for name, found in rows.items()}
    threads = asked.threads if asked.threads is not None else _most([_threads(row) for found in of_batch.values() for row, _ in found])
    fitting = {name: [one for one in found if _threads(one[0]) in (None, threads)] for name, found in of_batch.items()}
    valid = {name: [one for one in found if _is_valid(one[0])] for name, found in fitting.items()}
    machine = _most([profile.machine for found in (valid if any(valid.values()) else fitting).values() for _, profile in found])
    latencies, why_not, sources = {}, {}, []
    for point in points:
        there = [one for one in valid.get(point.name, []) if one[1].machine == machine]
        if there:
            row, profile = there[-1]
            latencies[point.name] = _latency(row, profile)
            sources.append(profile.source)
            continue
        stages = [found.get(point.name, []) for found in (rows, of_batch, fitting, valid)]
        why_not[point.name] = _absence(stages, asked, threads, advice)
    return Timed(latencies, why_not, "; ".join(dict.fromkeys(sources)), threads)


def _absence(stages: Sequence[_Rows], asked: Asked, threads: int | None, advice: str) -> str:
    """Why a point has no latency: the first sieve that nothing passed."""
    any_row, of_batch, fitting, valid = stages
    if valid:
        return f"it was timed on another machine: {valid[-1][1].machine}"
    if fitting:
        row = fitting[-1][0]
        reasons = "; ".join(map(str, row.get("reasons") or ["no reason is given"]))
        return f"its latency is {str(row.get('verdict', 'invalid')).replace('_', ' ')}: {reasons}"
    if of_batch:
        have = ", ".join(sorted({str(_threads(row)) for row, _ in of_batch}))
        return f"it was timed with {have} threads, not with {threads}"
    if any_row:
        return f"it was timed with batches of {', '.join(sorted({str(row.get('batch')) for row, _ in any_row}))}, not of {asked.batch}"
    return f"it was not timed; {advice}"


def _latency(row: Mapping[str, Any], profile: Profile) -> Latency:
    p50 = float(row["p50_ms"])
    low, high = row.get("p50_interval_ms") or (p50, p50)
    return Latency(p50, float(low), float(high), _threads(row), profile.machine, profile.source)


def _is_valid(row: Mapping[str, Any]) -> bool:
    return row.get("verdict") == "valid" and isinstance(row.get("p50_ms"), int | float)


def _threads(row: Mapping[str, Any]) -> int | None:
    return row.get("threads")


def _most(values: Sequence[Any]) -> Any:
    """The commonest that is known; of several the largest."""
    known = Counter(value for value in values if value is not None)
    return max(known, key=lambda value: (known[value], value)) if known else None
