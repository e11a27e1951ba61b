"""Teacher stage: take in a finished teacher, and refuse one that cannot teach."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from g2sd_deploy.artifact import Made
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.adapt import encoder_of, with_classes
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier, save_encoder, save_masked
from g2sd_deploy.models.masked import MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder
from g2sd_deploy.settings import TeacherSettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, ENCODER_FILE, MASKED_FILE, Context, Dataset, open_dataset
from g2sd_deploy.stages.dense_teachers import dense_fingerprint, take_in_dense
from g2sd_deploy.zoo.opening import Opened, fingerprint_of, open_teacher, resized
from g2sd_deploy.zoo.roles import Role
from g2sd_export.edge.preprocess import Preprocessing

FILES: dict[Role, str] = {"masked": MASKED_FILE, "encoder": ENCODER_FILE, "classifier": CLASSIFIER_FILE}
_MIB = 1 << 20


def references(settings: TeacherSettings) -> dict[Role, str]:
    """What the recipe names, by the role that it plays."""
    named: dict[Role, str | None] = {"masked": settings.masked, "encoder": settings.encoder, "classifier": settings.classifier}
    return {role: reference for role, reference in named.items() if reference is not None}


def fingerprint(settings: TeacherSettings) -> dict[str, str]:
    """What each file of the artifact is made from: digest of a catalogue's entry, hash of a file, digest of a stage.

    Raises:
        UserError: An entry of the catalogue cannot play its role.
    """
    parts = {FILES[role]: fingerprint_of(reference, role) for role, reference in references(settings).items()}
    return parts | dense_fingerprint(settings)


def run(context: Context) -> Made:
    """Pull, convert, check against the data, and write one file for each role."""
    settings = context.recipe.teacher
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    named = references(settings)
    parts: dict[str, dict[str, Any]] = {role: _take_in(context, role, one, dataset, settings) for role, one in named.items()}
    parts |= take_in_dense(context, settings, dataset)
    metrics: dict[str, Any] = {
        "source": next(iter(parts.values()))["source"],
        "num_parameters": next(iter(parts.values()))["num_parameters"],
        "parts": parts,
    }
    if "classifier" in parts:
        metrics["classifier_parameters"] = parts["classifier"]["num_parameters"]
    if context.warnings:
        metrics["warnings"] = list(context.warnings)
    return Made(metrics)


def _take_in(context: Context, role: Role, reference: str, dataset: Dataset, settings: TeacherSettings) -> dict[str, Any]:
    """Write the artifact's file of one role; returns its figures."""

    def tick(done: int, total: int | None) -> None:
        context.progress.update(done // _MIB, max(1, (total or done) // _MIB), f"{reference}, MiB")

    opened = open_teacher(reference, role, tick=tick)
    for note in opened.notes:
        context.warn(f"teacher.{role}: {note}")
    fitted = _fitted(opened, role, dataset, settings.resize_positions)
    _write(context.folder / FILES[role], fitted)
    figures = {
        "source": reference,
        "file": opened.path.name,
        "sha256": opened.sha256,
        "description": opened.description,
        "licence": opened.licence,
        "num_parameters": sum(p.numel() for p in fitted.model.parameters()),
        "dropped_keys": len(opened.dropped),
        "dropped_because": sorted(set(opened.dropped.values())),
        "trained_px": opened.trained_px,
        "classes_of_file": len(opened.class_names) or None,
        "classes_used": len(fitted.class_names) or None,
    }
    return {name: value for name, value in figures.items() if value is not None}


def _fitted(opened: Opened, role: Role, dataset: Dataset, resize: bool) -> Opened:
    """The teacher for these images and classes.

    Raises:
        UserError: It was made for other images or classes, and may not or cannot be fitted.
    """
    spec, pre = encoder_of(opened.model).spec, dataset.preprocessing
    if spec.num_channels != pre.num_channels:
        raise UserError(f"teacher.{role} sees images of {spec.num_channels} channels, data.num_channels is {pre.num_channels}")
    if spec.image_px != pre.image_px and not resize:
        raise UserError(
            f"teacher.{role} was trained on images of {spec.image_px} px, data.image_px is {pre.image_px}; make them agree, or set "
            "teacher.resize_positions to true to fit its positions to the data's size"
        )
    fitted = resized(opened, pre.image_px)
    if role == "classifier":
        fitted = _for_classes(fitted, dataset.class_names)
    _check_preprocessing(fitted, role, pre, was_resized=spec.image_px != pre.image_px)
    return replace(fitted, preprocessing=pre)


def _for_classes(opened: Opened, wanted: tuple[str, ...]) -> Opened:
    """The classifier for the data's classes: as it is, or restricted to the rows of its head that bear their names."""
    if opened.class_names == wanted:
        return opened
    missing = [name for name in wanted if name not in opened.class_names]
    if missing:
        raise UserError(
            f"teacher.classifier tells {len(opened.class_names)} classes apart ({', '.join(opened.class_names[:3])}, ...), the data has "
            f"{len(wanted)} ({', '.join(wanted[:3])}, ...), and {len(missing)} of them ({missing[0]}, ...) are none of the teacher's; "
            "fine-tune the teacher on this data, or give the classes the same names"
        )
    model = with_classes(cast("Classifier", opened.model), [opened.class_names.index(name) for name in wanted])
    return replace(opened, model=model, class_names=wanted, own=False)


def _check_preprocessing(opened: Opened, role: Role, wanted: Preprocessing, *, was_resized: bool) -> None:
    """Refuse a teacher that wants its images prepared otherwise, where that is known."""
    found = opened.preprocessing
    if found is None:
        return
    # pre-trained on random crops, or no longer at its own size: what is left is how a pixel becomes a number
    exactly = role == "classifier" and not was_resized
    if found != wanted if exactly else (found.mean, found.std) != (wanted.mean, wanted.std):
        raise UserError(
            f"teacher.{role} was trained with {found.to_dict()}, the recipe's data asks for {wanted.to_dict()}; "
            "normalisation and size belong to the model, so make data.mean, data.std, data.image_px and data.resize_px agree with it"
        )


def _write(path: Path, fitted: Opened) -> None:
    """One of our files is copied as it is; what was converted or fitted is written in float32."""
    if fitted.own:
        shutil.copyfile(fitted.path, path)
        return
    match fitted.model:
        case MaskedAutoencoder():
            save_masked(path, fitted.model)
        case Classifier():
            assert fitted.preprocessing is not None
            save_classifier(path, ClassifierFile(fitted.model, fitted.preprocessing, fitted.class_names))
        case _:
            save_encoder(path, cast("Encoder", fitted.model))
