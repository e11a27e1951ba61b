"""Plan and run a recipe's stages: each leaves one artifact, and a stage whose artifact is up to date is skipped."""

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy import __version__, environment
from g2sd_deploy.artifact import (
    MARKER,
    Artifact,
    Identity,
    commit,
    digest_of,
    read_artifact,
    sha256_of,
    unfinished_folder,
    write_text_whole,
)
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.locks import lock
from g2sd_deploy.progress import Progress
from g2sd_deploy.ranks import Ranks
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe

if TYPE_CHECKING:
    from g2sd_deploy.artifact import Made
    from g2sd_deploy.training.tracking import Trackers

RUN_FILE = "run.json"
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
TRAINING_STAGES = ("pretrain", "finetune", "generic", "specific", "baseline")
"""Stages that all processes of a run work on; the first one does the others alone."""
STAGES = ("data", "teacher", "pretrain", "finetune", "generic", "specific", "baseline", "evaluate", "export", "profile", "report")


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


def _parents(recipe: Recipe, name: str, present: Sequence[str]) -> dict[str, str]:
    """Which stage gives each input that a stage reads."""
    masked = {"masked": "teacher" if "teacher" in present else "pretrain"} if recipe.has_teacher_encoder else {}
    classifier = {"classifier": "teacher" if "teacher" in present else "finetune"} if recipe.has_classifier_teacher else {}
    without_teacher = {"generic": "mae", "specific": "finetune"}
    if (section := getattr(recipe, name, None)) is not None and getattr(section, "method", "") == without_teacher.get(name):
        masked, classifier = {}, {}
    models = {"student": "specific", "baseline": "baseline"} | ({"teacher": classifier["classifier"]} if classifier else {})
    roles = {
        "data": {},
        "teacher": {"data": "data"},
        "pretrain": {"data": "data"},
        "finetune": {"data": "data", "masked": "pretrain"},
        "generic": {"data": "data", **masked},
        "specific": {"data": "data", "generic": "generic", **classifier},
        "baseline": {"data": "data"},
        "evaluate": {"data": "data", **models},
        "export": {"data": "data", "student": "specific"},
        "profile": {**{role: stage for role, stage in models.items() if role != "baseline"}, "export": "export"},
        "report": {stage: stage for stage in present if stage != "report"},
    }[name]
    return {role: stage for role, stage in roles.items() if stage in present}


def _config(recipe: Recipe, name: str) -> dict[str, Any]:
    """The settings that a stage reads."""
    config: dict[str, Any] = {name: getattr(recipe, name).model_dump(mode="json")}
    if name in ("pretrain", "finetune", "generic", "specific", "baseline", "evaluate"):
        config["seed"] = recipe.seed
    if name in ("generic", "specific", "baseline"):
        assert recipe.student is not None
        config["student"] = recipe.student.model_dump(mode="json")
    if name in ("export", "report"):
        config["name"] = recipe.name
    if name == "report":
        config["description"] = recipe.description
    return config


def _sources(recipe: Recipe, name: str) -> dict[str, str]:
    """Fingerprints of the files outside the run that a stage reads; they count as parents."""
    if name == "data":
        from g2sd_deploy.data.sources import source_of

        return {"files": source_of(recipe.data).fingerprint()}
    if name == "teacher":
        from g2sd_deploy.stages.teacher import fingerprint

        assert recipe.teacher is not None
        return fingerprint(recipe.teacher)
    return _own_method(recipe, name)


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
        reason = f"after {', '.join(waits)}" if waits and stage.name != force else _why_run(recipe, stage, run_folder, force)
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


def _identity(recipe: Recipe, stage: Stage, run_folder: Path) -> Identity:
    """Key of the artifact that this stage would make now; its parents must be there."""
    parents = dict(_sources(recipe, stage.name))
    for name in stage.parents.values():
        artifact = read_artifact(run_folder / name)
        if artifact is not None:
            parents[name] = artifact.digest
    return Identity(stage.name, stage.config, parents, __version__)


def _why_run(recipe: Recipe, stage: Stage, run_folder: Path, force: str | None) -> str:
    return "forced" if stage.name == force else _why_stale(recipe, stage, run_folder)


