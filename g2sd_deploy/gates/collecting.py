"""From a run folder to its snapshot."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.losses import curve_of
from g2sd_deploy.gates.packing import answers_of
from g2sd_deploy.gates.profiles import is_profile, profile_of, read_profile
from g2sd_deploy.gates.snapshot import Changes, Corruptions, Curve, Interval, Model, Parity, Profile, SetFigures, Snapshot, read_json
from g2sd_deploy.gates.task_scores import scores_of, shipped_scores_of

CLEAN = "clean"
SHIPPED, STUDENT = "shipped", "student"
_TEST_IMAGES = "test_images.npy"
_HISTORY = "history.jsonl"
_TRAININGS = ("pretrain", "finetune", "generic", "specific", "quantise", "baseline")
_STAGES = ("data", *_TRAININGS, "evaluate", "export", "profile")
_TRAINED_BY = {"teacher": "finetune", "student": "specific", "baseline": "baseline"}
_MIB = 1 << 20


def snapshot_of(run: Path, profiles: Sequence[Path] = ()) -> Snapshot:
    """Read what the gates need of a run.

    Args:
        run: Its folder.
        profiles: Files of `g2sd profile --json`, which take the place of the run's own profile.

    Raises:
        UserError: It is no run folder, nothing in it can be judged, a stage is out of date, or a file was changed since its stage wrote it.
    """
    owner = read_json(run / "run.json", "a run", "give the folder that `g2sd run` wrote")
    resolved = owner.get("resolved") or {}
    found = {stage: artifact for stage in _STAGES if resolved.get(stage) is not None and (artifact := read_artifact(run / stage))}
    _check_fits(run, found)
    timed = _profiles(found.get("profile"), profiles)
    snapshot = Snapshot(
        recipe=str(owner.get("recipe", "")),
        made_of={stage: artifact.digest for stage, artifact in found.items() if stage != "profile"}
        | {f"profile {number}": _digest(profile) for number, profile in enumerate(timed, 1)},
        models=_models(found),
        parity=_parity(found["export"].metrics) if "export" in found else None,
        profiles=tuple(timed),
        losses=_losses(found),
    )
    if not (snapshot.models or snapshot.profiles or snapshot.losses):
        raise UserError(f"{run}: holds no finished stage that a gate could judge; run `g2sd run` first")
    return snapshot


def _check_fits(run: Path, found: dict[str, Artifact]) -> None:
    """Refuse a folder in which a stage is newer than what was made of it: figures of two models would be taken for one's.

    Raises:
        UserError: It is so.
    """
    for stage, artifact in found.items():
        for parent, digest in artifact.parents.items():
            if parent in found and found[parent].digest != digest:
                raise UserError(f"{run}: {stage} was made of another {parent} than is there now; run `g2sd run` again to the end")


def _profiles(stage: Artifact | None, files: Sequence[Path]) -> list[Profile]:
    if files:
        return [read_profile(file) for file in files]
    if stage is None or not is_profile(stage.metrics):
        return []
    return [profile_of(stage.metrics, str(stage.folder / "artifact.json"))]


def _digest(profile: Profile) -> str:
    return hashlib.sha256(json.dumps(profile.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def _losses(found: dict[str, Artifact]) -> dict[str, Curve]:
    curves = {}
    for stage in _TRAININGS:
        artifact = found.get(stage)
        if artifact is None or _HISTORY not in artifact.files:
            continue
        curve = curve_of(artifact.file(_HISTORY), str(artifact.metrics.get("method", stage)), int(artifact.metrics["num_steps"]))
        if curve is not None:
            curves[stage] = curve
    return curves


def _models(found: dict[str, Artifact]) -> dict[str, Model]:
    models = {}
    if "evaluate" in found:
        evaluated = found["evaluate"]
        evaluated.verify()
        pixels = found["data"].files.get(_TEST_IMAGES, {}).get("sha256", "") if "data" in found else ""
        for name, metrics in evaluated.metrics["models"].items():
            if "task" in evaluated.metrics:
                models[name] = _of_task(name, metrics, evaluated.metrics["num_images"], found)
                continue
            file = f"predictions-{name}.parquet"
            answers = answers_of(evaluated.file(file), CLEAN, pixels) if file in evaluated.files else ()
            num_corrupted = evaluated.metrics.get("num_corruption_images", 0)
            models[name] = Model(
                digest=metrics.get("digest"),
                file_bytes=round(metrics["model_mib"] * _MIB),
                num_parameters=metrics.get("num_parameters"),
                sets=_sets(metrics),
                corruptions=_corruptions(metrics, num_corrupted),
                answers=answers,
            )
    if "export" in found:
        models[SHIPPED] = _shipped(found["export"].metrics)
    return models


def _of_task(name: str, metrics: dict[str, Any], num_images: int, found: dict[str, Artifact]) -> Model:
    """A model of pixels or objects; its file is that of the stage that trained it."""
    trained = found.get(_TRAINED_BY.get(name, ""))
    return Model(
        file_bytes=None if trained is None else trained.metrics.get("model_bytes"),
        num_parameters=metrics.get("num_parameters"),
        scores=scores_of(metrics, num_images),
    )


def _shipped(metrics: dict[str, Any]) -> Model:
    """The exported file, as the export proved it against the student."""
    standing = (metrics.get("standing") or {}).get("shipped")
    drop = (metrics.get("parity") or {}).get("drop")
    return Model(
        digest=metrics.get("model_sha256"),
        file_bytes=metrics.get("model_bytes"),
        sets={CLEAN: _figures(standing)} if standing else {},
        corruptions=_corruptions(standing, 0) if standing else None,
        scores=shipped_scores_of(metrics.get("parity") or {}),
        changes=Changes(of=STUDENT, num_images=drop["num_images"], lost=drop["lost"], gained=drop["gained"]) if drop else None,
    )


def _sets(metrics: dict[str, Any]) -> dict[str, SetFigures]:
    clean = {CLEAN: _figures(metrics[CLEAN])} if CLEAN in metrics else {}
    others = metrics.get("sets") or {}
    return clean | {name: _figures(scores) for name, scores in others.items() if "top1" in scores and "num_images" in scores}


def _figures(scores: dict[str, Any]) -> SetFigures:
    intervals = scores.get("intervals") or {}
    return SetFigures(
        num_images=scores["num_images"],
        top1=scores["top1"],
        top1_interval=_interval(intervals.get("top1")),
        ece=scores.get("ece"),
        ece_interval=_interval(intervals.get("ece")),
    )


def _corruptions(scores: dict[str, Any], num_images: int) -> Corruptions | None:
    if not scores.get("corruptions"):
        return None
    cases = {f"{name}/{level}": found for name, levels in scores["corruptions"].items() for level, found in levels.items()}
    return Corruptions(
        top1={case: found["top1"] for case, found in cases.items()},
        num_images=num_images or min(found["num_images"] for found in cases.values()),
        mean=scores["mean_corruption_top1"],
        interval=_interval(scores.get("mean_corruption_interval")),
    )


def _interval(ends: Any) -> Interval:
    return None if ends is None else (float(ends[0]), float(ends[1]))


def _parity(metrics: dict[str, Any]) -> Parity:
    candidates = {one["name"]: one["verdict"] for one in metrics.get("candidates") or []}
    return Parity(verdict=metrics["verdict"], reason=metrics.get("reason") or "", default=metrics["default"], candidates=candidates)
