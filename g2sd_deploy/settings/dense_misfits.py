"""What does not go together in the recipe of a task, and what needs a task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from g2sd_deploy.settings.base import Settings
from g2sd_deploy.settings.dense import DetectionSettings, SegmentationSettings
from g2sd_deploy.settings.networks import EncoderSettings

if TYPE_CHECKING:
    from g2sd_deploy.settings.recipe import Recipe

_METHODS = {"segmentation": ("finetune", "cwd"), "detection": ("finetune", "frs")}
_TEACHERS = {"segmentation": "segmenter", "detection": "detector"}
_SOURCES = {"segmentation": ("scenes", "masks", "huggingface"), "detection": ("scenes", "coco")}
_FEWEST_BLOCKS = 4
_OF_CLASSES = {
    "data": ("store", "stored_px", "resize_px", "shuffle_shards", "cache_gib"),
    "teacher": ("classifier",),
    "finetune": ("augment", "mix", "pooling"),
    "specific": ("augment", "mix", "pooling"),
    "baseline": ("augment", "mix", "pooling"),
    "evaluate": ("corruptions", "occlusion", "similarity", "sets", "max_bad_images"),
    "export": ("robustness", "token_merging"),
}
"""Settings of classifiers, which nothing reads in the recipe of a task."""


def dense_misfits(recipe: "Recipe") -> list[str]:
    """What to tell; empty where all goes together."""
    task = recipe.task
    if task is None:
        return _without_task(recipe)
    return [*_of_classifiers(recipe), *_sources(recipe, task), *_methods(recipe, task), *_shapes(recipe, task), *_windows(recipe, task)]


def _without_task(recipe: "Recipe") -> list[str]:
    source, method, teacher = recipe.data.source, getattr(recipe.specific, "method", ""), recipe.teacher
    dense = next((part for part in ("segmenter", "detector") if getattr(teacher, part, None) is not None), None)
    checks = [
        (source in ("scenes", "masks", "coco"), f"data.source {source} is for a task; add task: {{kind: segmentation}} or detection"),
        (recipe.data.scenes is not None, "data.scenes is for data.source scenes, which is for a task; remove it"),
        (recipe.data.ignore_zero, "data.ignore_zero is for the masks of a task; remove it, or add task: {kind: segmentation}"),
        (recipe.data.classes is not None, "data.classes is for the masks of a task; remove it, or add task: {kind: segmentation}"),
        (method == "cwd", "specific.method cwd is for a task; add task: {kind: segmentation}"),
        (method == "frs", "specific.method frs is for a task; add task: {kind: detection}"),
        (dense is not None, f"teacher.{dense} is for a task; add task, or name a teacher.classifier"),
    ]
    return [text for bad, text in checks if bad]


def _of_classifiers(recipe: "Recipe") -> list[str]:
    """Settings of classifiers that were set all the same."""
    assert recipe.task is not None
    found = [f"{section}.{name}" for section, names in _OF_CLASSES.items() for name in names if _is_changed(getattr(recipe, section), name)]
    instead = "; how training images are augmented is set in task.augment" if any(name.endswith("augment") for name in found) else ""
    problems = [f"{', '.join(found)}: set for classifiers, and not read with task {recipe.task.kind}; remove it{instead}"] if found else []
    return problems + (["quantise is for classifiers, not for a task; remove it"] if recipe.quantise is not None else [])


def _is_changed(section: Settings | None, name: str) -> bool:
    """Whether a setting has another value than its default; a resolved recipe gives them all."""
    return section is not None and getattr(section, name) != type(section).model_fields[name].get_default()


def _sources(recipe: "Recipe", task: SegmentationSettings | DetectionSettings) -> list[str]:
    data, problems = recipe.data, []
    if data.source not in _SOURCES[task.kind]:
        problems.append(
            f"data.source is {data.source}, which knows no {_TRUTH[task.kind]}; with task {task.kind} use {_either(_SOURCES[task.kind])}"
        )
    if data.source == "scenes" and (data.max_train_images is None or data.max_test_images is None):
        problems.append("data.source scenes makes any number of images: say how many with data.max_train_images and data.max_test_images")
    if data.scenes is not None and data.source != "scenes":
        problems.append(f"data.scenes is for data.source scenes, not for {data.source}; remove it")
    if data.ignore_zero and data.source not in ("masks", "huggingface"):
        problems.append(f"data.ignore_zero is for masks, not for data.source {data.source}; remove it")
    if data.classes is not None and data.source != "huggingface":
        problems.append(f"data.classes is for source huggingface, not for {data.source}, which names its classes itself; remove it")
    return problems


_TRUTH = {"segmentation": "classes of pixels", "detection": "boxes and masks of objects"}


def _methods(recipe: "Recipe", task: SegmentationSettings | DetectionSettings) -> list[str]:
    method, teacher = getattr(recipe.specific, "method", None), recipe.teacher
    wrong = next((part for kind, part in _TEACHERS.items() if kind != task.kind and getattr(teacher, part, None) is not None), None)
    checks = [
        (
            method is not None and method not in _METHODS[task.kind],
            f"specific.method is {method}; with task {task.kind} use {_either(_METHODS[task.kind])}",
        ),
        (wrong is not None, f"teacher.{wrong} is given with task {task.kind}; name a teacher.{_TEACHERS[task.kind]}"),
    ]
    return [text for bad, text in checks if bad]


def _shapes(recipe: "Recipe", task: SegmentationSettings | DetectionSettings) -> list[str]:
    problems = []
    for section, encoder in _encoders(recipe).items():
        if encoder.depth < _FEWEST_BLOCKS:
            problems.append(f"{section}.depth is {encoder.depth}; task {task.kind} takes features behind four blocks")
        if encoder.patch_px not in (4, 8, 16):
            problems.append(f"{section}.patch_px is {encoder.patch_px}; task {task.kind} knows patches of 4, 8 and 16 px")
    if recipe.data.image_px % 32:
        problems.append(f"data.image_px is {recipe.data.image_px}; task {task.kind} needs a multiple of 32, its coarsest step")
    return problems


def _windows(recipe: "Recipe", task: SegmentationSettings | DetectionSettings) -> list[str]:
    if not isinstance(task, SegmentationSettings):
        return []
    slides, side = task.inference == "slide", recipe.data.image_px
    checks = [
        (task.stride is not None and not slides, f"task.stride is {task.stride}, which only inference slide reads; remove it"),
        (
            task.stride is not None and task.stride > side,
            f"task.stride is {task.stride}, but windows are {side} px wide: lower it",
        ),
        (
            task.output == "classes" and slides,
            "task.output is classes, but sliding windows are averaged: use logits, or inference whole",
        ),
    ]
    return [text for bad, text in checks if bad]


def _encoders(recipe: "Recipe") -> dict[str, EncoderSettings]:
    made = {"pretrain.encoder": None if recipe.pretrain is None else recipe.pretrain.encoder, "student": recipe.student}
    return {name: encoder for name, encoder in made.items() if encoder is not None}


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)
