"""Read a run folder into a RunSummary; the only file of the report that touches the disk for input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from g2sd_deploy.errors import UserError
from g2sd_deploy.report.dense_scores import TaskKind
from g2sd_deploy.report.fields import Fields, object_from_text, read_object
from g2sd_deploy.report.reading_dense import maybe_dense_figures, read_dense_evaluation, task_of
from g2sd_deploy.report.reading_latency import read_profile
from g2sd_deploy.report.reading_scores import read_evaluation
from g2sd_deploy.report.summary import (
    STAGES,
    TRAINING_STAGES,
    Candidate,
    DataFacts,
    Export,
    FileRecord,
    LossPoint,
    Parity,
    Rounding,
    RunSummary,
    StageRecord,
    Standing,
    TeacherFacts,
    TeacherFile,
    Training,
    Verdict,
)

_TERM = "loss_"


@dataclass(frozen=True)
class _Artifact:
    """One stage's folder and its parsed artifact.json."""

    folder: Path
    fields: Fields
    metrics: Fields


def read_run(folder: Path) -> RunSummary:
    """Read everything the report shows.

    Args:
        folder: A run folder: run.json and one artifact folder per stage that finished. Stages may be absent.

    Returns:
        The run; each absent stage is named in `absent` with its reason.

    Raises:
        UserError: This is no run folder, no stage finished, or a file does not hold what its stage writes.
    """
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} is not a run folder: it has no run.json. Give the folder that `g2sd run` wrote.")
    run = read_object(folder / "run.json", "run.json")
    resolved = run.maybe_child("resolved")
    # A stage that the recipe no longer has may have left its folder behind.
    asked = [stage for stage in STAGES if resolved.values.get(stage) is not None]
    found = {stage: _artifact(folder / stage) for stage in asked if (folder / stage / "artifact.json").is_file()}
    if not found:
        raise UserError(f"{folder} holds no finished stage, so there is nothing to report. Run `g2sd run` first.")
    task, evaluated = task_of(resolved), found.get("evaluate")
    return RunSummary(
        title=resolved.maybe_child("report").maybe_text("title") or run.text("recipe"),
        recipe=run.text("recipe"),
        description=resolved.maybe_text("description"),
        recipe_sha256=run.maybe_text("recipe_sha256"),
        command=run.maybe_text("command"),
        resolved=resolved.values,
        stages=tuple(_stage_record(stage, artifact.fields) for stage, artifact in found.items()),
        absent={stage: _absence_reason(stage, resolved.values) for stage in STAGES if stage not in found},
        data=_data(found["data"]) if "data" in found else None,
        teacher=_teacher(found["teacher"].metrics) if "teacher" in found else None,
        training={stage: _training(stage, found[stage]) for stage in TRAINING_STAGES if stage in found},
        evaluation=read_evaluation(evaluated.metrics, of_a_run=True) if evaluated and not task else None,
        export=_export(found["export"], task) if "export" in found else None,
        profile=read_profile(found["profile"].metrics) if "profile" in found else None,
        task=task,
        dense=read_dense_evaluation(evaluated.metrics, evaluated.folder, task) if evaluated and task else None,
    )


def _artifact(folder: Path) -> _Artifact:
    fields = read_object(folder / "artifact.json", f"{folder.name}/artifact.json")
    return _Artifact(folder, fields, fields.child("metrics"))


def _absence_reason(stage: str, resolved: Mapping[str, object]) -> str:
    """Say whether a stage was never asked for or was asked for and not reached."""
    if resolved.get(stage) is not None:
        return f"the recipe has a stage {stage}, but this run has not finished it"
    return f"the recipe has no stage {stage}"


