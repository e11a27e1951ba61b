"""The losses of the specific methods, with the teacher that they ask; the stages that train with labels and a teacher share them."""

from collections.abc import Callable

import torch
from torch import Tensor

from g2sd_deploy.methods.classification import ClassifierLoss, label_loss
from g2sd_deploy.methods.specific import hard_distillation_loss, nkd_loss, soft_distillation_loss
from g2sd_deploy.methods.views import LabelledViews
from g2sd_deploy.models.checkpoint import load_classifier
from g2sd_deploy.settings import (
    CustomSpecificSettings,
    CwdSettings,
    FinetuneOnlySettings,
    FrsSettings,
    HardDistillationSettings,
    NkdSettings,
    Precision,
    SoftDistillationSettings,
    SpecificSettings,
)
from g2sd_deploy.stages.context import CLASSIFIER_FILE, Context, frozen
from g2sd_deploy.stages.custom import check_call, load_named

TeacherLoss = Callable[[Tensor, Tensor | None, Tensor, Tensor], Tensor]


def task_loss(context: Context, settings: SpecificSettings, precision: Precision) -> ClassifierLoss:
    """The loss of a specific method; its teacher is loaded from the inputs.

    Args:
        context: Holds the teacher as its input `classifier`, where the method asks one.
        settings: The method with its own settings; those of training are not read.
        precision: Number format that the stage computes with.

    Raises:
        UserError: A loss of the user's own cannot be imported, or does not take its options.
    """
    match settings:
        case FinetuneOnlySettings():
            return label_loss
        case HardDistillationSettings():
            return _with_teacher(context, precision, _hard)
        case SoftDistillationSettings(temperature=temperature, alpha=alpha):
            return _with_teacher(
                context,
                precision,
                lambda logits, dist, targets, teacher: soft_distillation_loss(
                    logits, dist, targets, teacher, temperature=temperature, alpha=alpha
                ),
            )
        case NkdSettings(temperature=temperature, gamma=gamma):
            return _with_teacher(
                context,
                precision,
                lambda logits, _, targets, teacher: nkd_loss(logits, targets, teacher, temperature=temperature, gamma=gamma),
            )
        case CwdSettings() | FrsSettings():
            raise AssertionError(f"{settings.method} is for a task, and this is a classifier")
        case CustomSpecificSettings(loss=name, options=options):
            loss = load_named(name, "specific.loss")
            check_call(loss, 4, options, name, "specific.loss")
            if "classifier" not in context.inputs:
                return lambda logits, dist, views: loss(logits, dist, views.targets, None, **options)
            return _with_teacher(context, precision, lambda logits, dist, targets, teacher: loss(logits, dist, targets, teacher, **options))


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
