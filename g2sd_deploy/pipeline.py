"""Run a recipe's stages: each leaves one artifact, and a stage whose artifact is up to date is skipped."""

import errno
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from g2sd_deploy import environment
from g2sd_deploy.artifact import MARKER, Artifact, commit, digest_of, read_artifact, sha256_of, unfinished_folder
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.planning import SHARED_STAGES, TRAINING_STAGES, Stage, Step, identity_of, parents_by_stage, select_stages, why_run
from g2sd_deploy.progress import Progress
from g2sd_deploy.ranks import Ranks
from g2sd_deploy.run_folder import check_folder, locked, record_run
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe
from g2sd_deploy.warnings_file import WARNINGS_FILE, KeptWarnings

if TYPE_CHECKING:
    from g2sd_deploy.artifact import Made
    from g2sd_deploy.training.tracking import Trackers

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


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
    steps = list[Step]()
    failed: dict[str, str] = {}
    ranks = runtime.ranks
    with ExitStack() as until_done:

        def begin() -> list[Stage]:
            stages = select_stages(recipe, until, force)
            check_folder(recipe, run_folder)
            until_done.enter_context(locked(run_folder))
            _clear_leftovers(run_folder)
            record_run(recipe, run_folder, command, parents_by_stage(stages))
            return stages

        to_do = ranks.from_main(begin)
        if ranks.is_main:
            progress = KeptWarnings(progress, run_folder / WARNINGS_FILE)
        for stage in to_do:
            if stage.name != "report" and failed.keys() & set(stage.parents.values()):
                failed[stage.name] = ""
                if ranks.is_main:
                    shutil.rmtree(run_folder / stage.name, ignore_errors=True)
                continue
            reason = ranks.from_main(partial(why_run, recipe, stage, run_folder, force)) or _shows_news(stage, steps)
            artifact = _execute(recipe, stage, run_folder, runtime, progress) if reason else _finished(run_folder / stage.name)
            if artifact.failure:
                failed[stage.name] = artifact.failure
            steps.append(Step(stage, bool(reason), reason or "up to date"))
    if failed:
        raise RunFailed("; ".join(f"{name}: {reason}" for name, reason in failed.items() if reason))
    return steps


def _shows_news(stage: Stage, steps: Sequence[Step]) -> str:
    """Why the report is made again where no digest tells: times and latencies are on the page, and in no digest."""
    ran = [step.stage.name for step in steps if step.runs]
    return f"after {', '.join(ran)}" if stage.name == "report" and ran else ""


def _execute(recipe: Recipe, stage: Stage, run_folder: Path, runtime: Runtime, progress: Progress) -> Artifact:
    """Compute a stage: training and evaluation in every process, anything else in the first."""
    ranks = runtime.ranks
    if stage.name in SHARED_STAGES:
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

    identity = identity_of(recipe, stage, run_folder)
    parents = {role: run_folder / name for role, name in stage.parents.items() if name in identity.parents}
    inputs = runtime.ranks.from_main(lambda: {role: _verified(folder) for role, folder in parents.items()})
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
