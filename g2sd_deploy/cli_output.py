"""What commands share to show findings and progress: the result on stdout, the rest on stderr."""

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from g2sd_deploy.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from g2sd_deploy.data.findings import Finding

_WIDE = 200
_MOST_ROWS = 20
_MIB = 1 << 20
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def shown(name: str) -> str:
    """A file name as text, also where it is none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def print_json(findings: "Sequence[Finding]", **facts: Any) -> None:
    """Findings, the number of errors among them and other facts, as one JSON object on stdout."""
    errors = sum(finding.severity == "error" for finding in findings)
    typer.echo(json.dumps({**facts, "errors": errors, "findings": list(map(_plain, findings))}))


def _plain(finding: "Finding") -> dict[str, str]:
    return {
        "severity": finding.severity,
        "problem": finding.problem,
        "name": shown(finding.name),
        "detail": finding.detail,
        "advice": finding.advice,
    }


def print_findings(findings: "Sequence[Finding]", looked_at: str, verdict: str) -> None:
    """Findings as a table on stdout: notes of one kind share a row, and of other kinds the first ones are shown.

    Args:
        findings: In the order to show them.
        looked_at: What was looked at, for the line at the end.
        verdict: What that means.
    """
    table = new_table("", "where", "problem", "what to do")
    left = Counter(finding.problem for finding in findings)
    rows: Counter[str] = Counter()
    for finding in findings:
        rows[finding.problem] += 1
        most = 1 if finding.severity == "note" else _MOST_ROWS
        left[finding.problem] -= 1
        if rows[finding.problem] > most:
            continue
        more = left[finding.problem] if rows[finding.problem] == most else 0
        where = shown(finding.name) + (f" and {more:,} more" if more else "")
        problem = f"{finding.problem}: {finding.detail}" if finding.detail else finding.problem
        table.add_row(*texts(finding.severity, where, problem, finding.advice, style=_STYLES[finding.severity]))
    printed = console(stderr=False)
    if findings:
        printed.print(table)
    severities: Counter[str] = Counter(finding.severity for finding in findings)
    words = ", ".join(f"{severities[severity]:,} {severity}s" for severity in _STYLES)
    rest = "; --json lists each of them" if table.row_count < len(findings) else ""
    printed.print(f"looked at {looked_at}: {words}; {verdict}{rest}", soft_wrap=True, highlight=False)


def new_table(*headings: str) -> "Table":
    """A table without lines, whose cells fold."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def texts(*cells: str, style: str = "") -> "Iterator[Text]":
    """Cells whose first is coloured; nothing in them is markup."""
    from rich.text import Text

    for i, cell in enumerate(cells):
        yield Text(cell, style=style if i == 0 else "")


def console(*, stderr: bool) -> "Console":
    """As wide as the terminal; wide where there is none."""
    from rich.console import Console

    return Console(stderr=stderr, width=None if (sys.stderr if stderr else sys.stdout).isatty() else _WIDE)


@contextmanager
def progress_of_images(title: str) -> "Iterator[Callable[[int, int], None]]":
    """Shows images that are done; silent until the first count."""
    with _progress(title) as update:
        yield lambda done, total: update(done, total, "images")


@contextmanager
def progress_of_bytes(title: str) -> "Iterator[Callable[[int, int | None], None]]":
    """Shows bytes that are done, out of a number that may not be known; silent until the first count."""
    with _progress(title) as update:
        yield lambda done, total: update(done // _MIB, max(1, (total or done) // _MIB), f"{done / _MIB:,.0f} MiB")


@contextmanager
def _progress(title: str) -> "Iterator[Callable[[int, int, str], None]]":
    from g2sd_deploy.progress import make_progress

    progress = make_progress()
    begun = False

    def update(done: int, total: int, note: str) -> None:
        nonlocal begun
        if not begun:
            progress.begin(title)
        begun = True
        progress.update(done, total, note)

    try:
        yield update
    except BaseException:
        progress.abort() if begun else None
        raise
    progress.end() if begun else None


@contextmanager
def interrupted(what: str) -> "Iterator[None]":
    """Say what Ctrl-C leaves."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, f"stopped; {what}") from None
