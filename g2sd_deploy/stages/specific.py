"""Specific stage: the student learns the labels and, through its distillation token, the fine-tuned teacher's decisions."""

import torch
from torch import Tensor

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.g2sd import hard_distillation_loss
from g2sd_deploy.models.checkpoint import ClassifierFile, load_classifier, load_generic, save_classifier
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.stages.context import (
    CLASSIFIER_FILE,
    GENERIC_FILE,
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
    """Distil the fine-tuned teacher into the generically distilled encoder."""
    settings = context.recipe.specific
    assert settings is not None
    dataset = open_dataset(context.inputs["data"])
    teacher = load_classifier(context.inputs["classifier"].file(CLASSIFIER_FILE)).model.to(context.device).requires_grad_(False)
    encoder = load_generic(context.inputs["generic"].file(GENERIC_FILE)).encoder
    seed_weights(context)
    student = Classifier(encoder.spec, len(dataset.class_names), pooling="cls", distilled=True)
    student.encoder.load_state_dict(encoder.state_dict())
    student.to(context.device)

    def loss_of(batch: Batch) -> Tensor:
        mix = mixed(context, batch, settings.mix, student.num_classes)
        with torch.no_grad():
            teacher_logits = teacher(mix.images)
        logits, dist_logits = student.forward_heads(mix.images)
        assert dist_logits is not None
        return hard_distillation_loss(logits, dist_logits, mix.targets, teacher_logits)

    optimizer = build_optimizer(
        student, settings, depth=encoder.spec.depth, layer_decay=settings.layer_decay, no_decay=student.no_weight_decay
    )
    log = fit(context, student, optimizer, make_feed(context, dataset, settings), loss_of)
    save_classifier(context.folder / CLASSIFIER_FILE, ClassifierFile(student, dataset.preprocessing, dataset.class_names))
    return training_result(context, log, student, CLASSIFIER_FILE, "G2SD specific distillation")
