"""A profile as a table for the terminal, and what has to be said below it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.reasons import kind_of, together

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"valid": "green", "invalid": "bold red", "not_run": "yellow"}
_NUMBERS = {"p50 ms": "p50_ms", "p90 ms": "p90_ms", "p99 ms": "p99_ms", "images/s": "images_per_s"}
_TEXTS = ("model", "runtime", "scenario", "verdict")

Row = Mapping[str, Any]


def profile_table(profile: Mapping[str, Any], title: str = "") -> "Table":
    """Rows with numbers; those without are told in the notes. Columns that say nothing are left out.

    Args:
        profile: As `g2sd profile --json` prints it.
        title: Above the table.
    """
    from rich.table import Table
    from rich.text import Text

    rows = [row for row in profile["rows"] if row["verdict"] != "not_run"]
    names, marks = short_names(row["model"] for row in rows), _marks(rows)
    columns = {
        "model": [f"{names[row['model']]} {row['variant']}".strip() for row in rows],
        "runtime": [runtime_of(row) for row in rows],
        "batch": [str(row["batch"]) for row in rows],
        "threads": [str(row["threads"] or "") for row in rows],
        **{heading: [_number(row[key]) for row in rows] for heading, key in _NUMBERS.items()},
        "ratio to reference": [ratio_of(row) for row in rows],
        "scenario": [row["scenario"].replace("_", " ").removeprefix("single stream") for row in rows],
        "verdict": [row["verdict"] + "".join(f" [{marks[kind_of(reason)]}]" for reason in row["reasons"]) for row in rows],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells) or not rows}
    table = Table(title=Text(title) if title else None, box=None, pad_edge=False, header_style="bold")
    for heading in shown:
        table.add_column(heading, justify="left" if heading in _TEXTS else "right", overflow="fold", no_wrap=heading in _NUMBERS)
    for row, *cells in zip(rows, *shown.values(), strict=True):
        *others, verdict = map(Text, cells)
        verdict.stylize(_STYLES[row["verdict"]])
        table.add_row(*others, verdict)
    return table


def notes_of(profile: Mapping[str, Any]) -> list[str]:
    """What has to be said below the table: why rows are invalid or were not run, each reason once, and what was void."""
    rows = profile["rows"]
    timed = [row for row in rows if row["verdict"] != "not_run"]
    told = [reason for row in timed for reason in row["reasons"]]
    notes = [f"[{mark}] {together([reason for reason in told if kind_of(reason) == kind])}" for kind, mark in _marks(timed).items()]
    left_out: dict[str, dict[str, None]] = {}
    names = short_names(row["model"] for row in rows)
    for row in rows:
        if row["verdict"] == "not_run":
            what = f"{names[row['model']]} {row['variant'] or row['runtime']}"
            for reason in row["reasons"]:
                left_out.setdefault(reason, {})[what] = None
    notes += [f"not run: {', '.join(what)}: {reason}" for reason, what in left_out.items()]
    conditions = profile["conditions"]
    if 0 < conditions["num_void"] < conditions["num_rounds"]:  # where all are void, each row says so
        why = "; ".join(f"{reason} ({num})" for reason, num in conditions["voids"].items())
        notes.append(f"{conditions['num_void']} of {conditions['num_rounds']} rounds were void: {why}")
    notes += [f"conditions {conditions['verdict']}: {reason}" for reason in conditions["reasons"] if conditions["verdict"] == "not_run"]
    return notes


def short_names(models: "Iterator[str]") -> dict[str, str]:
    """The end of each path, as long as no two are the same; else the whole."""
    full = list(dict.fromkeys(models))
    short = [Path(name).name or name for name in full]
    return {name: end if short.count(end) == 1 else name for name, end in zip(full, short, strict=True)}


def runtime_of(row: Row) -> str:
    """Runtime, with what it computes in where that is no matter of course."""
    arithmetic = row["precision"] if row["precision"] not in ("", "fp32") and not row["variant"] else ""
    return f"{row['runtime']} {arithmetic}".strip()


def ratio_of(row: Row) -> str:
    """`0.28 (0.27 to 0.29)`; empty where there is none."""
    ratio = row.get("ratio")
    if not ratio:
        return ""
    low, high = ratio["interval"]
    return f"{ratio['value']:.3g} ({low:.3g} to {high:.3g})"


def _marks(rows: Sequence[Row]) -> dict[str, int]:
    """A number for each kind of reason, in order."""
    return {kind: number for number, kind in enumerate(dict.fromkeys(kind_of(reason) for row in rows for reason in row["reasons"]), 1)}


def _number(value: float | None) -> str:
    """Three digits: more are not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
