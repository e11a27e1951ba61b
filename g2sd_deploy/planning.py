"""Which stages a recipe has, what each is a function of, and which of them would run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2sd_deploy import __version__
from g2sd_deploy.artifact import Identity, read_artifact
from g2sd_deploy.errors import UserError
from g2sd_deploy.run_folder import check_folder
from g2sd_deploy.settings import Recipe

TRAINING_STAGES = ("pretrain", "finetune", "generic", "specific", "quantise", "baseline")
SHARED_STAGES = (*TRAINING_STAGES, "evaluate")
"""Stages that all processes of a run work on; the first one does the others alone."""
STAGES = ("data", "teacher", *TRAINING_STAGES, "evaluate", "export", "profile", "report")


_TASK_STAGES = ("data", "finetune", "specific", "baseline", "evaluate", "export", "profile")
_UNREAD = {name: {"output"} for name in ("finetune", "specific", "baseline", "evaluate")}
"""Settings of the task that a stage does not read."""


@dataclass(frozen=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: Stage, module and artifact folder.
        parents: Role to the stage that plays it.
        config: Settings that decide the result; changing one makes the stage run again.
    """

    name: str
    parents: Mapping[str, str]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """What a plan says of one stage."""

    stage: Stage
    runs: bool
    reason: str


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe asks for, in order."""
    present = [name for name in STAGES if getattr(recipe, name, None) is not None]
    return [Stage(name, _parents(recipe, name, present), _config(recipe, name)) for name in present]


def parents_by_stage(stages: Sequence[Stage]) -> dict[str, list[str]]:
    """What each stage builds on, in the order in which they run."""
    return {stage.name: sorted(set(stage.parents.values())) for stage in stages}


def _parents(recipe: Recipe, name: str, present: Sequence[str]) -> dict[str, str]:
    """Which stage gives each input that a stage reads."""
    masked = {"masked": "teacher" if "teacher" in present else "pretrain"} if recipe.has_teacher_encoder else {}
    classifier = {"classifier": "finetune" if "finetune" in present else "teacher"} if recipe.has_task_teacher else {}
    without_teacher = {"generic": "mae", "specific": "finetune"}
    taught_by = "specific" if name == "quantise" else name  # which goes on with that stage's method
    if (section := getattr(recipe, taught_by, None)) is not None and getattr(section, "method", "") == without_teacher.get(taught_by):
        masked, classifier = {}, {}
    looks_inside = recipe.evaluate is not None and recipe.evaluate.similarity is not None
    layers = {"generic": "generic", **masked} if looks_inside else {}
    models = {"student": "specific", "baseline": "baseline"} | ({"teacher": classifier["classifier"]} if classifier else {})
    roles = {
        "data": {},
        "teacher": {"data": "data"},
        "pretrain": {"data": "data"},
        "finetune": {"data": "data", **masked},
        "generic": {"data": "data", **masked},
        "specific": {"data": "data", "generic": "generic", **classifier},
        "quantise": {"data": "data", "student": "specific", **classifier},
        "baseline": {"data": "data", **({"generic": "generic"} if recipe.baseline and recipe.baseline.start == "generic" else {})},
        "evaluate": {"data": "data", **models, **layers},
        "export": {"data": "data", "student": "specific", "quantised": "quantise"},
        "profile": {**{role: stage for role, stage in models.items() if role != "baseline"}, "export": "export"},
        "report": {stage: stage for stage in present if stage != "report"},
    }[name]
    return {role: stage for role, stage in roles.items() if stage in present}


def _config(recipe: Recipe, name: str) -> dict[str, Any]:
    """The settings that a stage reads."""
    config: dict[str, Any] = {name: getattr(recipe, name).model_dump(mode="json")}
    if name in (*SHARED_STAGES, "export"):
        config["seed"] = recipe.seed
    if name in ("generic", "specific", "baseline"):
        assert recipe.student is not None
        config["student"] = recipe.student.model_dump(mode="json", exclude={"weights"})
    if name == "quantise":
        assert recipe.specific is not None
        config["specific"] = recipe.specific.model_dump(mode="json")
    if name in _TASK_STAGES:
        config["task"] = _task_config(recipe, name)
    if name in ("export", "report"):
        config["name"] = recipe.name
    if name == "report":
        config["description"] = recipe.description
    return config


def _task_config(recipe: Recipe, name: str) -> Any:
    """What a stage reads of the task's settings."""
    if recipe.task is None:
        return None
    return recipe.task.kind if name in ("data", "profile") else recipe.task.model_dump(mode="json", exclude=_UNREAD.get(name))


def _sources(recipe: Recipe, name: str) -> dict[str, str]:
    """Fingerprints of the files outside the run that a stage reads; they count as parents."""
    if name == "data":
        return {"files": _data_fingerprint(recipe)}
    if name == "teacher":
        from g2sd_deploy.stages.teacher import fingerprint

        assert recipe.teacher is not None
        return fingerprint(recipe.teacher)
    if name == "export" and recipe.export is not None:
        from g2sd_export.targets import load_target

        return {"target": load_target(recipe.export.target).digest}
    if name == "evaluate" and recipe.evaluate is not None and recipe.evaluate.sets:
        from g2sd_deploy.data.testsets import Options, open_all
        from g2sd_deploy.data.testsets.catalogue import data_folder
        from g2sd_deploy.zoo.places import places

        tests = open_all(recipe.evaluate.sets, options=Options(), home=data_folder(places()))
        return {f"set {one.name}": one.fingerprint for one in tests}
    return _student_weights(recipe, name) | _own_method(recipe, name)


