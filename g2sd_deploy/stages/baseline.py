"""Baseline stage: the student's architecture trained on labels alone."""

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.classification import label_loss
from g2sd_deploy.models.vit import Classifier, start_from
from g2sd_deploy.stages.context import Context, encoder_spec, open_dataset, seed_weights
from g2sd_deploy.stages.dense_training import BASELINES, train_baseline
from g2sd_deploy.stages.fitting import train_classifier
from g2sd_deploy.stages.student_start import student_start


def run(context: Context) -> Made:
    """Train the student's encoder and a head on labels."""
    if context.recipe.task is not None:
        return train_baseline(context)
    settings, shape = context.recipe.baseline, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    seed_weights(context)
    model = Classifier(encoder_spec(shape, dataset.preprocessing), len(dataset.class_names), pooling=settings.pooling)
    if settings.start == "generic":
        start_from(model, student_start(context))
    return train_classifier(context, model, dataset, settings, label_loss, method=BASELINES[settings.start])
