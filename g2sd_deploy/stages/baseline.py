"""Baseline stage: the student's architecture trained from scratch on labels alone."""

from torch import Tensor

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.classification import soft_cross_entropy
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.stages.context import (
    CLASSIFIER_FILE,
    Context,
    encoder_spec,
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
    """Train the student's encoder and a head on labels."""
    settings, shape = context.recipe.baseline, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    seed_weights(context)
    spec = encoder_spec(shape, dataset.preprocessing)
    model = Classifier(spec, len(dataset.class_names), pooling=settings.pooling, distilled=False).to(context.device)

    def loss_of(batch: Batch) -> Tensor:
        mix = mixed(context, batch, settings.mix, model.num_classes)
        return soft_cross_entropy(model(mix.images), mix.targets)

    optimizer = build_optimizer(model, settings, no_decay=model.no_weight_decay)
    log = fit(context, model, optimizer, make_feed(context, dataset, settings), loss_of)
    save_classifier(context.folder / CLASSIFIER_FILE, ClassifierFile(model, dataset.preprocessing, dataset.class_names))
    return training_result(context, log, model, CLASSIFIER_FILE, "supervised training from scratch")
