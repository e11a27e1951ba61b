"""Profile stage: latency of the teacher, the student and the bundle's variants on this machine, beside the reference network."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from g2sd_deploy.artifact import Made
from g2sd_deploy.predictors import classifier_predictor
from g2sd_deploy.profiling.candidate import Candidate
from g2sd_deploy.profiling.layers import layer_tables, subjects_of_bundle
from g2sd_deploy.profiling.profile import profile_of
from g2sd_deploy.profiling.sessions import Plan
from g2sd_deploy.profiling.subjects import Wanted, bundle_candidates, dense_candidates, predictor_candidates
from g2sd_deploy.settings import ProfileSettings
from g2sd_deploy.stages.context import BUNDLE, CLASSIFIER_FILE, Context
from g2sd_deploy.stages.dense_context import task_file
from g2sd_export.bundle import open_bundle

_LAYERS_SECONDS = 2.0


def run(context: Context) -> Made:
    """Time everything in turns; a latency that is not to be believed says so, and fails nothing."""
    settings = context.recipe.profile
    assert settings is not None
    with tempfile.TemporaryDirectory(prefix="g2sd-profile.") as scratch:
        candidates = _candidates(context, settings, Path(scratch))
        found = profile_of(candidates, _plan(settings), context.progress.update)
        if settings.layers:
            found["layers"] = _layers(context, settings)
    return Made({}, timing=found)


def _candidates(context: Context, settings: ProfileSettings, scratch: Path) -> list[Candidate]:
    """Teacher and student on torch, and every variant of the bundle."""
    wanted = Wanted(settings.runtimes, {}, scratch)
    found = []
    for role in ("teacher", "student"):
        if role not in context.inputs:
            continue
        if context.recipe.task is not None:
            found += dense_candidates(role, context.inputs[role].file(task_file(context.recipe)), wanted)
        else:
            predictor = classifier_predictor(context.inputs[role].file(CLASSIFIER_FILE), torch.device("cpu"))
            found += predictor_candidates(role, predictor, wanted)
    return found + bundle_candidates("student", open_bundle(context.inputs["export"].folder / BUNDLE), Wanted((), {}, scratch))


def _layers(context: Context, settings: ProfileSettings) -> list[dict[str, Any]]:
    """Of the file that ships."""
    bundle = open_bundle(context.inputs["export"].folder / BUNDLE)
    subjects = subjects_of_bundle(bundle, [bundle.default], model="student")
    seconds = min(_LAYERS_SECONDS, settings.seconds)
    return layer_tables(subjects, batch=settings.batches[0], threads=settings.threads, seconds=seconds, tick=context.progress.update)


def _plan(settings: ProfileSettings) -> Plan:
    return Plan(
        batches=settings.batches,
        threads=(settings.threads,),
        scenarios=settings.scenarios,
        percentile=settings.percentile,
        seconds=settings.seconds,
        rate_per_s=settings.rate_per_s,
        streams=settings.streams,
    )
