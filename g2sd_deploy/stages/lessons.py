"""The methods of the generic stage, each made ready to be trained: student, frozen teacher and learner."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.methods.dmae import DmaeLearner
from g2sd_deploy.methods.g2sd import G2sdLearner
from g2sd_deploy.methods.mae import MaeLearner
from g2sd_deploy.methods.tinymim import TinymimLearner
from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.checkpoint import load_encoder, load_masked
from g2sd_deploy.models.masked import DecoderSpec, FeatureStudent, GenericStudent, Mask, MaskedAutoencoder
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.settings import (
    CustomGenericSettings,
    DecoderSettings,
    DmaeSettings,
    G2sdSettings,
    GenericSettings,
    MaeSettings,
    Precision,
    PretrainSettings,
    TinymimSettings,
)
from g2sd_deploy.stages.context import MASKED_FILE, Context, encoder_file, frozen, seed_weights
from g2sd_deploy.stages.custom import check_call, load_named


@dataclass(frozen=True)
class Lesson:
    """A method ready to be trained.

    Attributes:
        learner: What is trained: images and draws to named loss terms.
        student: The part of it that is kept.
        spec: Shape of the student's encoder in this stage.
        method: Said in the metrics.
        color_jitter: Strength of the jitter of the student's view.
    """

    learner: nn.Module
    student: Encoder | MaskedAutoencoder | GenericStudent
    spec: EncoderSpec
    method: str
    color_jitter: float = 0.0


def make_lesson(context: Context, settings: GenericSettings, spec: EncoderSpec) -> Lesson:
    """Load the teacher, initialise the student and put both together.

    Args:
        spec: Shape of the student's encoder as it ships.

    Raises:
        UserError: The teacher cannot teach this student with this method.
    """
    match settings:
        case G2sdSettings(decoder=None):
            return _g2sd_encoder(context, settings, spec)
        case G2sdSettings():
            return _g2sd(context, settings, spec)
        case DmaeSettings():
            return _dmae(context, settings, spec)
        case TinymimSettings():
            return _tinymim(context, settings, spec)
        case MaeSettings():
            model, learner = make_mae(context, settings, spec)
            return Lesson(learner, model, spec, "MAE pre-training of the student")
        case CustomGenericSettings():
            return _custom(context, settings, spec)


def make_mae(context: Context, settings: MaeSettings | PretrainSettings, spec: EncoderSpec) -> tuple[MaskedAutoencoder, MaeLearner]:
    """A masked autoencoder, of a student or of a teacher, and what trains it."""
    seed_weights(context)
    model = MaskedAutoencoder(spec, _decoder_spec(settings.decoder))
    return model, MaeLearner(model, mask_ratio=settings.mask_ratio, norm_pix=settings.norm_pix)


def _g2sd(context: Context, settings: G2sdSettings, spec: EncoderSpec) -> Lesson:
    teacher, block, decoder = _masked_teacher(context, settings.precision), settings.teacher_decoder_block, settings.decoder
    assert block is not None and decoder is not None
    _check_patches(teacher.encoder.spec, spec)
    _check_block("teacher_decoder_block", block, teacher.decoder.spec.depth, "the teacher's decoder")
    seed_weights(context)
    student = GenericStudent(spec, _decoder_spec(decoder), teacher.decoder.spec.width)

    def target(images: Tensor, mask: Mask) -> Tensor:
        return teacher.hidden_states(images, mask, block)

    masked_only = settings.supervise == "masked"
    learner = G2sdLearner(student, target, mask_ratio=settings.mask_ratio, masked_only=masked_only)
    return Lesson(learner, student, spec, "G2SD generic distillation")


def _g2sd_encoder(context: Context, settings: G2sdSettings, spec: EncoderSpec) -> Lesson:
    teacher, block = _encoder_teacher(context, settings.precision), settings.teacher_encoder_block
    assert block is not None
    _check_patches(teacher.spec, spec)
    _check_block("teacher_encoder_block", block, teacher.spec.depth, "the teacher")
    seed_weights(context)
    student = FeatureStudent(spec, teacher.spec.width)
    learner = G2sdLearner(student, _visible_features(teacher, block), mask_ratio=settings.mask_ratio)
    return Lesson(learner, student.encoder, spec, "G2SD generic distillation of the encoder")


def _dmae(context: Context, settings: DmaeSettings, spec: EncoderSpec) -> Lesson:
    teacher = _encoder_teacher(context, settings.precision)
    _check_patches(teacher.spec, spec)
    _check_block("teacher_block", settings.teacher_block, teacher.spec.depth, "the teacher")
    seed_weights(context)
    student = MaskedAutoencoder(spec, _decoder_spec(settings.decoder))
    learner = DmaeLearner(
        student,
        _visible_features(teacher, settings.teacher_block),
        teacher_width=teacher.spec.width,
        student_block=settings.student_block,
        mask_ratio=settings.mask_ratio,
        norm_pix=settings.norm_pix,
        distance=settings.distance,
        align_weight=settings.align_weight,
    )
    return Lesson(learner, student, spec, "DMAE")


def _tinymim(context: Context, settings: TinymimSettings, spec: EncoderSpec) -> Lesson:
    teacher = _encoder_teacher(context, settings.precision)
    _check_patches(teacher.spec, spec)
    _check_block("teacher_block", settings.teacher_block, teacher.spec.depth, "the teacher")
    heads = settings.relation_heads or teacher.spec.heads
    for who, width in (("student", spec.width), ("teacher", teacher.spec.width)):
        if width % heads:
            raise UserError(f"{heads} heads of relations do not divide the {who}'s width {width}; set generic.relation_heads")
    trained = replace(spec, heads=settings.heads or spec.heads)
    if heads != spec.heads:
        context.warn(
            f"the student's last block learns relations of {heads} heads and is fine-tuned with {spec.heads}, as TinyMIM's adaptive last "
            "block is: the weights fit, but that block computes another function then"
        )
    seed_weights(context)
    student = Encoder(trained)

    def target(images: Tensor) -> Tensor:
        return teacher.qkv(images, settings.teacher_block)

    learner = TinymimLearner(student, target, heads=heads, drop_path=settings.drop_path)
    return Lesson(learner, student, trained, "TinyMIM", settings.color_jitter)


def _custom(context: Context, settings: CustomGenericSettings, spec: EncoderSpec) -> Lesson:
    builder = load_named(settings.builder, "generic.builder")
    teacher: nn.Module | None = None
    if "masked" in context.inputs:
        has_decoder = MASKED_FILE in context.inputs["masked"].files
        teacher = _masked_teacher(context, "fp32") if has_decoder else _encoder_teacher(context, "fp32")
    seed_weights(context)
    student = Encoder(spec)
    check_call(builder, 2, settings.options, settings.builder, "generic.builder")
    learner = builder(student, teacher, **settings.options)
    if not isinstance(learner, nn.Module):
        raise UserError(
            f"generic.builder {settings.builder} returned {type(learner).__name__}; wanted a torch.nn.Module that gives loss terms"
        )
    trained = {id(parameter) for parameter in learner.parameters()}
    if not all(id(parameter) in trained for parameter in student.parameters()):
        raise UserError(
            f"generic.builder {settings.builder} returned a module that does not hold the student; keep it as an attribute of the module, "
            "so that it is trained"
        )
    return Lesson(_Checked(learner, settings.builder), student, spec, f"custom method {settings.builder}", settings.color_jitter)


class _Checked(nn.Module):
    """A method of the user's own, refused where it does not give loss terms."""

    def __init__(self, learner: nn.Module, name: str) -> None:
        super().__init__()
        self.learner = learner
        self.name = name

    def forward(self, views: Views) -> dict[str, Tensor]:
        terms = self.learner(views)
        if not isinstance(terms, dict):
            raise UserError(
                f"custom method {self.name} gives {type(terms).__name__}; wanted a dict of named loss terms, as docs/methods.md shows"
            )
        return terms


