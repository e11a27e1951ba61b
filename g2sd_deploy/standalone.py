"""The stages' work on files that a person names, outside a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from g2sd_deploy.artifact import MARKER, read_artifact
from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors import open_predictor
from g2sd_deploy.progress import make_progress

if TYPE_CHECKING:
    import torch


def profile(models: Sequence[Path], *, batch: str, threads: int, repeats: int) -> list[dict[str, Any]]:
    """Latency rows of each model on this machine's CPU.

    Raises:
        UserError: A model cannot be opened, or `batch` is not a list of whole numbers.
    """
    from g2sd_deploy.settings import ProfileSettings
    from g2sd_deploy.stages.profile import time_predictors

    parts = [part.strip() for part in batch.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--batch {batch}: wanted whole numbers above 0 with commas between them, for example 1,8")
    settings = ProfileSettings(batches=tuple(int(part) for part in parts), threads=threads, repeats=repeats)
    predictors = [(str(path), open_predictor(path, _cpu())) for path in models]
    progress = make_progress()
    progress.begin("profile")
    rows = time_predictors(predictors, settings, progress.update)
    progress.end()
    return rows


def report(folder: Path, out: Path) -> list[Path]:
    """Write report.html and report.md of a run to `out`.

    Raises:
        UserError: The folder is no run, an artifact in it was changed, or `out` cannot be written.
    """
    from g2sd_deploy.report import read_run, render_report

    for marker in sorted(folder.glob(f"*/{MARKER}")):
        artifact = read_artifact(marker.parent)
        if artifact is not None:
            artifact.verify()

    rendered = render_report(read_run(folder))
    paths = [out / "report.html", out / "report.md"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, (rendered.html, rendered.markdown), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give a folder you may write to") from None
    return paths


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Rows as a table, or as one JSON object."""
    console = Console()
    if as_json:
        Console(soft_wrap=True).out(json.dumps({"rows": rows}), highlight=False)
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


def _cpu() -> "torch.device":
    import torch

    return torch.device("cpu")
