"""`g2sd watch`: a live view of a run in progress."""

import json
from pathlib import Path
from typing import Annotated

import typer

from g2sd_deploy.cli_output import console
from g2sd_deploy.errors import UserError

RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, also of another machine; it need not exist yet.")]
OnceOpt = Annotated[bool, typer.Option("--once", help="Show the run as it is now, and end.")]
RefreshOpt = Annotated[float, typer.Option("--refresh", min=0.1, max=3600.0, help="Seconds between two looks.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="With --once: print one JSON object on stdout.")]


def watch(run: RunArg, once: OnceOpt = False, refresh: RefreshOpt = 2.0, as_json: JsonOpt = False) -> None:
    """Watch a run in progress: stages, loss, speed, time left, warnings. Ends with the last stage, or with Ctrl-C."""
    from g2sd_deploy import watching

    if as_json and not once:
        raise UserError("--json: shows one moment; add --once")
    if once:
        view = watching.snapshot(run)
        typer.echo(json.dumps(watching.as_json(view))) if as_json else watching.show_once(view, console(stderr=False))
        return
    try:
        watching.follow(run, console(stderr=False), refresh)
    except KeyboardInterrupt:
        return
