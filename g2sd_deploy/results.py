"""What a finished run says on stdout."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from g2sd_deploy.artifact import read_artifact

_SHOWN = {"bundle": Path("export") / "bundle", "report": Path("report") / "report.html"}


def print_result(folder: Path, stages_done: Sequence[str], as_json: bool) -> None:
    """Result table of a run folder and the paths of what it made; as JSON, every stage's metrics.

    Args:
        folder: The run's folder.
        stages_done: Stages that are up to date; what others left there belongs to other settings and is not shown.
        as_json: One JSON object in place of the table.
    """
    paths = {name: str(folder / path) for name, path in _SHOWN.items() if path.parts[0] in stages_done and (folder / path).exists()}
    if as_json:
        found = {name: read_artifact(folder / name) for name in stages_done}
        stages = {name: artifact.metrics for name, artifact in found.items() if artifact is not None}
        Console(soft_wrap=True).out(json.dumps({"folder": str(folder), "paths": paths, "stages": stages}), highlight=False)
        return
    from g2sd_deploy.report import read_run, result_table

    console = Console()
    if "evaluate" in stages_done:
        console.print(result_table(read_run(folder)))
    for name, path in paths.items():
        console.out(f"{name}: {path}", highlight=False)