def _stage_record(name: str, fields: Fields) -> StageRecord:
    return StageRecord(
        name=name,
        key=fields.text("key"),
        digest=fields.text("digest"),
        seconds=fields.number("seconds"),
        finished_at=fields.text("finished_at"),
        files={
            file: FileRecord(entry.maybe_text("sha256"), entry.count("bytes"))
            for file, entry in fields.maybe_child("files").named_children().items()
        },
        parents=fields.labels("parents"),
        tools={"g2sd_deploy": fields.maybe_text("version"), **fields.labels("tools")},
        environment=fields.labels("environment"),
    )


def _data(artifact: _Artifact) -> DataFacts:
    metrics, preview = artifact.metrics, artifact.folder / "preview.png"
    return DataFacts(
        num_train=metrics.count("num_train"),
        num_test=metrics.count("num_test"),
        num_classes=metrics.count("num_classes"),
        class_names=metrics.texts("class_names"),
        image_px=metrics.count("image_px"),
        num_channels=metrics.count("num_channels"),
        fingerprint=metrics.maybe_text("fingerprint"),
        description=metrics.maybe_text("description"),
        preview_png=preview.read_bytes() if preview.is_file() else b"",
        num_test_objects=metrics.maybe_count("num_test_objects"),
    )


def _teacher(metrics: Fields) -> TeacherFacts:
    parts = metrics.maybe_child("parts").named_children()
    return TeacherFacts(
        source=metrics.text("source"),
        num_parameters=metrics.count("num_parameters"),
        classifier_parameters=metrics.maybe_count("classifier_parameters"),
        files=tuple(_teacher_file(role, part) for role, part in parts.items()),
    )


def _teacher_file(role: str, part: Fields) -> TeacherFile:
    return TeacherFile(
        role=role,
        source=part.maybe_text("source"),
        file=part.maybe_text("file"),
        sha256=part.maybe_text("sha256"),
        description=part.maybe_text("description"),
        licence=part.maybe_text("licence"),
    )


def _training(stage: str, artifact: _Artifact) -> Training:
    metrics = artifact.metrics
    return Training(
        stage=stage,
        method=metrics.text("method"),
        first_loss=metrics.number("first_loss"),
        final_loss=metrics.number("final_loss"),
        num_parameters=metrics.count("num_parameters"),
        model_bytes=metrics.count("model_bytes"),
        images_seen=metrics.count("images_seen"),
        images_per_s=metrics.number("images_per_s"),
        train_seconds=metrics.number("train_seconds"),
        device=metrics.maybe_text("device"),
        history=_history(artifact.folder / "history.jsonl", f"{stage}/history.jsonl"),
        warnings=metrics.texts("warnings") if "warnings" in metrics.values else (),
        loss_band=_loss_band(metrics.child("loss_band")) if "loss_band" in metrics.values else None,
        rounding=_rounding(metrics) if "held_out" in metrics.values else None,
    )


def _rounding(metrics: Fields) -> Rounding:
    held_out = metrics.child("held_out")
    top1 = held_out.child("top1")
    return Rounding(
        bits=metrics.count("bits"),
        num_images=held_out.count("num_images"),
        top1_float=top1.number("float"),
        top1_before=top1.number("before"),
        top1_after=top1.number("after"),
        recovered=held_out.maybe_number("recovered"),
    )


def _loss_band(fields: Fields) -> tuple[Verdict, str]:
    return _verdict(fields), fields.maybe_text("reason")


def _history(path: Path, where: str) -> tuple[LossPoint, ...]:
    if not path.is_file():
        return ()
    lines = [(number, line) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1) if line.strip()]
    rows = [object_from_text(line, f"{where} line {number}") for number, line in lines]
    return tuple(LossPoint(row.count("step"), row.number("epoch"), row.number("loss"), row.maybe_number("lr"), _terms(row)) for row in rows)


def _terms(row: Fields) -> dict[str, float]:
    """The parts of the loss, without the prefix of their fields."""
    return {key.removeprefix(_TERM): row.number(key) for key in row.values if key.startswith(_TERM) and row.has(key)}


