"""`g2sd pareto`: the front of accuracy against latency, and the pick under a budget."""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g2sd_deploy.errors import RunFailed, UserError

if TYPE_CHECKING:
    from rich.table import Table

    from g2sd_deploy.choosing import Decision
    from g2sd_deploy.choosing.front import Candidate

_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_MIB = 1 << 20

RunsArg = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folder of a run, of its export, or a bundle.")]
ProfileOpt = Annotated[list[Path], typer.Option("--profile", help="File of `g2sd profile --out`; repeatable.")]
MaxLatencyOpt = Annotated[str | None, typer.Option("--max-latency", help="Most median latency, as 10ms; without a unit in ms.")]
MinTop1Opt = Annotated[float | None, typer.Option("--min-top1", min=0, max=100, help="Least top-1, in percent.")]
DeviceOpt = Annotated[str | None, typer.Option("--device", help="Take the latencies of this device, as `g2sd devices history` lists them.")]
BatchOpt = Annotated[int, typer.Option("--batch", min=1, help="Images of a call.")]
ThreadsOpt = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; those that most were timed with, by default.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
SvgOpt = Annotated[Path | None, typer.Option("--svg", help="Draw the points and the front into this file.")]


def pareto(
    runs: RunsArg,
    profile: ProfileOpt = [],  # noqa: B006 (typer reads the default, nobody changes it)
    max_latency: MaxLatencyOpt = None,
    min_top1: MinTop1Opt = None,
    device: DeviceOpt = None,
    batch: BatchOpt = 1,
    threads: ThreadsOpt = None,
    as_json: JsonOpt = False,
    svg: SvgOpt = None,
) -> None:
    """Choose among students, number formats, runtimes and token merging: what is worth its latency, and what to take under a budget."""
    from g2sd_deploy.choosing import Budget, Request, decide
    from g2sd_deploy.choosing.latencies import Asked

    budget = Budget(None if max_latency is None else _milliseconds(max_latency), None if min_top1 is None else min_top1 / 100)
    request = Request(tuple(runs), tuple(profile), device, Asked(batch, threads), budget)
    decision = decide(request, warn=lambda line: typer.echo(f"warning: {line}", err=True))
    if svg is not None:
        _draw(decision, svg)
    if as_json:
        typer.echo(json.dumps(decision.to_dict()))
    else:
        _print(decision)
    if decision.pick is None:
        raise RunFailed(decision.reason)


def _milliseconds(text: str) -> float:
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(us|ms|s)?\s*", text)
    value = float(found[1]) * _MS[found[2] or "ms"] if found else math.nan
    if not value > 0:
        raise UserError(f"--max-latency {text}: is no latency; wanted a number above 0 with us, ms or s, as 10ms")
    return value


def _print(decision: "Decision") -> None:
    from g2sd_deploy.choosing.command import grouped
    from g2sd_deploy.cli_output import console

    printed = console(stderr=False)
    printed.print(_table(decision))
    for text in grouped(decision.left_out):
        printed.print(f"left out: {text}", soft_wrap=True, highlight=False, markup=False)
    if decision.pick is None:
        return
    for text in (*decision.merging, f"pick: {decision.pick.name}: {decision.reason}", *decision.others):
        printed.print(text, soft_wrap=True, highlight=False, markup=False)


def _table(decision: "Decision") -> "Table":
    """Candidates by latency; bold is the pick."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    threads = "" if decision.timed.threads is None else f", {decision.timed.threads} threads"
    title = f"top-1 against median latency, batch {decision.batch}{threads}, on {decision.candidates[0].latency.machine}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("point", "top-1", "95 %", "p50 ms", "95 %", "MiB", "front"):
        table.add_column(heading, justify="left" if heading in ("point", "front") else "right", overflow="fold")
    numbers = {one.name: number for number, one in enumerate(decision.candidates, 1)}
    for one in decision.candidates:
        table.add_row(*_cells(one, decision, numbers), style="bold" if one is decision.pick else "")
    table.caption = f"latency: {decision.timed.source}; tied: the images do not tell the two accuracies apart"
    table.caption_justify = "left"
    return table


def _cells(one: "Candidate", decision: "Decision", numbers: dict[str, int]) -> list[str]:
    low, high = one.accuracy.interval
    beaten = decision.front.beaten_by.get(one.name)
    others = decision.front.tied[one.name]
    all_others = len(others) == len(decision.candidates) - 1 > 1
    tied = "all others" if all_others else ", ".join(str(numbers[name]) for name in others)
    standing = "on the front" if beaten is None else f"beaten by {numbers[beaten.name]}"
    return [
        f"{numbers[one.name]} {one.name}",
        f"{one.accuracy.top1:.2%}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{one.latency.p50_ms:.3g}",
        f"{one.latency.low_ms:.3g} to {one.latency.high_ms:.3g}",
        "-" if one.point.file_bytes is None else f"{one.point.file_bytes / _MIB:.1f}",
        standing + (f", tied with {tied}" if tied else ""),
    ]


def _draw(decision: "Decision", path: Path) -> None:
    from g2sd_deploy.artifact import write_text_whole
    from g2sd_deploy.report.charts_front import Mark, TimeAxis, accuracy_latency
    from g2sd_deploy.report.svg_file import svg_file

    members = {one.name for one in decision.front.members}
    marks = [Mark(one.name, "student", one.latency.p50_ms, one.accuracy.top1, on_front=one.name in members) for one in decision.candidates]
    try:
        write_text_whole(path, svg_file(accuracy_latency(marks, TimeAxis(_axis(decision), "{:.3g} ms".format), "front")))
    except OSError as error:
        raise UserError(f"--svg {path}: cannot be written ({error.strerror}); give a file in a folder that is there") from None


def _axis(decision: "Decision") -> str:
    return f"p50 latency of {'one image' if decision.batch == 1 else f'{decision.batch} images'}, ms"
