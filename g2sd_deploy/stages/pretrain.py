"""Pre-training stage: MAE makes a teacher that can reconstruct."""

import torch

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.mae import MaeLearner
from g2sd_deploy.models.checkpoint import save_masked
from g2sd_deploy.models.masked import DecoderSpec, MaskedAutoencoder
from g2sd_deploy.stages.context import MASKED_FILE, Context, encoder_spec, open_dataset, seed_weights
from g2sd_deploy.stages.fitting import fit, make_feed, training_result, views_of
from g2sd_deploy.training.optimizer import build_optimizer


def run(context: Context) -> Made:
    """Train encoder and decoder on pixels."""
    settings = context.recipe.pretrain
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    seed_weights(context)
    spec = encoder_spec(settings.encoder, dataset.preprocessing)
    model = MaskedAutoencoder(spec, DecoderSpec(settings.decoder.width, settings.decoder.depth, settings.decoder.heads))
    learner = MaeLearner(model, mask_ratio=settings.mask_ratio, norm_pix=settings.norm_pix).to(context.device)
    feed = make_feed(context, dataset, settings)
    log = fit(context, learner, build_optimizer(learner, settings), feed, lambda batch: learner(views_of(context, batch, spec)))
    path = context.folder / MASKED_FILE
    save_masked(path, model, getattr(torch, settings.weights))
    return training_result(context, log, model, path, "MAE pre-training")
