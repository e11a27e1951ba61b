"""What a recipe says of a method is what the method is made with: its teacher's block, its student's shape and every other setting."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.methods.dmae import DmaeLearner
from g2sd_deploy.methods.g2sd import G2sdLearner
from g2sd_deploy.methods.mae import MaeLearner
from g2sd_deploy.methods.tinymim import TinymimLearner
from g2sd_deploy.models.checkpoint import load_masked
from g2sd_deploy.models.masked import DecoderSpec, FeatureStudent, GenericStudent, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages import generic, pretrain
from g2sd_deploy.stages.context import Context
from g2sd_deploy.stages.lessons import Lesson, make_lesson

SPEC = EncoderSpec(28, 7, 1, width=8, depth=2, heads=1)
DECODER = {"width": 12, "depth": 3, "heads": 3}
Make = Callable[..., Lesson]


@pytest.fixture
def make(make_context: Callable[..., Context], recipe_with: Callable[..., Recipe]) -> Make:
    """A method with the given settings, in the tiny recipe."""

    def lesson(**settings: Any) -> Lesson:
        context = make_context("generic", recipe_with(generic=settings))
        assert context.recipe.generic is not None
        return make_lesson(context, context.recipe.generic, SPEC)

    return lesson


@pytest.fixture
def teacher(artifact_of: Callable[[str], Artifact]) -> MaskedAutoencoder:
    return load_masked(artifact_of("pretrain").file("masked.safetensors"))


IMAGES = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
MASK = mask_from_noise(torch.rand(2, 16, generator=torch.Generator().manual_seed(1)), 0.75)


@pytest.mark.parametrize(("block", "supervise", "mask_ratio"), [(1, "all", 0.5), (2, "masked", 0.75)])
def test_g2sd_learns_the_teachers_decoder_block_it_is_told_to(
    make: Make, teacher: MaskedAutoencoder, block: int, supervise: str, mask_ratio: float
) -> None:
    lesson = make(method="g2sd", decoder=DECODER, teacher_decoder_block=block, supervise=supervise, mask_ratio=mask_ratio)
    learner = lesson.learner
    assert isinstance(learner, G2sdLearner) and isinstance(lesson.student, GenericStudent)
    assert (learner.mask_ratio, learner.masked_only) == (mask_ratio, supervise == "masked")
    assert torch.equal(learner.target(IMAGES, MASK), teacher.hidden_states(IMAGES, MASK, block))
    assert (lesson.student.encoder.spec, lesson.student.decoder.spec) == (SPEC, DecoderSpec(12, 3, 3))
    assert lesson.student.feature_head[-1].out_features == teacher.decoder.spec.width
    assert lesson.student is learner.student and (lesson.spec, lesson.color_jitter) == (SPEC, 0.0)


@pytest.mark.parametrize("block", [1, 2])
def test_g2sd_of_the_encoder_learns_the_teachers_encoder_block_it_is_told_to(make: Make, teacher: MaskedAutoencoder, block: int) -> None:
    lesson = make(method="g2sd", teacher_encoder_block=block, mask_ratio=0.5)
    learner = lesson.learner
    assert isinstance(learner, G2sdLearner) and isinstance(learner.student, FeatureStudent)
    assert (learner.mask_ratio, learner.masked_only) == (0.5, False)
    assert torch.equal(learner.target(IMAGES, MASK), teacher.encoder.features(IMAGES, MASK.keep_ids, taps=(block,))[0])
    assert lesson.student is learner.student.encoder and learner.student.feature_head[-1].out_features == 16


@pytest.mark.parametrize(
    "settings",
    [
        {"student_block": 1, "teacher_block": 2, "distance": "l1", "align_weight": 1.0, "mask_ratio": 0.75, "norm_pix": False},
        {"student_block": 2, "teacher_block": 1, "distance": "l2", "align_weight": 0.25, "mask_ratio": 0.9, "norm_pix": True},
    ],
)
def test_dmae_is_made_with_every_setting(make: Make, teacher: MaskedAutoencoder, settings: dict[str, Any]) -> None:
    lesson = make(method="dmae", decoder=DECODER, **settings)
    learner = lesson.learner
    assert isinstance(learner, DmaeLearner)
    assert {name: getattr(learner, name) for name in settings if name != "teacher_block"} == {
        name: value for name, value in settings.items() if name != "teacher_block"
    }
    expected = teacher.encoder.features(IMAGES, MASK.keep_ids, taps=(settings["teacher_block"],))[0]
    assert torch.equal(learner.target(IMAGES, MASK), expected)
    assert learner.projection.out_features == 16
    assert lesson.student is learner.student and learner.student.decoder.spec == DecoderSpec(12, 3, 3)


@pytest.mark.parametrize(
    ("settings", "body_heads", "relation_heads"),
    [
        ({"teacher_block": 1, "drop_path": 0.0, "color_jitter": 0.0}, 1, 2),  # the teacher has two heads
        ({"teacher_block": 2, "drop_path": 0.3, "color_jitter": 0.2, "heads": 4, "relation_heads": 8}, 4, 8),
    ],
)
def test_tinymim_is_made_with_every_setting(
    make: Make, teacher: MaskedAutoencoder, settings: dict[str, Any], body_heads: int, relation_heads: int
) -> None:
    lesson = make(method="tinymim", **settings)
    learner = lesson.learner
    assert isinstance(learner, TinymimLearner) and isinstance(lesson.student, Encoder)
    assert (learner.drop_path, lesson.color_jitter, learner.heads) == (settings["drop_path"], settings["color_jitter"], relation_heads)
    assert torch.equal(learner.target(IMAGES), teacher.encoder.qkv(IMAGES, settings["teacher_block"]))
    assert lesson.student.spec.heads == lesson.spec.heads == body_heads
    assert {block.attn.num_heads for block in lesson.student.blocks} == {body_heads}


@pytest.mark.parametrize(("mask_ratio", "norm_pix"), [(0.75, True), (0.5, False)])
def test_mae_is_made_with_every_setting(make: Make, mask_ratio: float, norm_pix: bool) -> None:
    lesson = make(method="mae", decoder=DECODER, mask_ratio=mask_ratio, norm_pix=norm_pix)
    learner = lesson.learner
    assert isinstance(learner, MaeLearner) and lesson.student is learner.student
    assert (learner.mask_ratio, learner.norm_pix) == (mask_ratio, norm_pix)
    assert learner.student.decoder.spec == DecoderSpec(12, 3, 3)


@pytest.mark.parametrize("method", ["g2sd", "tinymim"])
def test_a_teacher_is_frozen_and_in_evaluation_mode(method: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"g2sd": {"decoder": DECODER, "teacher_decoder_block": 1}, "tinymim": {"teacher_block": 1, "relation_heads": 1}}[method]
    learner: Any = make(method=method, **settings).learner
    (teacher,) = [cell.cell_contents for cell in learner.target.__closure__ if isinstance(cell.cell_contents, torch.nn.Module)]
    learner.train()
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_jitter_of_a_recipe_reaches_what_is_trained(make_context: Callable[..., Context], recipe_with: Callable[..., Recipe]) -> None:
    contents = []
    for strength in (0.0, 0.4):
        settings = {"method": "tinymim", "teacher_block": 1, "relation_heads": 1, "color_jitter": strength}
        context = make_context("generic", recipe_with(generic=settings), str(strength))
        generic.run(context)
        contents.append((context.folder / "encoder.safetensors").read_bytes())
    assert contents[0] != contents[1]


@pytest.mark.parametrize("changes", [{"mask_ratio": 0.5}, {"norm_pix": False}])
def test_the_settings_of_pre_training_reach_what_is_trained(
    changes: dict[str, Any],
    make_context: Callable[..., Context],
    recipe_with: Callable[..., Recipe],
    artifact_of: Callable[[str], Artifact],
) -> None:
    shapes = {"encoder": {"patch_px": 7, "width": 16, "depth": 2, "heads": 2}, "decoder": {"width": 8, "depth": 2, "heads": 1}}
    for settings, same in ((shapes, True), (shapes | changes, False)):
        context = make_context("pretrain", recipe_with(pretrain=settings), str(same))
        pretrain.run(context)
        stored = artifact_of("pretrain").file("masked.safetensors").read_bytes()
        assert ((context.folder / "masked.safetensors").read_bytes() == stored) == same
