"""What `g2sd watch` does: look, show, wait, until the last stage is done."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.watching.plain_lines import PlainLines
from g2sd_deploy.watching.terminal import render, waiting
from g2sd_deploy.watching.view import RunView
from g2sd_deploy.watching.watcher import Watcher

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def snapshot(folder: Path) -> RunView:
    """The run as it is now.

    Raises:
        UserError: There is no run in the folder.
    """
    watcher = Watcher(_checked(folder))
    view = watcher.look()
    if view is None:
        raise UserError(f"{folder}: {watcher.problem}; give the folder of a run (g2sd run RECIPE --out FOLDER)")
    return view


def as_json(view: RunView) -> dict[str, Any]:
    """The view as one JSON object; of the losses only the newest and the smoothed one, null where they are not finite."""
    found = asdict(view) | {"ended": view.ended}
    for stage, told in zip(view.stages, found["stages"], strict=True):
        if stage.training is not None:
            values = {name: value for name, value in told["training"].items() if name != "losses"} | {"share": stage.training.share}
            told["training"] = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
            }
    return found


def show_once(view: RunView, console: "Console") -> None:
    """Print one view."""
    console.print(_drawn(view, console))


def follow(folder: Path, console: "Console", refresh_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show the run until its last stage is done; a live view on a terminal, else plain lines.

    Raises:
        UserError: The folder is a file.
    """
    watcher = Watcher(_checked(folder))
    if console.is_terminal:
        _follow_live(watcher, str(folder), console, refresh_s, sleep)
    else:
        _follow_in_lines(watcher, str(folder), console, refresh_s, sleep)


def _follow_live(watcher: Watcher, folder: str, console: "Console", refresh_s: float, sleep: Callable[[float], None]) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            view = watcher.look()
            live.update(_drawn(view, console) if view else waiting(folder, watcher.problem), refresh=True)
            if view is not None and view.ended:
                return
            sleep(refresh_s)


def _follow_in_lines(watcher: Watcher, folder: str, console: "Console", refresh_s: float, sleep: Callable[[float], None]) -> None:
    lines = PlainLines(lambda line: _say(console, line), time.monotonic)
    while True:
        view = watcher.look()
        if view is None:
            lines.waiting(folder, watcher.problem)
        else:
            lines.show(view)
            if view.ended:
                return
        sleep(refresh_s)


def _say(console: "Console", line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()


def _drawn(view: RunView, console: "Console") -> "RenderableType":
    return render(view, width=console.width, ascii_only=console.options.ascii_only)


def _checked(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the folder of a run")
    return folder
