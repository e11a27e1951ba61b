"""The live view: stages, the training in progress with its loss curve, warnings, and who writes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.watching import words
from g2sd_deploy.watching.view import RunView, StageView, State, Training

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_MARKS: dict[State, tuple[str, str, str]] = {
    "waiting": ("·", ".", "dim"),
    "running": ("▶", ">", "bold cyan"),
    "stopped": ("■", "#", "bold yellow"),
    "done": ("✓", "+", "green"),
    "failed": ("✗", "x", "bold red"),
    "blocked": ("–", "-", "dim"),
    "earlier": ("○", "o", "dim"),
}
_HEIGHTS, _ASCII_HEIGHTS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_LOG_FROM = 8.0
_MOST_WARNINGS = 3
_CURVE_WIDTH = 60


def render(view: RunView, *, width: int, ascii_only: bool = False) -> RenderableType:
    """The whole view.

    Args:
        view: What was seen.
        width: Of the terminal, in characters.
        ascii_only: The terminal shows nothing else.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text.assemble((view.recipe, "bold"), f"  {view.folder}"), _stages(view.stages, ascii_only)]
    if (current := view.current) is not None:
        parts += [Text(""), *_in_work(current, min(_CURVE_WIDTH, width - 4), ascii_only)]
    parts += [Text(f"warning  {text}", style="yellow") for text in _warnings(view.stages)]
    parts += [Text(""), Text("all stages are done" if view.ended else words.writer(view.holder), style="dim")]
    parts += [Text(text, style="yellow") for text in view.remarks]
    return Group(*parts)


def waiting(folder: str, problem: str) -> Text:
    """What is shown while there is no run."""
    from rich.text import Text

    return Text(f"waiting for {folder}: {problem}", style="dim")


def sparkline(losses: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """The curve of the losses in one line: each character the mean of its share; on a log scale where they span much.

    Args:
        losses: Finite, in order.
        width: Most characters.
        ascii_only: Use no block characters.
    """
    means = _bucket_means(losses, width)
    if not means:
        return ""
    if min(means) > 0 and max(means) / min(means) > _LOG_FROM:
        means = [math.log(mean) for mean in means]
    heights = _ASCII_HEIGHTS if ascii_only else _HEIGHTS
    low, span = min(means), max(means) - min(means)
    return "".join(heights[round((mean - low) / span * (len(heights) - 1))] if span else heights[0] for mean in means)


def _bucket_means(values: Sequence[float], most: int) -> list[float]:
    num = min(len(values), max(1, most))
    ends = [len(values) * index // num for index in range(num + 1)] if num else []
    return [sum(values[begin:end]) / (end - begin) for begin, end in pairwise(ends)]


def _stages(stages: Sequence[StageView], ascii_only: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for stage in stages:
        mark, plain, style = _MARKS[stage.state]
        took = formatting.duration(stage.seconds) if stage.seconds is not None and stage.state != "running" else ""
        took = words.rough(stage.seconds) if stage.seconds is not None and stage.state == "running" else took
        note = words.position(stage.training) if stage.training else stage.note
        told = Text(note) if stage.state == "done" else Text(f"{words.state(stage)}{', ' if note else ''}{note}", style=style)
        table.add_row(Text(plain if ascii_only else mark, style=style), Text(stage.name, style=style), Text(took), told)
    return table


def _in_work(stage: StageView, width: int, ascii_only: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    if stage.training is not None:
        yield from _training(stage.training, width, ascii_only)
        if stage.note:
            yield Text(f"  {stage.note}")
        yield Text(f"  {words.news(stage.training)}", style="bold yellow" if stage.training.is_late else "dim")
    elif stage.state == "running":
        yield Text(f"  {stage.name} has told of no step yet", style="dim")
    if stage.checkpoint is not None:
        yield Text(f"  {words.checkpoint(stage.checkpoint)}", style="dim")


def _training(training: Training, width: int, ascii_only: bool) -> Iterator[RenderableType]:
    from rich.text import Text

    if training.share is not None:
        done = round(training.share * width)
        full, empty = ("#", "-") if ascii_only else ("━", "─")
        yield Text.assemble("  ", (full * done, "cyan"), (empty * (width - done), "dim"))
    yield Text(f"  {sparkline(training.losses, width, ascii_only=ascii_only)}", style="cyan")
    yield Text(f"  {words.losses(training)}", style="bold")
    yield Text(f"  {words.speed(training)}")


def _warnings(stages: Sequence[StageView]) -> list[str]:
    """The last ones, and how many there are."""
    found = [f"{stage.name}: {text}" for stage in stages for text in stage.warnings]
    more = [f"and {len(found) - _MOST_WARNINGS:,} before"] if len(found) > _MOST_WARNINGS else []
    return [*found[-_MOST_WARNINGS:], *more]