def _student_weights(recipe: Recipe, name: str) -> dict[str, str]:
    """Fingerprint of the finished student that a stage starts from."""
    starts = name == "specific" or (name == "baseline" and recipe.baseline is not None and recipe.baseline.start == "generic")
    if recipe.student_weights is None or not starts:
        return {}
    from g2sd_deploy.stages.student_start import fingerprint

    return {"student.weights": fingerprint(recipe.student_weights)}


def _data_fingerprint(recipe: Recipe) -> str:
    if recipe.task is not None:
        from g2sd_deploy.data.dense.sources import dense_source_of

        return dense_source_of(recipe.data, recipe.task.kind).fingerprint()
    from g2sd_deploy.data.sources import source_of

    return source_of(recipe.data).fingerprint()


def _own_method(recipe: Recipe, name: str) -> dict[str, str]:
    """Hash of the file of a method that the recipe names by import path.

    Raises:
        UserError: There is no such file.
    """
    section = getattr(recipe, name, None)
    if getattr(section, "method", "") != "custom":
        return {}
    from g2sd_deploy.stages.custom import source_digest

    setting = {"generic": "builder", "specific": "loss"}[name]
    named = getattr(section, setting)
    return {named: source_digest(named, f"{name}.{setting}")}


def plan(recipe: Recipe, run_folder: Path, *, until: str | None = None, force: str | None = None) -> list[Step]:
    """Which stages would run, and why.

    Raises:
        UserError: `until` or `force` is not a stage of the recipe, or the folder belongs to another recipe.
    """
    check_folder(recipe, run_folder)
    stages = select_stages(recipe, until, force)
    pending: set[str] = set()
    failed: set[str] = set()
    steps = []
    for stage in stages:
        broken = sorted(set(stage.parents.values()) & failed)
        if broken and stage.name != "report":
            failed.add(stage.name)
            steps.append(Step(stage, False, f"cannot run: {', '.join(broken)} failed"))
            continue
        waits = sorted(set(stage.parents.values()) & pending)
        reason = f"after {', '.join(waits)}" if waits and stage.name != force else why_run(recipe, stage, run_folder, force)
        if reason:
            pending.add(stage.name)
        elif _has_failed(run_folder / stage.name):
            failed.add(stage.name)
        steps.append(Step(stage, bool(reason), reason or "up to date"))
    return steps


def _has_failed(folder: Path) -> bool:
    artifact = read_artifact(folder)
    return artifact is not None and artifact.failure != ""


def select_stages(recipe: Recipe, until: str | None, force: str | None) -> list[Stage]:
    """The recipe's stages up to `until`; what they read from outside the run is refused here, before hours are spent.

    Raises:
        UserError: A named stage is not among them, a teacher cannot play its role, or a method of the user's own is not there.
    """
    stages = stages_of(recipe)
    names = [stage.name for stage in stages]
    for option, name in (("--until", until), ("--force", force)):
        if name is not None and name not in names:
            raise UserError(f"{option} {name}: the recipe {recipe.name} has no such stage; its stages are {', '.join(names)}")
    last = len(names) - 1 if until is None else names.index(until)
    if force is not None and names.index(force) > last:
        raise UserError(f"--force {force}: comes after --until {until}, so it would not run; drop one of them")
    if recipe.teacher is not None:
        _sources(recipe, "teacher")
    for name in names[: last + 1]:
        _own_method(recipe, name)
    return stages[: last + 1]


def identity_of(recipe: Recipe, stage: Stage, run_folder: Path) -> Identity:
    """Key of the artifact that this stage would make now; its parents must be there."""
    parents = dict(_sources(recipe, stage.name))
    for name in stage.parents.values():
        artifact = read_artifact(run_folder / name)
        if artifact is not None:
            parents[name] = artifact.digest
    return Identity(stage.name, stage.config, parents, __version__)


def why_run(recipe: Recipe, stage: Stage, run_folder: Path, force: str | None) -> str:
    return "forced" if stage.name == force else _why_stale(recipe, stage, run_folder)


def _why_stale(recipe: Recipe, stage: Stage, run_folder: Path) -> str:
    """Why a stage whose parents are up to date has to run; empty where it has not."""
    found = read_artifact(run_folder / stage.name)
    if found is None:
        return "has not run"
    wanted = identity_of(recipe, stage, run_folder)
    if found.key == wanted.key:
        return ""
    changed = _changes(found.config, dict(wanted.config)) + [
        f"{name} changed" for name in {**wanted.parents, **found.parents} if found.parents.get(name) != wanted.parents.get(name)
    ]
    return ", ".join(changed[:3]) or f"made by another version than {__version__}"


def _changes(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Settings that differ, as `generic.epochs: 4 -> 5`."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix}: {old} -> {new}"]
    keys = [*new, *(key for key in old if key not in new)]
    return [line for key in keys for line in _changes(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)]
