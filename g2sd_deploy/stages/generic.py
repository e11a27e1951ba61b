"""Generic stage: the student's decoder learns the hidden states of the teacher's decoder under a shared mask."""

import torch
from torch import Tensor

from g2sd_deploy.artifact import Made
from g2sd_deploy.errors import UserError
from g2sd_deploy.methods.g2sd import hidden_feature_loss
from g2sd_deploy.models.checkpoint import load_masked, save_generic
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.stages.context import (
    GENERIC_FILE,
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
    """Distil the masked teacher into a student encoder with a small decoder."""
    settings, shape = context.recipe.generic, context.recipe.student
    assert settings is not None and shape is not None
    dataset = open_dataset(context.inputs["data"])
    teacher = load_masked(context.inputs["masked"].file(MASKED_FILE)).to(context.device).requires_grad_(False)
    spec = encoder_spec(shape, dataset.preprocessing)
    _check_teacher(teacher, spec, settings.teacher_decoder_block)
    seed_weights(context)
    decoder = DecoderSpec(settings.decoder.width, settings.decoder.depth, settings.decoder.heads)
    student = GenericStudent(spec, decoder, teacher.decoder.spec.width).to(context.device)

    def loss_of(batch: Batch) -> Tensor:
        mask = mask_from_noise(mask_noise(context, batch, spec.num_patches), settings.mask_ratio)
        with torch.no_grad():
            target = teacher.hidden_states(batch.images, mask, settings.teacher_decoder_block)
        return hidden_feature_loss(student(batch.images, mask), target)

    log = fit(context, student, build_optimizer(student, settings), make_feed(context, dataset, settings), loss_of)
    save_generic(context.folder / GENERIC_FILE, student)
    return training_result(context, log, student, GENERIC_FILE, "G2SD generic distillation")


def _check_teacher(teacher: MaskedAutoencoder, student: EncoderSpec, block: int) -> None:
    spec = teacher.encoder.spec
    if (spec.image_px, spec.patch_px, spec.num_channels) != (student.image_px, student.patch_px, student.num_channels):
        raise UserError(
            f"the teacher sees {spec.num_channels} x {spec.image_px} px images in {spec.patch_px} px patches, "
            f"the student {student.num_channels} x {student.image_px} px in {student.patch_px} px; they share one mask, "
            "so make data and student.patch_px agree"
        )
    if block > teacher.decoder.spec.depth:
        raise UserError(f"generic.teacher_decoder_block is {block}, but the teacher's decoder has {teacher.decoder.spec.depth} blocks")
