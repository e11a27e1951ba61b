"""What the export stage does for a task: every file that the target asks for, proven by pixels or objects, and the bundle."""

import tempfile
from pathlib import Path

from g2sd_deploy.artifact import Made, sha256_of
from g2sd_deploy.exporting import failure_of, figures, timings
from g2sd_deploy.exporting_dense import DenseJob, export_dense
from g2sd_deploy.models.dense.network_file import NETWORK_OF, load_network
from g2sd_deploy.settings import SegmentationSettings
from g2sd_deploy.stages.context import BUNDLE, Context
from g2sd_deploy.stages.dense_context import open_dense_dataset, task_file
from g2sd_export.targets import load_target


def export_task(context: Context) -> Made:
    """Export the student; where its proof fails, the bundle is kept and marked failed."""
    settings, task = context.recipe.export, context.recipe.task
    assert settings is not None and task is not None
    student, images = context.inputs["student"], context.inputs["data"].metrics["description"]
    path = student.file(task_file(context.recipe))
    dataset = open_dense_dataset(context.inputs["data"])
    job = DenseJob(
        name=context.recipe.name,
        file=load_network(path, NETWORK_OF[task.kind]),
        weights_sha256=sha256_of(path),
        samples=dataset.test,
        train=dataset.train,
        target=load_target(settings.target).narrowed(settings.only, settings.max_quantisers),
        settings=settings,
        output=task.output if isinstance(task, SegmentationSettings) else None,
        train_source=f"{images}, training images",
        test_source=f"{images}, test images",
        provenance={"recipe": context.recipe.name, "student": student.digest},
    )
    with tempfile.TemporaryDirectory(prefix="export.") as scratch:
        exported = export_dense(job, scratch=Path(scratch), folder=context.folder / BUNDLE, tick=context.progress.update)
        metrics = {"bundle": BUNDLE, **figures(exported)}
    return Made(metrics, timing=timings(exported), failure=failure_of(metrics))
