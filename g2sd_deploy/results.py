"""What a finished run says on stdout."""

import json
from pathlib import Path

from rich.console import Console

from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.pipeline import STAGES

_SHOWN = {"bundle": Path("export") / "bundle", "report": Path("report") / "report.html"}


def print_result(folder: Path, as_json: bool) -> None:
    """Result table of a run folder and the paths of what it made; as JSON, every stage's metrics."""
    paths = {name: str(folder / path) for name, path in _SHOWN.items() if (folder / path).exists()}
    if as_json:
        found = {name: read_artifact(folder / name) for name in STAGES}
        stages = {name: artifact.metrics for name, artifact in found.items() if artifact is not None}
        Console(soft_wrap=True).out(json.dumps({"folder": str(folder), "paths": paths, "stages": stages}), highlight=False)
        return
    from g2sd_deploy.report import read_run, result_table

    console = Console()
    if (folder / "evaluate").is_dir():
        console.print(result_table(read_run(folder)))
    for name, path in paths.items():
        console.out(f"{name}: {path}", highlight=False)
