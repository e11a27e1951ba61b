"""Generic stage: what the student learns without labels, by the recipe's method."""

from dataclasses import replace
from pathlib import Path

from g2sd_deploy.artifact import Made
from g2sd_deploy.models.checkpoint import save_encoder, save_generic, save_masked
from g2sd_deploy.models.masked import GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Encoder
from g2sd_deploy.settings import G2sdSettings
from g2sd_deploy.stages.context import ENCODER_FILE, GENERIC_FILE, MASKED_FILE, Context, encoder_spec, open_dataset
from g2sd_deploy.stages.fitting import fit, make_feed, training_result, views_of
from g2sd_deploy.stages.lessons import make_lesson
from g2sd_deploy.training.loss_band import loss_band_verdict
from g2sd_deploy.training.optimizer import build_optimizer


def run(context: Context) -> Made:
    """Train the student, and keep what later stages and later students can use."""
    settings, shape = context.recipe.generic, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    lesson = make_lesson(context, settings, encoder_spec(shape, dataset.preprocessing))
    feed = make_feed(context, dataset, settings, lesson.color_jitter)
    band = settings.loss_band if isinstance(settings, G2sdSettings) else None
    log = fit(
        context,
        lesson.learner,
        build_optimizer(lesson.learner, settings),
        feed,
        lambda batch: views_of(context, batch, lesson.spec),
        band=band,
    )
    path = _save(context.folder, lesson.student)
    made = training_result(context, log, lesson.student, path, lesson.method)
    if band is None:
        return made
    return replace(made, metrics=made.metrics | {"loss_band": loss_band_verdict(log.history, log.num_steps, band)})


def _save(folder: Path, student: Encoder | MaskedAutoencoder | GenericStudent) -> Path:
    match student:
        case MaskedAutoencoder():
            path = folder / MASKED_FILE
            save_masked(path, student)
        case GenericStudent():
            path = folder / GENERIC_FILE
            save_generic(path, student)
        case Encoder():
            path = folder / ENCODER_FILE
            save_encoder(path, student)
    return path
