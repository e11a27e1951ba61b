"""Fine-tuning stage: the pre-trained teacher learns the labels."""

import torch
from torch import Tensor, nn

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.classification import soft_cross_entropy
from g2sd_deploy.models.checkpoint import ClassifierFile, load_masked, save_classifier
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.stages.context import (
    CLASSIFIER_FILE,
    MASKED_FILE,
    Context,
    fit,
    make_feed,
    mixed,
    open_dataset,
    seed_weights,
    training_result,
)
from g2sd_deploy.training.loop import Batch
from g2sd_deploy.training.optimizer import build_optimizer


def run(context: Context) -> Made:
    """Train the encoder and a new head on labels."""
    settings = context.recipe.finetune
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    encoder = load_masked(context.inputs["masked"].file(MASKED_FILE)).encoder
    seed_weights(context)
    model = Classifier(encoder.spec, len(dataset.class_names), pooling=settings.pooling, distilled=False)
    model.encoder.load_state_dict(encoder.state_dict())
    if settings.pooling == "mean":
        # As MAE's fc_norm: pooled patches have other statistics than the tokens that this norm was trained on.
        model.encoder.norm = nn.LayerNorm(encoder.spec.width, eps=1e-6)
    model.to(context.device)

    def loss_of(batch: Batch) -> Tensor:
        mix = mixed(context, batch, settings.mix, model.num_classes)
        return soft_cross_entropy(model(mix.images), mix.targets)

    optimizer = build_optimizer(model, settings, depth=encoder.spec.depth, layer_decay=settings.layer_decay, no_decay=model.no_weight_decay)
    log = fit(context, model, optimizer, make_feed(context, dataset, settings), loss_of)
    file = ClassifierFile(model, dataset.preprocessing, dataset.class_names)
    save_classifier(context.folder / CLASSIFIER_FILE, file, getattr(torch, settings.weights))
    return training_result(context, log, model, CLASSIFIER_FILE, "supervised fine-tuning")
