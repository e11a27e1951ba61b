"""How the latency of the same model on the same device went over time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from g2sd_deploy.devices.store import Entry

_SAME = ("model", "variant", "runtime", "precision", "batch", "threads", "scenario")


@dataclass(frozen=True)
class Point:
    """One measurement of a series.

    Attributes:
        at: When it was stored, UTC, ISO 8601.
        verdict: valid, invalid or not_run.
        reasons: Why it is not valid.
        digest: SHA-256 of the file that was timed.
        runtime: With its version.
        p50_ms: Median latency in milliseconds; None where it was not run.
        p99_ms: None where it was not run, or has too few samples.
        to_first: p50 against the first valid one of the series; None unless this one is valid.
        to_previous: Against the valid one before; None for the first.
        to_reference: Against the reference network of its own session, which takes the machine's mood out; None where none was timed.
        changed: What is not as it was at the point before: ``file``, ``runtime``, ``machine``, ``power mode``.
    """

    at: str
    verdict: str
    reasons: tuple[str, ...]
    digest: str
    runtime: str
    p50_ms: float | None
    p99_ms: float | None
    to_first: float | None
    to_previous: float | None
    to_reference: float | None
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Series:
    """One model, variant, runtime, batch, number of threads and scenario, over time.

    Attributes:
        device: Name of the device.
        model: As it was asked for.
        variant: Of a bundle; may be empty.
        runtime: Without its version.
        precision: Number format; may be empty.
        batch: Images per call.
        threads: CPU threads; None where the runtime chose.
        scenario: As in the profile.
        points: Oldest first.
    """

    device: str
    model: str
    variant: str
    runtime: str
    precision: str
    batch: int
    threads: int | None
    scenario: str
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def series_of(device: str, entries: Sequence[Entry], *, model: str | None = None) -> list[Series]:
    """All series of a device.

    Args:
        device: Its name.
        entries: Its results, oldest first.
        model: Only models whose name holds this, or whose digest begins with it; None takes all.

    Returns:
        In the order in which they first occurred. A ratio is of two valid points; an invalid one stands in its place with its reasons, and
        nothing is computed from it.
    """
    found: dict[tuple[Any, ...], list[tuple[Entry, Mapping[str, Any]]]] = {}
    for entry in entries:
        for row in entry.profile["rows"]:
            if model is None or model in str(row.get("model", "")) or str(row.get("digest", "")).startswith(model):
                found.setdefault(tuple(row.get(key) for key in _SAME), []).append((entry, row))
    return [_series(device, key, rows) for key, rows in found.items()]


def _series(device: str, key: tuple[Any, ...], rows: Sequence[tuple[Entry, Mapping[str, Any]]]) -> Series:
    model, variant, runtime, precision, scenario = (str(key[place] or "") for place in (0, 1, 2, 3, 6))
    return Series(device, model, variant, runtime, precision, key[4], key[5], scenario, tuple(_points(rows)))


def _points(rows: Sequence[tuple[Entry, Mapping[str, Any]]]) -> Iterator[Point]:
    first = previous = None
    before: dict[str, object] = {}
    for entry, row in rows:
        valid = row["verdict"] == "valid"
        p50_ms = row.get("p50_ms")
        now = _circumstances(entry, row)
        yield Point(
            at=entry.at,
            verdict=str(row["verdict"]),
            reasons=tuple(map(str, row.get("reasons", ()))),
            digest=str(row.get("digest", "")),
            runtime=" ".join(str(row[key]) for key in ("runtime", "version", "provider") if row.get(key)),
            p50_ms=p50_ms,
            p99_ms=row.get("p99_ms"),
            to_first=p50_ms / first if valid and first else None,
            to_previous=p50_ms / previous if valid and previous else None,
            to_reference=(row.get("ratio") or {}).get("value") if valid else None,
            changed=tuple(what for what, value in now.items() if before and before[what] != value),
        )
        before = now
        if valid:
            first, previous = first or p50_ms, p50_ms


def _circumstances(entry: Entry, row: Mapping[str, Any]) -> dict[str, object]:
    machine = entry.profile.get("machine") or {}
    return {
        "file": row.get("digest"),
        "runtime": (row.get("runtime"), row.get("version"), row.get("provider")),
        "machine": tuple(machine.get(key) for key in ("cpu", "machine", "cpus")),
        "power mode": machine.get("power_mode"),
    }