def _masked_teacher(context: Context, precision: Precision) -> MaskedAutoencoder:
    return frozen(context, load_masked(context.inputs["masked"].file(MASKED_FILE)), precision)


def _encoder_teacher(context: Context, precision: Precision) -> Encoder:
    return frozen(context, load_encoder(encoder_file(context.inputs["masked"])), precision)


def _visible_features(teacher: Encoder, block: int) -> Callable[[Tensor, Mask], Tensor]:
    """What the teacher's encoder makes of the class token and the visible patches, after one of its blocks."""

    def target(images: Tensor, mask: Mask) -> Tensor:
        return teacher.features(images, mask.keep_ids, taps=(block,))[0]

    return target


def _decoder_spec(settings: DecoderSettings) -> DecoderSpec:
    return DecoderSpec(settings.width, settings.depth, settings.heads)


def _check_patches(teacher: EncoderSpec, student: EncoderSpec) -> None:
    if (teacher.image_px, teacher.patch_px, teacher.num_channels) != (student.image_px, student.patch_px, student.num_channels):
        raise UserError(
            f"the teacher sees {teacher.num_channels} x {teacher.image_px} px images in {teacher.patch_px} px patches, "
            f"the student {student.num_channels} x {student.image_px} px in {student.patch_px} px; they share one mask, "
            "so make data and student.patch_px agree"
        )


def _check_block(setting: str, block: int, depth: int, owner: str) -> None:
    if block > depth:
        raise UserError(f"generic.{setting} is {block}, but {owner} has {depth} blocks")
