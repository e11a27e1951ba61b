"""The work of `g2sd evaluate` where the models answer for pixels or objects: weights and bundles side by side on sets with a truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.dense_set import about, set_for
from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluate_command import STAGE, Request, named_models

if TYPE_CHECKING:
    from rich.table import Table

    from g2sd_deploy.data.dense.annotations import DenseSamples
    from g2sd_deploy.predictors.dense_models import DensePredictor
    from g2sd_deploy.progress import Progress
    from g2sd_deploy.runtime import Runtime

_BATCH = 8
_MIB = 1 << 20


def dense_places(request: Request) -> dict[str, Path]:
    """Where the models of a request lie if they answer for pixels or objects; nothing if they are others.

    Raises:
        UserError: Some are and some are not, or one is damaged.
    """
    from g2sd_deploy.predictors.dense_models import dense_place

    asked = named_models(request.models)
    found = {name: place for name, model in asked.items() if (place := dense_place(model)) is not None}
    if found and (others := [name for name in asked if name not in found]):
        raise UserError(f"{others[0]} is no segmenter or detector, and {next(iter(found))} is one; score them with two commands")
    return found


def evaluate_dense(
    request: Request, places: Mapping[str, Path], runtime: "Runtime", progress: "Progress", *, ignore_zero: bool
) -> dict[str, Any]:
    """Score segmenters, or detectors, on folders of masks, or of COCO's layout.

    Args:
        request: What is asked for.
        places: As `dense_places` found them.
        runtime: Where to compute; with several processes the first one does.
        progress: Told how far it is.
        ignore_zero: As `DataSettings.ignore_zero`.

    Returns:
        `task`, `class_names`, `sets` by name (`num_images`, `num_skipped`, `skipped`), and `models` by name: `runtime`, `num_parameters`,
        `model_bytes`, `digest`, and under `sets` what `score_segmenter` or `score_detector` says.

    Raises:
        UserError: An option is for classifiers, a model or a set cannot be opened, or they do not fit together.
        RunFailed: An image or an answer cannot be used.
    """
    _check(request)
    return runtime.ranks.from_main(lambda: _scored(request, places, runtime, progress, ignore_zero))


def _scored(request: Request, places: Mapping[str, Path], runtime: "Runtime", progress: "Progress", ignore_zero: bool) -> dict[str, Any]:
    from g2sd_deploy.predictors.dense_models import open_dense

    models = [one for name, place in places.items() for one in open_dense(name, place, runtime.device)]
    first = models[0]
    for one in models:
        if (one.task.kind, one.class_names) != (first.task.kind, first.class_names):
            raise UserError(f"{first.name} is for {about(first)}, and {one.name} is for {about(one)}; score them with two commands")
    opened = {name: set_for(first, name, ignore_zero=ignore_zero) for name in request.sets}
    samples = {name: source.samples(request.split, request.max_images) for name, source in opened.items()}
    described = {one.name: _described(one) for one in models}
    metrics = {"task": first.task.kind, "class_names": list(first.class_names), "sets": dict[str, Any](), "models": described}
    progress.begin(STAGE)
    try:
        for model in models:
            _score(model, samples, request, (runtime, progress), metrics)
    except BaseException:
        progress.abort()
        raise
    progress.end()
    return metrics


def _score(
    model: "DensePredictor",
    samples: Mapping[str, "DenseSamples"],
    request: Request,
    by: "tuple[Runtime, Progress]",
    metrics: dict[str, Any],
) -> None:
    """Add a model's figures on every set."""
    from g2sd_deploy.evaluation.dense_scoring import Scoring, score_detector, score_segmenter

    runtime, progress = by
    infer = model.open(runtime.num_threads)
    score = score_segmenter if model.task.kind == "segmentation" else score_detector
    scoring = Scoring(request.seed, request.settings.max_bad_images, request.settings.batch_size or _BATCH)
    for name, images in samples.items():
        found = score(infer, images, model.task, model.class_names, lambda done, total: progress.update(done, total, model.name), scoring)
        metrics["sets"][name] = {key: found.pop(key) for key in ("num_images", "num_skipped", "skipped")}
        metrics["models"][model.name]["sets"][name] = found


def _described(model: "DensePredictor") -> dict[str, Any]:
    told = {"runtime": model.runtime, "num_parameters": model.num_parameters, "model_bytes": model.model_bytes, "digest": model.digest}
    return told | {"sets": dict[str, Any]()}


def _check(request: Request) -> None:
    """Refuse options that only classifiers have.

    Raises:
        UserError: One is given.
    """
    settings, asked = request.settings, request.preprocessing
    said = {} if asked is None else vars(asked)
    given = {
        "--teacher": request.teacher is not None,
        "--class-map": request.class_map is not None,
        "--restrict": request.restrict,
        "--as-stored": request.as_stored,
        "--corruptions": settings.corruptions is not None,
        "--occlusion": settings.occlusion is not None,
        "--similarity": settings.similarity is not None,
        **{f"--{name.replace('_', '-')}": value is not None for name, value in said.items()},
        "--save-predictions": request.save_predictions,
        "--out": request.out is not None,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        instead = {"--out": "keep what --json prints", "--teacher": "name it as one of the models"}.get(wrong[0], "leave it out")
        raise UserError(f"{wrong[0]}: for classifiers only, and {request.models[0]} is a segmenter or detector; {instead}")


def dense_tables(metrics: Mapping[str, Any]) -> "list[Table]":
    """A table for each set: a row for each model."""
    return [_table(name, about, metrics) for name, about in metrics["sets"].items()]


def _table(name: str, about: Mapping[str, Any], metrics: Mapping[str, Any]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    of_pixels = metrics["task"] == "segmentation"
    columns = ("mIoU %", "mAcc %", "aAcc %") if of_pixels else ("box AP %", "AP50 %", "AP75 %", "mask AP %")
    skipped = f", {about['num_skipped']:,} left out" if about["num_skipped"] else ""
    table = Table(title=Text(f"{name}: {about['num_images']:,} images{skipped}"), title_justify="left", box=None, pad_edge=False)
    for heading in ("model", "runtime", "parameters", "MiB", *columns):
        table.add_column(heading, justify="left" if heading in ("model", "runtime") else "right", overflow="fold")
    for model, told in metrics["models"].items():
        scores = told["sets"][name]
        cells = _pixel_cells(scores) if of_pixels else _object_cells(scores)
        size = f"{told['model_bytes'] / _MIB:.3g}"
        table.add_row(*map(Text, (model, told["runtime"], f"{told['num_parameters']:,}", size, *cells)))
    return table


def _pixel_cells(scores: Mapping[str, Any]) -> tuple[str, ...]:
    return _percent(scores["miou"], scores["miou_interval"]), _percent(scores["macc"]), _percent(scores["aacc"])


def _object_cells(scores: Mapping[str, Any]) -> tuple[str, ...]:
    box, mask = scores["box"], scores["mask"]
    return (_percent(box["ap"], scores["box_ap_interval"]), *map(_percent, (box["ap50"], box["ap75"], mask["ap"])))


def _percent(share: float | None, ends: Sequence[float] | None = None) -> str:
    """With its 95 % interval."""
    from g2sd_deploy.report import formatting

    shown = formatting.percent(share).removesuffix(" %")
    return f"{shown} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if share is not None and ends is not None else shown
