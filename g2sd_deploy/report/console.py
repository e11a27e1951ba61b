"""The result of a run as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.scores import MODELS
from g2sd_deploy.report.summary import RunSummary

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_COLUMNS = ("params\nM", "size\nMiB", "top-1\n%", "% of\nteacher", "ECE\n%", "corrupted\ntop-1 %", "p50\nms")


def result_table(run: RunSummary) -> Table:
    """Teacher, student and baseline side by side; an en dash where a number was not measured.

    The caption holds the parity verdict, red where it failed.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(run.title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=_verdict(run),
        caption_justify="left",
    )
    table.add_column("\nmodel", no_wrap=True)
    for title in _COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("\nruntime", no_wrap=True)
    for model in MODELS:
        cells = (model, *_cells(run, model))
        table.add_row(*(Text(cell) for cell in cells), style="bold" if model == "student" else None)
    return table


def _cells(run: RunSummary, model: str) -> tuple[str, ...]:
    scores, row = run.scores(model), run.shipped_latency(model)
    timed = (formatting.significant(row.p50_ms), row.runtime) if row else (formatting.MISSING, formatting.MISSING)
    if scores is None:
        return (*[formatting.MISSING] * (len(_COLUMNS) - 1), *timed)
    return (
        formatting.millions(scores.num_parameters).removesuffix(" M"),
        formatting.significant(scores.model_mib),
        _percent(scores.clean.top1),
        _percent(run.share_of_teacher(model), 1),
        _percent(scores.clean.ece),
        _percent(scores.mean_corruption_top1),
        *timed,
    )


def _percent(fraction: float | None, digits: int = 2) -> str:
    """The number alone; its column says %."""
    return formatting.percent(fraction, digits).removesuffix(" %")


def _verdict(run: RunSummary) -> Text:
    from rich.text import Text

    style = {"passed": "green", "failed": "bold red", "not_run": "dim"}[run.parity.verdict]
    words = f"parity {run.parity.verdict.replace('_', ' ')}"
    return Text(f"{words}: {run.parity.reason}" if run.parity.reason else words, style=style)
