"""Read the metrics of a task's evaluation into a DenseEvaluation; each field is checked here, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import cast, get_args

from g2sd_deploy.errors import UserError
from g2sd_deploy.report.dense_scores import BY_CLASS, MEASURES, DenseEvaluation, DenseModel, Picture, TaskKind
from g2sd_deploy.report.fields import Fields
from g2sd_deploy.report.scores import MODELS, Interval

_PNG = b"\x89PNG\r\n\x1a\n"
_OF_OBJECTS = ("box", "mask")
_OWN_KEY = {"miou": "iou_by_class"}  # of the figures by class; else the measure's name with _by_class


def task_of(resolved: Fields) -> TaskKind | None:
    """The task of a run's recipe; None for a classifier.

    Raises:
        UserError: It is none that the report knows.
    """
    return _kind(resolved.child("task"), "kind") if resolved.has("task") else None


def read_dense_evaluation(metrics: Fields, folder: Path, task: TaskKind) -> DenseEvaluation:
    """Everything that the metrics of a task's evaluation say, and the pictures beside them.

    Args:
        metrics: What the evaluate stage wrote.
        folder: Its artifact, which holds the pictures.
        task: Of the run's recipe.

    Raises:
        UserError: A field is missing, of another type, outside its range, or does not fit the others; or a picture is not there.
    """
    if _kind(metrics, "task") != task:
        metrics.refuse("task", f"{task}, the task of the run's recipe")
    class_names = metrics.texts("class_names")
    models = {name: _model(name, fields, task, class_names) for name, fields in metrics.child("models").named_children().items()}
    if not models or set(models) - set(MODELS):
        metrics.refuse("models", f"one or more of {', '.join(MODELS)}")
    pictures = metrics.children("pictures") if metrics.has("pictures") else ()
    return DenseEvaluation(
        task=task,
        num_images=metrics.count("num_images"),
        class_names=class_names,
        models=models,
        pictures=tuple(_picture(fields, folder) for fields in pictures),
        shown_score=metrics.maybe_number("shown_score") if metrics.has("shown_score") else None,
    )


def maybe_dense_figures(fields: Fields) -> Mapping[str, float | None]:
    """Numbers of a proof of a task: shares, differences and metrics by name; empty for a classifier's."""
    return {key: fields.maybe_number(key) for key in PROOF_FIGURES if key in fields.values}


PROOF_FIGURES = (
    "changed_share",
    "worst_changed_share",
    "unmatched_share",
    "max_score_diff",
    "max_box_shift_px",
    "mask_changed_share",
    *(f"{metric}_{side}" for metric in ("miou", "ap", "mask_ap") for side in ("reference", "candidate")),
)


def _kind(fields: Fields, key: str) -> TaskKind:
    kind = fields.text(key)
    if kind not in get_args(TaskKind):
        fields.refuse(key, f"one of {', '.join(get_args(TaskKind))}")
    return cast(TaskKind, kind)


def _model(name: str, fields: Fields, task: TaskKind, class_names: tuple[str, ...]) -> DenseModel:
    return DenseModel(
        name=name,
        num_parameters=fields.count("num_parameters"),
        figures=dict(_figures(fields, task)),
        intervals={key: ends for key in BY_CLASS[task] if (ends := _interval(fields, f"{key}_interval"))},
        by_class={key: _by_class(fields, _OWN_KEY.get(key, f"{key}_by_class"), class_names) for key in BY_CLASS[task]},
    )


def _figures(fields: Fields, task: TaskKind) -> Iterator[tuple[str, float | None]]:
    """Every measure of the task; those of boxes and masks each lie in an object of their own."""
    for measure in MEASURES[task]:
        kind, _, rest = measure.key.partition("_")
        where, key = (fields.child(kind), rest) if kind in _OF_OBJECTS else (fields, measure.key)
        if key not in where.values:
            where.refuse(key, "a number, or null where it is not defined")
        yield measure.key, _share(where, key)


def _share(fields: Fields, key: str) -> float | None:
    value = fields.maybe_number(key)
    return value if value is None or 0 <= value <= 1 else fields.refuse(key, "a share of 0 to 1")


def _interval(fields: Fields, key: str) -> Interval | None:
    if not fields.has(key):
        return None
    ends = fields.number_list(key)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
        fields.refuse(key, "two shares of 0 to 1, the ends of an interval")
    return ends[0], ends[1]


def _by_class(fields: Fields, key: str, class_names: tuple[str, ...]) -> Mapping[str, float | None]:
    found = fields.child(key)
    if set(found.values) != set(class_names):
        odd = sorted(set(found.values) ^ set(class_names))
        fields.refuse(key, f"a field for each of class_names and no other, not so for {', '.join(odd[:3])}")
    return {name: _share(found, name) for name in class_names}


def _picture(fields: Fields, folder: Path) -> Picture:
    for wanted in ("image", "truth"):
        fields.text(wanted)
    files = {name: fields.text(name) for name in fields.values}
    return Picture(files, {name: _png(fields, name, folder) for name in files})


def _png(fields: Fields, name: str, folder: Path) -> bytes:
    file = fields.text(name)
    if PurePath(file).name != file:
        fields.refuse(name, "the name of a file in the same folder")
    path = folder / file
    if not path.is_file():
        raise UserError(f"{fields.where}: {name} is {file}, which is not in {folder.name}. Run its stage again with --force.")
    content = path.read_bytes()
    if not content.startswith(_PNG):
        raise UserError(f"{folder.name}/{file} is no PNG image. It was changed or cut off: run its stage again with --force.")
    return content
