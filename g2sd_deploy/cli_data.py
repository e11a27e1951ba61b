"""`g2sd data`: prepare a data set for training, and verify one."""

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.errors import EXIT_FAILED, Stopped, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from g2sd_deploy.data.images import Skipped
    from g2sd_deploy.data.verifying import Finding, Verified

data_app = typer.Typer(help="Prepare a data set for training, or verify one.", no_args_is_help=True, rich_markup_mode=None)

SourceName = Literal["idx", "folder", "shards", "huggingface", "numpy"]
SrcArg = Annotated[str, typer.Argument(metavar="SRC", help="Data set: SPLIT/CLASS/IMAGE folders, shards, or another source of a recipe.")]
SourceOpt = Annotated[SourceName | None, typer.Option("--source", help="Kind of SRC, as data.source; guessed from its files by default.")]
SplitsOpt = Annotated[str | None, typer.Option("--splits", help="Comma-separated splits; all by default.")]
WorkersOpt = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; one per CPU core by default.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]

_PER_SHARD = 1000
_WIDE = 200
_MOST_ROWS = 20
_MOST_SKIPPED = 100
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@data_app.command("prepare")
@tell_errors
def prepare_data(
    src: SrcArg,
    dst: Annotated[Path, typer.Argument(metavar="DST", help="New or empty folder, or one that the same command left unfinished.")],
    short_side: Annotated[
        int | None,
        typer.Option("--short-side", min=16, help="Shrink larger images to this short side, in pixels; all sizes are kept by default."),
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="Write tar shards (webdataset); class folders by default.")] = False,
    images_per_shard: Annotated[int | None, typer.Option("--images-per-shard", min=1, help="Images of a shard; 1000 by default.")] = None,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="JPEG quality of images that are shrunk.")] = 95,
    splits: SplitsOpt = None,
    max_bad: Annotated[int, typer.Option("--max-bad", min=0, help="Bad images that may be left out; more make the command fail.")] = 0,
    workers: WorkersOpt = None,
    source: SourceOpt = None,
) -> None:
    """Shrink, re-encode and shard a data set; stopped at any moment, the same command goes on. Prints the manifest's path.

    The bytes do not depend on the number of workers. Images that are small enough are copied as they are; EXIF orientation is ignored,
    as in training. Training images are stored in an order that mixes the classes.
    """
    if images_per_shard is not None and not shards:
        raise UserError("--images-per-shard is given without --shards; add --shards, or leave it out")
    from g2sd_deploy.data import preparing
    from g2sd_deploy.data.encoding import Encoding
    from g2sd_deploy.data.sources import guess_kind, open_source
    from g2sd_deploy.data.splits import chosen_splits
    from g2sd_export.edge.runner import available_cpus

    name = _check_apart(src, dst)
    kind = source or guess_kind(src)
    chosen = chosen_splits(kind, src, splits)
    options = preparing.Options(Encoding(short_side, quality), shards, images_per_shard or _PER_SHARD, chosen)
    opened = open_source(kind, src, splits=chosen)
    try:
        with _progress("prepare") as tick, _interrupted("what is prepared is kept, and the same command goes on from there"):
            outcome = preparing.prepare(opened, name, dst, options, workers=workers or available_cpus(), max_bad=max_bad, tick=tick)
    except preparing.TooManyBad as bad:
        _print_skipped(bad.skipped)
        raise
    _print_skipped(outcome.skipped)
    counts = ", ".join(f"{num:,} of {split}" for split, num in outcome.num.items())
    left_out = f", {len(outcome.skipped):,} left out" if outcome.skipped else ""
    typer.echo(f"{'prepared' if outcome.fresh else 'is prepared already'}: {counts}{left_out}", err=True)
    typer.echo(str(outcome.manifest))


@data_app.command("verify")
@tell_errors
def verify_data(
    src: SrcArg, splits: SplitsOpt = None, workers: WorkersOpt = None, source: SourceOpt = None, as_json: JsonOpt = False
) -> None:
    """Decode every image and list what training would trip over; exit status 1 if there is anything."""
    from g2sd_deploy.data.sources import guess_kind
    from g2sd_deploy.data.splits import chosen_splits
    from g2sd_deploy.data.verifying import verify
    from g2sd_export.edge.runner import available_cpus

    kind = source or guess_kind(src)
    with _progress("verify") as tick, _interrupted("run it again for its findings"):
        verified = verify(kind, src, chosen_splits(kind, src, splits), workers=workers or available_cpus(), tick=tick)
    if as_json:
        typer.echo(json.dumps({"num": verified.num, "errors": verified.count("error"), "findings": list(map(_plain, verified.findings))}))
    else:
        _print_findings(verified)
    if verified.count("error"):
        raise typer.Exit(EXIT_FAILED)


