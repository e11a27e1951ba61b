"""Export stage: every file that the target asks for, proven equal to the student, and the bundle."""

import tempfile
from pathlib import Path

import torch

from g2sd_deploy.artifact import Made, sha256_of
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.exporting import Job, Source, export_bundle, failure_of, figures, timings
from g2sd_deploy.models.checkpoint import load_classifier
from g2sd_deploy.stages.context import BUNDLE, CLASSIFIER_FILE, Context, classifier_to_quantise, open_dataset
from g2sd_deploy.stages.dense_export import export_task
from g2sd_deploy.standing import standing
from g2sd_export.targets import load_target


def run(context: Context) -> Made:
    """Export the student; where its proof fails, the bundle is kept and marked failed."""
    if context.recipe.task is not None:
        return export_task(context)
    settings = context.recipe.export
    assert settings is not None
    dataset, student = open_dataset(context.inputs["data"]), context.inputs["student"]
    images = context.inputs["data"].metrics["description"]
    job = Job(
        name=context.recipe.name,
        source=_source(student.file(CLASSIFIER_FILE)),
        test=dataset.test,
        target=load_target(settings.target).narrowed(settings.only, settings.max_quantisers),
        settings=settings,
        train=dataset.train,
        train_source=f"{images}, training images",
        test_source=f"{images}, test images",
        quantised=_source(classifier_to_quantise(context.inputs)) if "quantised" in context.inputs else None,
        provenance={"recipe": context.recipe.name, "student": student.digest},
    )
    tick = context.progress.update
    reference = TorchRunner(job.asked.module, job.source.preprocessing, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory(prefix="export.") as scratch:
        exported = export_bundle(job, reference, scratch=Path(scratch), folder=context.folder / BUNDLE, tick=tick)
        scores = standing(job, exported.shipment, workers=context.runtime.num_threads, seed=context.recipe.seed, tick=tick)
        metrics = {"bundle": BUNDLE, **figures(exported), "standing": scores}
    return Made(metrics, timing=timings(exported), failure=failure_of(metrics))


def _source(path: Path) -> Source:
    file = load_classifier(path)
    return Source(file.model, file.preprocessing, file.class_names, sha256_of(path))
