"""Pre-training stage: MAE makes a teacher that can reconstruct."""

import torch
from torch import Tensor

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.mae import masked_pixel_loss
from g2sd_deploy.models.checkpoint import save_masked
from g2sd_deploy.models.masked import DecoderSpec, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import patchify
from g2sd_deploy.stages.context import (
    MASKED_FILE,
    Context,
    encoder_spec,
    fit,
    make_feed,
    mask_noise,
    open_dataset,
    seed_weights,
    training_result,
)
from g2sd_deploy.training.loop import Batch
from g2sd_deploy.training.optimizer import build_optimizer


def run(context: Context) -> Made:
    """Train encoder and decoder on pixels."""
    settings = context.recipe.pretrain
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    seed_weights(context)
    spec = encoder_spec(settings.encoder, dataset.preprocessing)
    model = MaskedAutoencoder(spec, DecoderSpec(settings.decoder.width, settings.decoder.depth, settings.decoder.heads)).to(context.device)

    def loss_of(batch: Batch) -> Tensor:
        mask = mask_from_noise(mask_noise(context, batch, spec.num_patches), settings.mask_ratio)
        return masked_pixel_loss(model(batch.images, mask), patchify(batch.images, spec.patch_px), mask.hidden, norm_pix=settings.norm_pix)

    log = fit(context, model, build_optimizer(model, settings), make_feed(context, dataset, settings), loss_of)
    save_masked(context.folder / MASKED_FILE, model, getattr(torch, settings.weights))
    return training_result(context, log, model, MASKED_FILE, "MAE pre-training")