def _check_apart(src: str, dst: Path) -> str:
    """Refuse folders that lie in one another; returns the source's name."""
    from g2sd_deploy.data.sources import expand
    from g2sd_deploy.data.sources.base import is_remote

    if is_remote(src) or ":" in src:
        return src.rstrip("/").rpartition("/")[2]
    source, target = expand(src).resolve(), dst.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        inside = "the same folder" if source == target else f"{'SRC' if source.is_relative_to(target) else 'DST'} lies inside the other"
        raise UserError(f"SRC {src} and DST {dst}: {inside}; give a DST beside SRC")
    if dst.exists() and not dst.is_dir():
        raise UserError(f"{dst}: is a file; give a new folder")
    return source.name


def _shown(name: str) -> str:
    """A file name as text, also where it is none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _plain(finding: "Finding") -> dict[str, str]:
    return {
        "severity": finding.severity,
        "problem": finding.problem,
        "name": _shown(finding.name),
        "detail": finding.detail,
        "advice": finding.advice,
    }


def _print_skipped(skipped: "list[Skipped]") -> None:
    """Images that were left out, as a table on stderr."""
    if not skipped:
        return
    table = _new_table("left out", "reason")
    for one in skipped[:_MOST_SKIPPED]:
        table.add_row(*_texts(_shown(one.name), one.reason))
    if len(skipped) > _MOST_SKIPPED:
        table.add_row(f"and {len(skipped) - _MOST_SKIPPED:,} more", "in the manifest once it is written")
    _console(stderr=True).print(table)


def _print_findings(verified: "Verified") -> None:
    """Findings as a table on stdout: notes of one kind share a row, and of other kinds the first ones are shown."""
    table = _new_table("", "where", "problem", "what to do")
    left = Counter(finding.problem for finding in verified.findings)
    rows: Counter[str] = Counter()
    for finding in verified.findings:
        rows[finding.problem] += 1
        most = 1 if finding.severity == "note" else _MOST_ROWS
        left[finding.problem] -= 1
        if rows[finding.problem] > most:
            continue
        more = left[finding.problem] if rows[finding.problem] == most else 0
        where = _shown(finding.name) + (f" and {more:,} more" if more else "")
        problem = f"{finding.problem}: {finding.detail}" if finding.detail else finding.problem
        table.add_row(*_texts(finding.severity, where, problem, finding.advice, style=_STYLES[finding.severity]))
    console = _console(stderr=False)
    if verified.findings:
        console.print(table)
    console.print(
        _summary(verified) + ("; --json lists each of them" if table.row_count < len(verified.findings) else ""),
        soft_wrap=True,
        highlight=False,
    )


def _summary(verified: "Verified") -> str:
    counts = ", ".join(f"{num:,} of {split}" for split, num in verified.num.items())
    words = [f"{verified.count('error'):,} errors", f"{verified.count('warning'):,} warnings", f"{verified.count('note'):,} notes"]
    verdict = "training would trip over the errors" if verified.count("error") else "nothing that training would trip over"
    return f"looked at {counts}: {', '.join(words)}; {verdict}"


def _new_table(*headings: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _texts(*cells: str, style: str = "") -> "Iterator[Text]":
    """Cells whose first is coloured; nothing in them is markup."""
    from rich.text import Text

    for i, cell in enumerate(cells):
        yield Text(cell, style=style if i == 0 else "")


def _console(*, stderr: bool) -> "Console":
    """As wide as the terminal; wide where there is none."""
    from rich.console import Console

    return Console(stderr=stderr, width=None if (sys.stderr if stderr else sys.stdout).isatty() else _WIDE)


@contextmanager
def _progress(title: str) -> "Iterator[Callable[[int, int], None]]":
    """Shows images that are done; silent until the first count."""
    from g2sd_deploy.progress import make_progress

    progress = make_progress()
    begun = False

    def tick(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            progress.begin(title)
        begun = True
        progress.update(done, total, "images")

    try:
        yield tick
    except BaseException:
        progress.abort() if begun else None
        raise
    progress.end() if begun else None


@contextmanager
def _interrupted(what: str) -> "Iterator[None]":
    """Say what Ctrl-C leaves."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, f"stopped; {what}") from None
