"""The table of ``python -m edge bench``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TIMES = ("p50_ms", "p90_ms", "p99_ms")
_SIGNIFICANT = 4


def lines_of(profile: Mapping[str, Any]) -> list[str]:
    """Lines of text: a row for each variant, batch and number of threads, under it why not to believe it, then the machine and its state.

    Args:
        profile: As ``run_bench`` gives it.
    """
    rows, conditions = profile["rows"], profile["conditions"]
    width = max((len(row["variant"]) for row in rows), default=0)
    ratio = "   ratio" if profile["reference"] else ""
    lines = [f"{'variant':{width}}  batch  threads   p50 ms   p90 ms   p99 ms images/s{ratio}  verdict"]
    for row in rows:
        lines.append(_line(row, width, has_ratio=bool(ratio)))
        lines += [f"{'':{width}}  {reason}" for reason in row["reasons"] if reason not in conditions["reasons"]]
    lines.append(f"machine  {_machine(profile['machine'])}")
    lines.append(f"rounds   {conditions['num_rounds']}, of which {conditions['num_void']} void")
    lines += [f"         {count} void: {reason}" for reason, count in conditions["voids"].items()]
    return [*lines, *(f"{conditions['verdict']:8} {reason}" for reason in conditions["reasons"])]


def _line(row: Mapping[str, Any], width: int, *, has_ratio: bool) -> str:
    head = f"{row['variant']:{width}}  {row['batch']:5}  {row['threads'] or '':>7}"
    if row["verdict"] == "not_run":
        return f"{head}  not timed"
    times = " ".join(f"{_number(row[key]):>8}" for key in (*_TIMES, "images_per_s"))
    ratio = f"{'' if row['ratio'] is None else format(row['ratio']['value'], '.3f'):>8}" if has_ratio else ""
    return f"{head} {times}{ratio}  {row['verdict']}, {row['runtime']} {row['version']} {row['provider']}".rstrip()


def _number(value: float | None) -> str:
    """To four digits; a hyphen where there are too few samples."""
    return "-" if value is None else f"{value:.0f}" if value >= 10**_SIGNIFICANT else f"{value:#.{_SIGNIFICANT}g}".rstrip(".")


def _machine(machine: Mapping[str, Any]) -> str:
    governor = f", governor {machine['governor']}" if machine["governor"] else ""
    mode = f", power mode {machine['power_mode']}" if machine["power_mode"] else ""
    return f"{machine['cpu']}, {machine['cpus']} processors, {machine['system']}{governor}{mode}"
