"""Finished teachers of a task: where their weight file lies, and whether they fit the data."""

import shutil
from pathlib import Path
from typing import Any

from g2sd_deploy.artifact import read_artifact, sha256_of
from g2sd_deploy.data.sources import expand
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.dense.network_file import FILES, load_network
from g2sd_deploy.settings import TeacherSettings
from g2sd_deploy.stages.context import Context, Dataset
from g2sd_deploy.stages.dense_context import task_file
from g2sd_deploy.zoo.bundled import bundled_file, is_bundled


def named_teacher(settings: TeacherSettings) -> tuple[str, str] | None:
    """The setting that names a teacher of a task, and what it names; None where none does."""
    found = [(name, value) for name, value in (("segmenter", settings.segmenter), ("detector", settings.detector)) if value is not None]
    return found[0] if found else None


def dense_fingerprint(settings: TeacherSettings) -> dict[str, str]:
    """What the teacher of a task is made from: the digest of its stage, or the hash of its file."""
    named = named_teacher(settings)
    if named is None:
        return {}
    name, reference = named
    path = bundled_file(reference, name) if is_bundled(reference) else expand(reference)
    if path.is_dir():
        artifact = read_artifact(path)
        return {name: "missing" if artifact is None else artifact.digest}
    return {name: sha256_of(path) if path.is_file() else "missing"}


def take_in_dense(context: Context, settings: TeacherSettings, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Copy the teacher of the recipe's task into the artifact.

    Returns:
        Its figures by its setting; nothing where the recipe names none.

    Raises:
        UserError: It is not there, not whole, or was made for other classes or images.
    """
    named = named_teacher(settings)
    if named is None:
        return {}
    name, reference = named
    path = bundled_file(reference, name) if is_bundled(reference) else _file_of(name, expand(reference))
    file = load_network(path, name)
    if file.class_names != dataset.class_names:
        raise UserError(
            f"teacher.{name} knows {len(file.class_names)} classes ({', '.join(file.class_names[:3])}, ...), the data has "
            f"{len(dataset.class_names)} ({', '.join(dataset.class_names[:3])}, ...); train a teacher on this data"
        )
    pre, task = dataset.preprocessing, file.task
    wanted, found = (pre.image_px, pre.num_channels, pre.mean, pre.std), (task.image_px, task.num_channels, task.mean, task.std)
    if found != wanted:
        raise UserError(
            f"teacher.{name} was trained with image_px, num_channels, mean and std {found}, the recipe's data asks for {wanted}; "
            "they belong to the model, so make them agree"
        )
    shutil.copyfile(path, context.folder / task_file(context.recipe))
    return {
        name: {
            "source": reference,
            "file": path.name,
            "sha256": sha256_of(path),
            "description": f"{name} of g2sd",
            "num_parameters": sum(p.numel() for p in file.model.parameters()),
            "trained_px": task.image_px,
            "classes_used": len(file.class_names),
        }
    }


def _file_of(name: str, path: Path) -> Path:
    wanted = FILES[name]
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"teacher.{name} is {path}: there is no such file or stage folder; give one such as runs/NAME/finetune")
        return path
    artifact = read_artifact(path)
    if artifact is None or artifact.failure or wanted not in artifact.files:
        reason = "no stage finished there" if artifact is None else artifact.failure or f"the stage {artifact.stage} made no {name}"
        raise UserError(f"teacher.{name} is {path}: {reason}; give the folder of one that did, such as runs/NAME/finetune")
    artifact.verify()
    return path / wanted