def _why_stale(recipe: Recipe, stage: Stage, run_folder: Path) -> str:
    """Why a stage whose parents are up to date has to run; empty where it has not."""
    found = read_artifact(run_folder / stage.name)
    if found is None:
        return "has not run"
    wanted = _identity(recipe, stage, run_folder)
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


def run(
    recipe: Recipe,
    run_folder: Path,
    *,
    runtime: Runtime,
    progress: Progress,
    command: str,
    until: str | None = None,
    force: str | None = None,
) -> list[Step]:
    """Run every stage that is not up to date.

    The first process of several decides, writes and does what is no training; the others train with it.

    Returns:
        What was done: one step per stage, `runs` telling which were computed.

    Raises:
        UserError: Bad input, or an artifact that was changed since it was written.
        RunFailed: A stage did not succeed, or its verdict is "failed"; the report is made first.
        Stopped: A signal asked the run to end.
    """
    steps = []
    failed: dict[str, str] = {}
    ranks = runtime.ranks
    with ExitStack() as until_done:

        def begin() -> list[Stage]:
            stages = select_stages(recipe, until, force)
            check_folder(recipe, run_folder)
            until_done.enter_context(_locked(run_folder))
            _clear_leftovers(run_folder)
            record_run(recipe, run_folder, command)
            return stages

        for stage in ranks.from_main(begin):
            if stage.name != "report" and failed.keys() & set(stage.parents.values()):
                failed[stage.name] = ""
                if ranks.is_main:
                    shutil.rmtree(run_folder / stage.name, ignore_errors=True)
                continue
            reason = ranks.from_main(partial(_why_run, recipe, stage, run_folder, force))
            artifact = _execute(recipe, stage, run_folder, runtime, progress) if reason else _finished(run_folder / stage.name)
            if artifact.failure:
                failed[stage.name] = artifact.failure
            steps.append(Step(stage, bool(reason), reason or "up to date"))
    if failed:
        raise RunFailed("; ".join(f"{name}: {reason}" for name, reason in failed.items() if reason))
    return steps


def _execute(recipe: Recipe, stage: Stage, run_folder: Path, runtime: Runtime, progress: Progress) -> Artifact:
    """Compute a stage: training in every process, anything else in the first."""
    ranks = runtime.ranks
    if stage.name in TRAINING_STAGES:
        _compute(recipe, stage, run_folder, runtime, progress)
    else:
        ranks.from_main(lambda: _compute(recipe, stage, run_folder, replace(runtime, ranks=Ranks()), progress))
    artifact = ranks.from_main(lambda: _finished(run_folder / stage.name))
    if not (artifact.folder / MARKER).is_file():
        raise UserError(
            f"{artifact.folder}: process {ranks.rank} does not see what the first one wrote; the processes of a run share one folder: give "
            "an --out that all machines mount"
        )
    return artifact


def _compute(recipe: Recipe, stage: Stage, run_folder: Path, runtime: Runtime, progress: Progress) -> None:
    from g2sd_deploy.stages.context import Context, checkpoint_folder

    identity = _identity(recipe, stage, run_folder)
    inputs = {role: _verified(run_folder / name) for role, name in stage.parents.items() if name in identity.parents}
    progress.begin(stage.name)
    start = time.monotonic()
    try:
        with unfinished_folder(run_folder / stage.name, runtime.ranks.rank) as folder:
            trackers = _trackers(recipe, stage, run_folder, runtime, identity.key)
            context = Context(recipe, stage.name, inputs, folder, run_folder, runtime, progress, identity.key, trackers)
            made = import_module(f"g2sd_deploy.stages.{stage.name}").run(context)
            _check_agreement(runtime.ranks, stage.name, folder, made)
            if runtime.ranks.is_main:
                commit(
                    folder,
                    run_folder / stage.name,
                    identity,
                    made,
                    tools=environment.tool_versions(),
                    environment=environment.machine(),
                    seconds=time.monotonic() - start,
                )
                shutil.rmtree(checkpoint_folder(run_folder, stage.name), ignore_errors=True)
    except BaseException as error:
        progress.abort()
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise UserError(
                f"{stage.name}: {error.filename or run_folder}: {os.strerror(error.errno)}; correct it and run the same command again"
            ) from None
        raise
    progress.end()


