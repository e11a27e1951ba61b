"""The estimates as a table for the terminal."""

import json
import sys
from typing import TYPE_CHECKING

from g2sd_deploy.probe.estimates import Estimate, totals_of
from g2sd_deploy.probe.sizing import NUM_STEPS
from g2sd_deploy.probe.trial import Probe, as_json
from g2sd_deploy.report import formatting

if TYPE_CHECKING:
    from rich.table import Table

_WIDE = 200
_GIB = 2**30


def print_probe(found: Probe, *, json_wanted: bool) -> None:
    """Print them on stdout, as a table or as one JSON object."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    if json_wanted:
        console.out(json.dumps(as_json(found)), highlight=False)
        return
    console.print(_table(found))
    for note in _notes(found):
        console.print(note, soft_wrap=True, highlight=False, markup=False)


def _table(found: Probe) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    hours = "GPU hours" if found.device == "cuda" else "CPU hours"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True)
    totals = totals_of(found.estimates)
    columns = {
        "stage": "total",
        "steps": "",
        "step": "",
        "images/s": "",
        "waits for\nimages": "",
        "time": formatting.duration(totals.seconds),
        hours: formatting.significant(totals.hours),
        "peak memory": _memory(totals.peak_mib),
        "disk": size(totals.disk_bytes),
        "checkpoints": size(totals.checkpoint_bytes),
        "": "",
    }
    for heading, footer in columns.items():
        table.add_column(heading, footer=footer, justify="left" if heading in ("stage", "") else "right", no_wrap=bool(heading))
    for one in found.estimates:
        table.add_row(*_cells(one), style=None if one.runs else "dim")
    return table


def _cells(one: Estimate) -> tuple[str, ...]:
    if not one.runs:
        return (one.stage, *[""] * 4, "0 s", "0", "", "", "", f"skipped: {one.reason}")
    trains = one.steps is not None
    return (
        one.stage,
        formatting.count(one.steps) if trains else "",
        formatting.milliseconds(one.step_ms) if trains else "",
        formatting.significant(one.images_per_s) if trains else "",
        formatting.percent(one.waits, 0) if trains else "",
        formatting.duration(one.seconds),
        formatting.significant(one.hours),
        _memory(one.peak_mib),
        size(one.disk_bytes),
        size(one.checkpoint_bytes) if trains else "",
        f"from {one.steps_tried} step{'s' * (one.steps_tried != 1)}" if trains else "",
    )


def _notes(found: Probe) -> list[str]:
    """How the figures came about, and what does not fit."""
    totals = totals_of(found.estimates)
    count = "1 process" if found.processes == 1 else f"{found.processes} processes"
    notes = [f"on {found.device_name}, {count}; the probe took {formatting.duration(found.seconds)}"]
    if short := [one.stage for one in found.estimates if one.steps_tried is not None and one.steps_tried < min(NUM_STEPS, one.steps or 0)]:
        notes.append(f"{', '.join(short)}: time was up before {NUM_STEPS} steps; --probe-minutes gives them more")
    if loaders := [one.stage for one in found.estimates if one.waits is not None and one.waits > 0.1]:
        notes.append(f"{', '.join(loaders)}: loading images is what takes the time; raise --workers, or see g2sd data prepare")
    if totals.disk_bytes + totals.checkpoint_bytes > found.free_bytes:
        notes.append(f"WARNING: {size(found.free_bytes)} are free where the run will be written, less than it needs")
    return notes


def size(num_bytes: int) -> str:
    """Bytes as MiB, or as GiB where there are many."""
    return f"{formatting.significant(num_bytes / _GIB)} GiB" if num_bytes >= _GIB else formatting.mib(num_bytes / 2**20)


def _memory(mib: float) -> str:
    return size(round(mib * 2**20)) if mib else formatting.MISSING
