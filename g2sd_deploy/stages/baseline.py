"""Baseline stage: the student's architecture trained from scratch on labels alone."""

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.classification import label_loss
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.stages.context import Context, encoder_spec, open_dataset, seed_weights
from g2sd_deploy.stages.fitting import train_classifier


def run(context: Context) -> Made:
    """Train the student's encoder and a head on labels."""
    settings, shape = context.recipe.baseline, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    seed_weights(context)
    model = Classifier(encoder_spec(shape, dataset.preprocessing), len(dataset.class_names), pooling=settings.pooling)
    return train_classifier(
        context,
        model,
        dataset,
        settings,
        label_loss,
        method="supervised training from scratch",
    )
