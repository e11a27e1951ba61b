"""Pre-training stage: MAE makes a teacher that can reconstruct."""

import torch

from g2sd_deploy.artifact import Made
from g2sd_deploy.models.checkpoint import save_masked
from g2sd_deploy.stages.context import MASKED_FILE, Context, encoder_spec, open_dataset
from g2sd_deploy.stages.fitting import fit, make_feed, training_result, views_of
from g2sd_deploy.stages.lessons import make_mae
from g2sd_deploy.training.optimizer import build_optimizer


def run(context: Context) -> Made:
    """Train encoder and decoder on pixels."""
    settings = context.recipe.pretrain
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    spec = encoder_spec(settings.encoder, dataset.preprocessing)
    model, learner = make_mae(context, settings, spec)
    feed = make_feed(context, dataset, settings)
    log = fit(context, learner, build_optimizer(learner, settings), feed, lambda batch: views_of(context, batch, spec))
    path = context.folder / MASKED_FILE
    save_masked(path, model, getattr(torch, settings.weights))
    return training_result(context, log, model, path, "MAE pre-training")
