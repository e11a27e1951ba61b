"""The machine that was timed: what it is, and how it was before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Column, Row, Table
from g2sd_deploy.report.latency import Profile

_NAMES = {
    "cpu": "Processor",
    "cpus": "Usable processors",
    "gpu": "GPU",
    "memory_mib": "Memory, MiB",
    "load_1m": "Load, 1 min",
    "clocks_mhz": "Clocks, MHz",
    "temperature_c": "Temperature, °C",
    "throttle_count": "Times throttled",
    "cpu_quota_cpus": "Container’s share of processors",
    "memory_limit_mib": "Container’s memory, MiB",
}


def machine_tables(profile: Profile) -> tuple[Table, ...]:
    """Facts of the machine, folded, and its state before and after, where they were recorded."""
    facts = tuple(Row((name, value)) for name, value in _flat(profile.machine))
    before, after = dict(_flat(profile.conditions.before)), dict(_flat(profile.conditions.after))
    states = tuple(Row((name, before.get(name, formatting.MISSING), after.get(name, formatting.MISSING))) for name in {**before, **after})
    tables = []
    if states:
        columns = (Column("State"), Column("Before"), Column("After"))
        tables.append(Table("State of the machine, before and after", columns, states, folded=True))
    if facts:
        tables.append(Table("Machine and libraries", (Column("What"), Column("Value")), facts, folded=True))
    return tuple(tables)


def _flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Name and text of every fact; those of an inner object under its name; what is null is left out."""
    found = []
    for key, value in values.items():
        if key == "unknown" and isinstance(value, Mapping):
            found += [(_NAMES.get(what, formatting.label(what)), f"unknown: {reason}") for what, reason in value.items()]
            continue
        name = f"{prefix}{_NAMES.get(key, key if prefix else formatting.label(key))}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}: ")
        elif value is not None:
            found.append((name, _text(value)))
    return found


def _text(value: object) -> str:
    """A value as a person reads it; many numbers as their range."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return formatting.count(value)
    if isinstance(value, float):
        return formatting.significant(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _list_text(value)
    return str(value)


def _list_text(values: Sequence[object]) -> str:
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers and len(numbers) == len(values):
        low, high = formatting.significant(min(numbers)), formatting.significant(max(numbers))
        return low if low == high else f"{low} to {high}"
    return ", ".join(_text(value) for value in values)
