"""Specific stage: the student learns the labels and, with most methods, the fine-tuned teacher's predictions."""

from collections.abc import Callable

import torch
from torch import Tensor

from g2sd_deploy.artifact import Made
from g2sd_deploy.methods.classification import ClassifierLoss, label_loss
from g2sd_deploy.methods.specific import hard_distillation_loss, nkd_loss, soft_distillation_loss
from g2sd_deploy.methods.views import LabelledViews
from g2sd_deploy.models.checkpoint import load_classifier, load_encoder
from g2sd_deploy.models.vit import Classifier, EncoderSpec, start_from
from g2sd_deploy.settings import (
    CustomSpecificSettings,
    FinetuneOnlySettings,
    HardDistillationSettings,
    NkdSettings,
    Precision,
    SoftDistillationSettings,
    SpecificSettings,
)
from g2sd_deploy.stages.context import CLASSIFIER_FILE, Context, encoder_file, encoder_spec, frozen, open_dataset, seed_weights
from g2sd_deploy.stages.custom import check_call, load_named
from g2sd_deploy.stages.fitting import train_classifier

TeacherLoss = Callable[[Tensor, Tensor | None, Tensor, Tensor], Tensor]


def run(context: Context) -> Made:
    """Train the encoder of the generic stage as a classifier."""
    settings, shape = context.recipe.specific, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    encoder = load_encoder(encoder_file(context.inputs["generic"]))
    spec = encoder_spec(shape, dataset.preprocessing)
    _warn_of_other_heads(context, encoder.spec, spec)
    seed_weights(context)
    token = "none" if isinstance(settings, FinetuneOnlySettings | NkdSettings) else settings.token
    student = Classifier(spec, len(dataset.class_names), pooling=settings.pooling, token=token)
    start_from(student, encoder)
    return train_classifier(context, student, dataset, settings, _loss_of(context, settings), method=_METHODS[settings.method])


_METHODS = {
    "finetune": "plain fine-tuning",
    "hard": "G2SD specific distillation (hard decisions)",
    "soft": "soft distillation",
    "nkd": "normalised knowledge distillation",
    "custom": "custom specific method",
}


def _loss_of(context: Context, settings: SpecificSettings) -> ClassifierLoss:
    match settings:
        case FinetuneOnlySettings():
            return label_loss
        case HardDistillationSettings():
            return _with_teacher(context, settings.precision, _hard)
        case SoftDistillationSettings(temperature=temperature, alpha=alpha):
            return _with_teacher(
                context,
                settings.precision,
                lambda logits, dist, targets, teacher: soft_distillation_loss(
                    logits, dist, targets, teacher, temperature=temperature, alpha=alpha
                ),
            )
        case NkdSettings(temperature=temperature, gamma=gamma):
            return _with_teacher(
                context,
                settings.precision,
                lambda logits, _, targets, teacher: nkd_loss(logits, targets, teacher, temperature=temperature, gamma=gamma),
            )
        case CustomSpecificSettings(loss=name, options=options):
            loss = load_named(name, "specific.loss")
            check_call(loss, 4, options, name, "specific.loss")
            if "classifier" not in context.inputs:
                return lambda logits, dist, views: loss(logits, dist, views.targets, None, **options)
            return _with_teacher(
                context, settings.precision, lambda logits, dist, targets, teacher: loss(logits, dist, targets, teacher, **options)
            )


def _hard(logits: Tensor, dist_logits: Tensor | None, targets: Tensor, teacher_logits: Tensor) -> Tensor:
    assert dist_logits is not None
    return hard_distillation_loss(logits, dist_logits, targets, teacher_logits)


def _with_teacher(context: Context, precision: Precision, loss: TeacherLoss) -> ClassifierLoss:
    """Ask the teacher about the student's (mixed) images."""
    teacher = frozen(context, load_classifier(context.inputs["classifier"].file(CLASSIFIER_FILE)).model, precision)

    def of(logits: Tensor, dist_logits: Tensor | None, views: LabelledViews) -> Tensor:
        with torch.no_grad():
            teacher_logits = teacher(views.images)
        return loss(logits, dist_logits, views.targets, teacher_logits)

    return of


def _warn_of_other_heads(context: Context, trained: EncoderSpec, shipped: EncoderSpec) -> None:
    if trained.heads != shipped.heads:
        context.warn(
            f"the encoder was pre-trained with {trained.heads} attention heads and is fine-tuned with {shipped.heads}: the weights fit, "
            "but they compute another function, and fine-tuning has to repair it; make generic.heads and student.heads agree to avoid this"
        )