def _export(artifact: _Artifact, task: TaskKind | None) -> Export:
    metrics = artifact.metrics
    standing = {} if task else metrics.maybe_child("standing").named_children()
    bundle = metrics.text("bundle")
    files = artifact.fields.maybe_child("files").named_children()
    sealed = f"{bundle}/manifest.json"
    manifest = read_object(artifact.folder / sealed, f"export/{sealed}") if (artifact.folder / sealed).is_file() else Fields({}, sealed)
    return Export(
        target=metrics.text("target"),
        default=metrics.text("default"),
        model_file=metrics.text("model_file"),
        model_bytes=metrics.count("model_bytes"),
        model_sha256=metrics.text("model_sha256"),
        bundle=bundle,
        bundle_bytes=sum(entry.count("bytes") for name, entry in files.items() if name.startswith(f"{bundle}/")),
        parity=_parity(metrics.maybe_child("parity")),
        hops=tuple(_parity(hop) for hop in metrics.children("hops")),
        candidates=tuple(_candidate(row, metrics) for row in metrics.children("candidates")),
        standing={name: _standing(one) for name, one in standing.items()},
        licences={what: name for what, name in manifest.labels("licences").items() if name},
        weights_sha256=manifest.maybe_child("provenance").maybe_text("weights_sha256"),
        manifest_sha256=files[sealed].maybe_text("sha256") if sealed in files else "",
    )


def _candidate(row: Fields, metrics: Fields) -> Candidate:
    name = row.text("name")
    return Candidate(
        name=name,
        runtime=row.maybe_text("runtime"),
        verdict=_verdict(row),
        why=metrics.maybe_child("reasons").maybe_text(name) or row.maybe_text("reason"),
        top1=row.maybe_number("top1"),
        drop_points=row.maybe_number("drop_points"),
        flipped=row.maybe_count("flipped"),
        p50_ms=metrics.maybe_child("latency").maybe_child(name).maybe_number("p50_ms"),
        file_bytes=row.maybe_count("file_bytes"),
        chosen=bool(row.values.get("chosen")),
        figures=maybe_dense_figures(row),
    )


def _standing(fields: Fields) -> Standing:
    found = fields.maybe_child("corruptions").named_children()
    levels = {name: [level.number("top1") for level in one.named_children().values()] for name, one in found.items()}
    return Standing(
        top1=fields.number("top1"),
        ece=fields.number("ece"),
        mean_corruption_top1=fields.maybe_number("mean_corruption_top1"),
        corruptions={name: sum(top1) / len(top1) for name, top1 in levels.items() if top1},
    )


def _parity(fields: Fields) -> Parity:
    if not fields.values:
        return Parity("not_run", "the export stage recorded no parity check")
    return Parity(
        verdict=_verdict(fields),
        reason=fields.maybe_text("reason"),
        num_images=fields.maybe_count("num_images"),
        flipped=fields.maybe_count("flipped"),
        flipped_share=fields.maybe_number("flipped_share"),
        max_abs_logit_diff=fields.maybe_number("max_abs_logit_diff"),
        mean_abs_logit_diff=fields.maybe_number("mean_abs_logit_diff"),
        min_cosine=fields.maybe_number("min_cosine"),
        mean_kl=fields.maybe_number("mean_kl"),
        top1_reference=fields.maybe_number("top1_reference"),
        top1_candidate=fields.maybe_number("top1_candidate"),
        tolerance=fields.numbers("tolerance"),
        reference=fields.maybe_text("reference"),
        candidate=fields.maybe_text("candidate"),
        name=fields.maybe_text("name"),
        figures=maybe_dense_figures(fields),
    )


def _verdict(fields: Fields) -> Verdict:
    verdict = fields.text("verdict")
    if verdict not in get_args(Verdict):
        raise UserError(f"{fields.where}: the verdict is {verdict!r}, wanted passed, failed or not_run. Run its stage again with --force.")
    return cast(Verdict, verdict)
