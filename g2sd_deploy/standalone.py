"""The stages' work on files that a person names, outside a run."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from g2sd_deploy.artifact import MARKER, read_artifact
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.predictors import open_predictor, verify_artifact
from g2sd_deploy.progress import make_progress

if TYPE_CHECKING:
    import torch

    from g2sd_deploy.data.images import ImageSet
    from g2sd_export.edge.preprocess import Preprocessing


def export(model: Path, on: str, split: str, out: Path, *, max_images: int | None) -> dict[str, Any]:
    """Export a classifier to the bundle `out`; returns the parity figures.

    Raises:
        UserError: Bad input, or `out` exists and is not empty.
        RunFailed: Parity failed.
    """
    from g2sd_deploy.settings import ExportSettings
    from g2sd_deploy.stages.context import BUNDLE, CLASSIFIER_FILE
    from g2sd_deploy.stages.export import export_classifier

    weights = model / CLASSIFIER_FILE if model.is_dir() else model
    if weights.suffix != ".safetensors" or not weights.is_file():
        raise UserError(f"{model}: is not a classifier; give a .safetensors file or a stage folder that holds {CLASSIFIER_FILE}")
    verify_artifact(model)
    predictor = open_predictor(weights, _cpu())
    images = _images(on, split, predictor.preprocessing, predictor.class_names or (), max_images)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists and is not empty; give a new folder for the bundle")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            exported = export_classifier(weights, images, ExportSettings(), folder=Path(scratch), name=out.name, provenance={})
            if exported.failure:
                raise RunFailed(exported.failure)
            if out.exists():
                out.rmdir()
            (Path(scratch) / BUNDLE).rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give a folder you may write to") from None
    parity = exported.parity.to_dict()
    return {key: parity[key] for key in ("verdict", "num_images", "flipped", "max_abs_logit_diff", "top1_reference", "top1_candidate")}


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


def _images(on: str, split: str, pre: "Preprocessing", class_names: tuple[str, ...], limit: int | None) -> "ImageSet":
    from g2sd_deploy.data.decoding import decode_set
    from g2sd_deploy.data.sources import guess_kind, open_source

    source = open_source(guess_kind(on), on, splits=(split,))
    if source.class_names != class_names:
        raise UserError(
            f"--on {on}: its {len(source.class_names)} classes ({', '.join(source.class_names[:3])}, ...) are not the model's "
            f"{len(class_names)} ({', '.join(class_names[:3])}, ...)"
        )
    return decode_set(source.samples(split, limit), pre, lambda done, total: None)


def _cpu() -> "torch.device":
    import torch

    return torch.device("cpu")
