"""The stages that train: what they leave, and what it is a function of."""

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

from g2sd_deploy.artifact import Artifact, sha256_of
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import load_classifier, load_generic, load_masked
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages.context import Context

FILES = {
    "pretrain": "masked.safetensors",
    "finetune": "classifier.safetensors",
    "generic": "generic.safetensors",
    "specific": "classifier.safetensors",
    "baseline": "classifier.safetensors",
}
ArtifactOf = Callable[[str], Artifact]
MakeContext = Callable[..., Context]


def train(context: Context) -> Any:
    return import_module(f"g2sd_deploy.stages.{context.stage}").run(context)


@pytest.mark.parametrize("stage", FILES)
def test_a_training_stage_leaves_weights_history_and_figures(stage: str, artifact_of: ArtifactOf) -> None:
    artifact = artifact_of(stage)
    assert set(artifact.files) == {FILES[stage], "history.jsonl"}
    history = [json.loads(line) for line in artifact.file("history.jsonl").read_text().splitlines()]
    assert all(set(row) == {"step", "epoch", "loss", "lr"} for row in history)
    metrics = artifact.metrics
    assert "warnings" not in metrics and "loss_band" not in metrics
    assert (metrics["first_loss"], metrics["final_loss"]) == (history[0]["loss"], history[-1]["loss"])
    assert metrics["images_seen"] == 64 and metrics["model_bytes"] == artifact.files[FILES[stage]]["bytes"]
    assert metrics["num_parameters"] > 0 and metrics["images_per_s"] > 0 and metrics["device"] == "cpu"


@pytest.mark.parametrize("stage", FILES)
def test_a_training_stage_makes_the_same_weights_again(stage: str, artifact_of: ArtifactOf, make_context: MakeContext) -> None:
    torch.manual_seed(999)  # what ran before does not matter
    context = make_context(stage)
    train(context)
    assert sha256_of(context.folder / FILES[stage]) == artifact_of(stage).files[FILES[stage]]["sha256"]


@pytest.mark.parametrize("stage", FILES)
def test_another_seed_makes_other_weights(stage: str, artifact_of: ArtifactOf, make_context: MakeContext, recipe: Recipe) -> None:
    context = make_context(stage, recipe.model_copy(update={"seed": 1}))
    train(context)
    assert sha256_of(context.folder / FILES[stage]) != artifact_of(stage).files[FILES[stage]]["sha256"]


def test_the_fine_tuned_teacher_starts_from_the_pre_trained_encoder(
    artifact_of: ArtifactOf, make_context: MakeContext, recipe: Recipe
) -> None:
    assert recipe.finetune is not None
    frozen = recipe.finetune.model_copy(update={"base_lr": 1e-12, "weight_decay": 0.0})
    context = make_context("finetune", recipe.model_copy(update={"finetune": frozen}))
    train(context)
    before = load_masked(artifact_of("pretrain").file("masked.safetensors")).encoder.state_dict()
    after = load_classifier(context.folder / "classifier.safetensors").model.encoder.state_dict()
    for name in before:
        if not name.startswith("norm."):  # pooled patches get a norm of their own
            torch.testing.assert_close(after[name], before[name], msg=name)


def test_the_specific_student_starts_from_the_generic_encoder(artifact_of: ArtifactOf, make_context: MakeContext, recipe: Recipe) -> None:
    assert recipe.specific is not None
    frozen = recipe.specific.model_copy(update={"base_lr": 1e-12, "weight_decay": 0.0})
    context = make_context("specific", recipe.model_copy(update={"specific": frozen}))
    train(context)
    before = load_generic(artifact_of("generic").file("generic.safetensors")).encoder.state_dict()
    after = load_classifier(context.folder / "classifier.safetensors").model.encoder.state_dict()
    for name in before:
        torch.testing.assert_close(after[name], before[name], msg=name)


def test_a_baseline_may_start_from_the_generic_encoder(artifact_of: ArtifactOf, make_context: MakeContext, recipe: Recipe) -> None:
    assert recipe.baseline is not None
    frozen = recipe.baseline.model_copy(update={"base_lr": 1e-12, "weight_decay": 0.0, "start": "generic"})
    context = make_context("baseline", recipe.model_copy(update={"baseline": frozen}))
    made = train(context)
    before = load_generic(artifact_of("generic").file("generic.safetensors")).encoder.state_dict()
    after = load_classifier(context.folder / "classifier.safetensors").model.encoder.state_dict()
    for name in before:
        torch.testing.assert_close(after[name], before[name], msg=name)
    assert made.metrics["method"] == "plain fine-tuning of the generic stage's encoder"


def test_the_student_has_a_distillation_token_and_the_baseline_has_none(artifact_of: ArtifactOf) -> None:
    student, baseline = (load_classifier(artifact_of(stage).file("classifier.safetensors")).model for stage in ("specific", "baseline"))
    assert student.dist_token is not None and baseline.dist_token is None
    assert student.encoder.spec == baseline.encoder.spec


def test_half_precision_halves_the_file(artifact_of: ArtifactOf, make_context: MakeContext, recipe: Recipe) -> None:
    assert recipe.pretrain is not None
    half = recipe.pretrain.model_copy(update={"weights": "float16"})
    context = make_context("pretrain", recipe.model_copy(update={"pretrain": half}))
    train(context)
    full_bytes = artifact_of("pretrain").metrics["model_bytes"]
    assert (context.folder / "masked.safetensors").stat().st_size < 0.7 * full_bytes
    assert load_masked(context.folder / "masked.safetensors").encoder.norm.weight.dtype == torch.float32


def test_a_target_block_that_the_teacher_has_not_is_refused(make_context: MakeContext, recipe: Recipe) -> None:
    assert recipe.generic is not None
    deep = recipe.generic.model_copy(update={"teacher_decoder_block": 3})
    with pytest.raises(UserError, match=r"^generic\.teacher_decoder_block is 3, but the teacher's decoder has 2 blocks$"):
        train(make_context("generic", recipe.model_copy(update={"generic": deep})))


def test_a_student_with_other_patches_than_its_teacher_is_refused(make_context: MakeContext, recipe: Recipe) -> None:
    assert recipe.student is not None
    fine = recipe.student.model_copy(update={"patch_px": 14})
    with pytest.raises(UserError, match=r"they share one mask, so make data and student.patch_px agree"):
        train(make_context("generic", recipe.model_copy(update={"student": fine})))


def test_layers_learn_at_the_same_rate_only_where_training_starts_from_nothing(recipe: Recipe) -> None:
    assert recipe.baseline is not None and recipe.specific is not None and recipe.finetune is not None
    assert (recipe.baseline.layer_decay, recipe.specific.layer_decay, recipe.finetune.layer_decay) == (1.0, 0.75, 0.65)


def test_no_stage_keeps_a_moving_average_or_limits_gradients_unless_asked(recipe: Recipe) -> None:
    sections = (recipe.pretrain, recipe.finetune, recipe.generic, recipe.specific, recipe.baseline)
    assert [(getattr(section, "ema_decay", None), section and section.clip_grad) for section in sections] == [(None, None)] * 5
