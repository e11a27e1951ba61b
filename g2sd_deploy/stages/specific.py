"""Specific stage: the student learns the labels and, with most methods, the fine-tuned teacher's predictions."""

from g2sd_deploy.artifact import Made
from g2sd_deploy.models.vit import Classifier, EncoderSpec, start_from
from g2sd_deploy.settings import CwdSettings, FinetuneOnlySettings, FrsSettings, NkdSettings
from g2sd_deploy.stages.context import Context, encoder_spec, open_dataset, seed_weights
from g2sd_deploy.stages.dense_training import train_student
from g2sd_deploy.stages.fitting import train_classifier
from g2sd_deploy.stages.student_start import student_start
from g2sd_deploy.stages.task_losses import task_loss


def run(context: Context) -> Made:
    """Train the encoder of the generic stage, or that of `student.weights`, as a classifier."""
    if context.recipe.task is not None:
        return train_student(context)
    settings, shape = context.recipe.specific, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    encoder = student_start(context)
    spec = encoder_spec(shape, dataset.preprocessing)
    _warn_of_other_heads(context, encoder.spec, spec)
    seed_weights(context)
    token = "none" if isinstance(settings, FinetuneOnlySettings | NkdSettings | CwdSettings | FrsSettings) else settings.token
    student = Classifier(spec, len(dataset.class_names), pooling=settings.pooling, token=token)
    start_from(student, encoder)
    loss = task_loss(context, settings, settings.precision)
    return train_classifier(context, student, dataset, settings, loss, method=_METHODS[settings.method])


_METHODS = {
    "finetune": "plain fine-tuning",
    "hard": "G2SD specific distillation (hard decisions)",
    "soft": "soft distillation",
    "nkd": "normalised knowledge distillation",
    "custom": "custom specific method",
}


def _warn_of_other_heads(context: Context, trained: EncoderSpec, shipped: EncoderSpec) -> None:
    if trained.heads != shipped.heads:
        context.warn(
            f"the encoder was pre-trained with {trained.heads} attention heads and is fine-tuned with {shipped.heads}: the weights fit, "
            "but they compute another function, and fine-tuning has to repair it; make generic.heads and student.heads agree to avoid this"
        )
