"""The result of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.dense_scores import TaskKind
from g2sd_deploy.report.scores import MODELS
from g2sd_deploy.report.summary import RunSummary

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_SIZE, _TIME = ("params\nM", "size\nMiB"), ("p50\nms",)
_SCORES: Mapping[TaskKind | None, tuple[str, ...]] = {
    None: ("top-1\n%", "% of\nteacher", "ECE\n%", "corrupted\ntop-1 %"),
    "segmentation": ("mIoU\n%", "% of\nteacher", "mAcc\n%", "aAcc\n%"),
    "detection": ("box AP\n%", "% of\nteacher", "box\nAP50 %", "mask\nAP %"),
}
_FIGURES: Mapping[TaskKind, tuple[str, ...]] = {"segmentation": ("macc", "aacc"), "detection": ("box_ap50", "mask_ap")}
"""Of a task, what follows the share of the teacher's."""


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
    for title in (*_SIZE, *_SCORES[run.task], *_TIME):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("\nruntime", no_wrap=True)
    for model in MODELS:
        cells = (model, *_cells(run, model))
        table.add_row(*(Text(cell) for cell in cells), style="bold" if model == "student" else None)
    return table


def _cells(run: RunSummary, model: str) -> tuple[str, ...]:
    row = run.shipped_latency(model)
    timed = (formatting.significant(row.p50_ms), row.runtime) if row else (formatting.MISSING, formatting.MISSING)
    return (
        formatting.millions(run.num_parameters(model)).removesuffix(" M"),
        formatting.significant(run.model_mib(model)),
        _percent(run.main_score(model)),
        _percent(run.share_of_teacher(model), 1),
        *map(_percent, _further(run, model)),
        *timed,
    )


def _further(run: RunSummary, model: str) -> tuple[float | None, float | None]:
    """The two numbers after the share of the teacher's."""
    if run.dense:
        figures = run.dense.models[model].figures if model in run.dense.models else {}
        first, second = _FIGURES[run.dense.task]
        return figures.get(first), figures.get(second)
    scores = run.scores(model)
    return (scores.clean.ece, scores.mean_corruption_top1) if scores else (None, None)


def _percent(fraction: float | None, digits: int = 2) -> str:
    """The number alone; its column says %."""
    return formatting.percent(fraction, digits).removesuffix(" %")


def _verdict(run: RunSummary) -> Text:
    from rich.text import Text

    style = {"passed": "green", "failed": "bold red", "not_run": "dim"}[run.parity.verdict]
    words = f"parity {run.parity.verdict.replace('_', ' ')}"
    return Text(f"{words}: {run.parity.reason}" if run.parity.reason else words, style=style)
