"""Fine-tuning stage: the pre-trained teacher learns the labels."""

import torch

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.classification import label_loss
from g2sd_deploy.models.checkpoint import load_encoder
from g2sd_deploy.models.vit import Classifier, start_from
from g2sd_deploy.stages.context import Context, encoder_file, open_dataset, seed_weights
from g2sd_deploy.stages.dense_training import train_teacher
from g2sd_deploy.stages.fitting import train_classifier


def run(context: Context) -> Made:
    """Train the encoder and a new head on labels."""
    if context.recipe.task is not None:
        return train_teacher(context)
    settings = context.recipe.finetune
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    encoder = load_encoder(encoder_file(context.inputs["masked"]))
    seed_weights(context)
    model = Classifier(encoder.spec, len(dataset.class_names), pooling=settings.pooling)
    start_from(model, encoder)
    return train_classifier(
        context,
        model,
        dataset,
        settings,
        label_loss,
        method="supervised fine-tuning",
        dtype=getattr(torch, settings.weights),
    )
