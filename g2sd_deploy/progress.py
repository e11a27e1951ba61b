"""Progress of long work on stderr: a live bar for a person, plain lines for a pipe or CI."""

import sys
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

_PLAIN_EVERY_S = 15.0


class Progress(Protocol):
    """How a stage tells what it is doing."""

    def begin(self, title: str) -> None:
        """Start a stage."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report work done so far."""

    def end(self, note: str = "") -> None:
        """End the stage."""

    def tell(self, text: str) -> None:
        """Tell something that is no problem."""

    def warn(self, text: str) -> None:
        """Tell something that a person should know before the result."""

    def abort(self) -> None:
        """Stop showing a stage that did not end well."""


class BarProgress:
    """A live bar with loss, speed and time left."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._console = console
        self._columns = columns
        self._bar: RichBar | None = None
        self._task = TaskID(0)
        self._title = ""
        self._start = 0.0

    def begin(self, title: str) -> None:
        self._title, self._start = title, time.monotonic()
        self._bar = RichBar(*self._columns, console=self._console, transient=True)
        self._task = self._bar.add_task(title, total=None, note="")
        self._bar.start()

    def update(self, done: int, total: int, note: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, note=note)

    def end(self, note: str = "") -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._console.print(f"[green]done[/] {self._title:<10} {note}[dim]{time.monotonic() - self._start:.1f} s[/]", highlight=False)

    def tell(self, text: str) -> None:
        self._console.print(f"{self._title}: {escape(text)}", highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self._console.print(f"[bold yellow]warning[/] {self._title}: {escape(text)}", highlight=False, soft_wrap=True)

    def abort(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LineProgress:
    """A plain line at the start, now and then, and at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._title = ""
        self._start = self._last = 0.0

    def begin(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._say("starts")

    def update(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= _PLAIN_EVERY_S:
            self._last = now
            left = (now - self._start) * (total - done) / max(done, 1)
            self._say(f"{100 * done / total:.0f}% ({done}/{total}){' ' + note if note else ''}, {left:.0f} s left")

    def end(self, note: str = "") -> None:
        self._say(f"done in {time.monotonic() - self._start:.1f} s{' ' + note if note else ''}")

    def tell(self, text: str) -> None:
        self._say(text)

    def warn(self, text: str) -> None:
        self._say(f"WARNING {text}")

    def abort(self) -> None:
        self._say("stopped")

    def _say(self, text: str) -> None:
        self._stream.write(f"{self._title}: {text}\n")
        self._stream.flush()


class SilentProgress:
    """No output, for callers that have their own."""

    def begin(self, title: str) -> None:
        return

    def update(self, done: int, total: int, note: str = "") -> None:
        return

    def end(self, note: str = "") -> None:
        return

    def tell(self, text: str) -> None:
        return

    def warn(self, text: str) -> None:
        return

    def abort(self) -> None:
        return


def make_progress() -> Progress:
    """A bar where stderr is a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        return BarProgress(Console(stderr=True))
    return LineProgress(sys.stderr)