def _trackers(recipe: Recipe, stage: Stage, run_folder: Path, runtime: Runtime, key: str) -> "Trackers | None":
    if not runtime.trackers or stage.name not in TRAINING_STAGES:
        return None
    from g2sd_deploy.training.tracking import Trackers

    config = recipe.model_dump(mode="json", exclude_none=True)
    return Trackers(runtime.trackers, run_folder, project=recipe.name, stage=stage.name, identity=key, config=config)


def _check_agreement(ranks: Ranks, stage: str, folder: Path, made: "Made") -> None:
    """No artifact is marked done before every process has made the same one.

    Raises:
        RunFailed: They have not.
    """
    if ranks.num == 1:
        return
    own = {path.name: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()} | {"metrics": digest_of(made.metrics)}
    found = ranks.gather(own)
    for rank, other in enumerate(found):
        if differing := sorted(name for name in found[0].keys() | other.keys() if found[0].get(name) != other.get(name)):
            text = (
                f"{stage}: process {rank} made another {', '.join(differing)} than process 0, so nothing is kept; look for different "
                "versions of torch or of this package, or different files, on the machines"
            )
            raise ranks.told_once(RunFailed(text))


def _finished(folder: Path) -> Artifact:
    artifact = read_artifact(folder)
    assert artifact is not None
    return artifact


def _verified(folder: Path) -> Artifact:
    artifact = _finished(folder)
    artifact.verify()
    return artifact


def _clear_leftovers(run_folder: Path) -> None:
    """Remove what killed processes left: half-written artifacts, and the checkpoints of a training that was finished with them."""
    from g2sd_deploy.stages.context import checkpoint_folder
    from g2sd_deploy.training.checkpoints import keys_of

    for path in [*run_folder.glob(".*.unfinished*"), *run_folder.glob(".*.old")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in TRAINING_STAGES:
        folder = checkpoint_folder(run_folder, name)
        with suppress(UserError):  # a damaged artifact is told of when it is needed
            if folder.is_dir() and (artifact := read_artifact(run_folder / name)) and keys_of(folder) <= {artifact.key}:
                shutil.rmtree(folder)


def check_folder(recipe: Recipe, run_folder: Path) -> None:
    """Refuse a folder that another recipe, or something else, wrote.

    Raises:
        UserError: It holds another recipe's run, or files that are not a run's.
    """
    if run_folder.exists() and not run_folder.is_dir():
        raise UserError(f"--out {run_folder}: is a file; give a folder")
    marker = run_folder / RUN_FILE
    if marker.is_file():
        try:
            owner = json.loads(marker.read_bytes())["recipe"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{marker}: is damaged, so it is not known whose run this is; give another --out") from None
        if owner != recipe.name:
            raise UserError(f"--out {run_folder}: holds the run of the recipe {owner}, not {recipe.name}; give another --out")
    elif run_folder.is_dir() and any(not path.name.startswith(".") for path in run_folder.iterdir()):
        raise UserError(f"--out {run_folder}: holds files, but no run of g2sd; give a new or empty folder")


def record_run(recipe: Recipe, run_folder: Path, command: str) -> None:
    """Record the resolved recipe in the run's folder.

    Raises:
        UserError: It cannot be written.
    """
    resolved = recipe.model_dump(mode="json", exclude_none=True)
    record = {"format": 1, "recipe": recipe.name, "recipe_sha256": digest_of(resolved), "resolved": resolved, "command": command}
    try:
        write_text_whole(run_folder / RUN_FILE, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise _unwritable(run_folder, error) from None


def _unwritable(run_folder: Path, error: OSError) -> UserError:
    return UserError(f"--out {run_folder}: cannot be written ({error.strerror}); give a folder you may write to")


@contextmanager
def _locked(run_folder: Path) -> Iterator[None]:
    """Create the run's folder and keep two processes from writing one run; the lock goes with the process.

    Raises:
        UserError: The folder cannot be written, or another process holds it.
    """
    try:
        run_folder.mkdir(parents=True, exist_ok=True)
        file = (run_folder / ".lock").open("w")
    except OSError as error:
        raise _unwritable(run_folder, error) from None
    with file:
        if not lock(file, wait=False):
            raise UserError(f"--out {run_folder}: another g2sd run is writing there; wait for it or give another --out")
        yield
