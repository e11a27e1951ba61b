"""`g2sd report`: the page of a run, or of several side by side."""

from pathlib import Path
from typing import Annotated

import typer

FoldersArg = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folder; several are compared.")]
OutOpt = Annotated[
    Path | None, typer.Option("--out", help="Folder to write to; by default the run folder itself or, for several runs, the current one.")
]


def report(folders: FoldersArg, out: OutOpt = None) -> None:
    """Write the report of a run, finished or not, as HTML, Markdown and JSON; of several runs, a comparison."""
    from g2sd_deploy.report_command import write_report

    for path in write_report(folders, out):
        typer.echo(str(path))
