"""Every method of the specific stage in a tiny recipe: what it leaves, what teacher and student are shown, and what they start from."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from g2sd_deploy import planning
from g2sd_deploy.artifact import Artifact
from g2sd_deploy.errors import UserError
from g2sd_deploy.methods.classification import smoothed_one_hot
from g2sd_deploy.models.checkpoint import load_classifier, load_encoder
from g2sd_deploy.models.vit import Classifier, survival_scales
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages import baseline, finetune, specific
from g2sd_deploy.stages.context import Context

RecipeWith = Callable[..., Recipe]
MakeContext = Callable[..., Context]
ArtifactOf = Callable[[str], Artifact]
Section = dict[str, Any]

METHODS: dict[str, Section] = {
    "finetune": {"method": "finetune"},
    "hard": {"method": "hard"},
    "hard_deit": {"method": "hard", "token": "deit"},
    "soft": {"method": "soft", "temperature": 2.0, "alpha": 0.7},
    "soft_g2sd": {"method": "soft", "token": "g2sd"},
    "soft_deit": {"method": "soft", "token": "deit"},
    "nkd": {"method": "nkd", "gamma": 1.5},
    "custom": {"method": "custom", "loss": "loss_of_a_user:loss", "options": {"weight": 3.0}},
    "custom_deit": {"method": "custom", "loss": "loss_of_a_user:loss", "options": {"weight": 3.0}, "token": "deit"},
}
TOKENS = {"hard": "g2sd", "hard_deit": "deit", "soft_g2sd": "g2sd", "soft_deit": "deit", "custom_deit": "deit"}
EVERYTHING: Section = {
    "pooling": "mean",
    "drop_path": 0.3,
    "ema_decay": 0.5,
    "clip_grad": 0.01,
    "layer_decay": 0.6,
    "augment": {"rand_augment": "rand-m9-mstd0.5-inc1", "erasing": 0.25, "interpolation": "bicubic"},
    "mix": {"mixup": 0.3, "cutmix": 0.5, "label_smoothing": 0.2},
}
PLAIN_IMAGES = {"mix": {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.2}}
WEIGHTS = "classifier.safetensors"

pytestmark = pytest.mark.usefixtures("in_the_users_folder")
MODULE_NAME = "loss_of_a_user"
MODULE = """
given = []


def loss(logits, dist_logits, targets, teacher_logits, *, weight):
    given.append((logits, dist_logits, targets, teacher_logits))
    terms = [logits if dist_logits is None else logits + dist_logits]
    if teacher_logits is not None:
        terms.append(-teacher_logits)
    return weight * (sum(terms) - targets).square().mean()

"""


def trained(context: Context) -> Classifier:
    specific.run(context)
    return load_classifier(context.folder / WEIGHTS).model


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_classifier_with_its_token_twice_the_same(
    method: str, make_context: MakeContext, recipe_with: RecipeWith
) -> None:
    recipe, contents = recipe_with(specific=METHODS[method]), []
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        context = make_context("specific", recipe.model_copy(update={"seed": seed}), folder)
        made = specific.run(context)
        contents.append((context.folder / WEIGHTS).read_bytes())
        assert sorted(path.name for path in context.folder.iterdir()) == [WEIGHTS, "history.jsonl"]
    assert contents[0] == contents[1] != contents[2]
    model = load_classifier(context.folder / WEIGHTS).model
    assert (model.token, model.pooling) == (TOKENS.get(method, "none"), "cls")
    assert made.metrics["method"] and "warnings" not in made.metrics
    assert made.metrics["num_parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_methods_are_told_apart_by_what_is_said_of_them(make_context: MakeContext, recipe_with: RecipeWith) -> None:
    said = [
        specific.run(make_context("specific", recipe_with(specific=METHODS[method]), method)).metrics["method"]
        for method in ("finetune", "hard", "soft", "nkd", "custom")
    ]
    assert len(set(said)) == 5


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_with_every_option_of_training(method: str, make_context: MakeContext, recipe_with: RecipeWith) -> None:
    made = {}
    for name, left_out in (("all", ""), ("again", ""), *((key, key) for key in EVERYTHING)):
        options = {key: value for key, value in EVERYTHING.items() if key != left_out}
        if method not in ("hard", "finetune") and name not in ("all", "again"):
            continue  # each option by itself is tried with two methods
        context = make_context("specific", recipe_with(specific={**METHODS[method], **options}), name)
        specific.run(context)
        made[name] = (context.folder / WEIGHTS).read_bytes()
    assert made["all"] == made.pop("again")
    assert len(set(made.values())) == len(made), "an option that is left out has no effect"
    assert load_classifier(context.folder.parent / "all" / WEIGHTS).model.pooling == "mean"


@pytest.mark.parametrize("method", ["finetune", "hard_deit"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_student_starts_from_the_generic_encoder_and_under_mean_pooling_from_a_new_norm(
    method: str, pooling: str, make_context: MakeContext, recipe_with: RecipeWith, artifact_of: ArtifactOf
) -> None:
    frozen = {**METHODS[method], "pooling": pooling, "base_lr": 1e-12, "weight_decay": 0.0}
    after = trained(make_context("specific", recipe_with(specific=frozen))).encoder.state_dict()
    before = load_encoder(artifact_of("generic").file("generic.safetensors")).state_dict()
    assert not torch.allclose(before["norm.weight"], torch.ones(8), atol=1e-7), "pre-training moved it"
    if pooling == "mean":
        before |= {"norm.weight": torch.ones(8), "norm.bias": torch.zeros(8)}
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)


def test_a_fine_tuned_teacher_is_pooled_by_a_norm_of_its_own_and_keeps_it_under_class_pooling(
    make_context: MakeContext, recipe_with: RecipeWith, artifact_of: ArtifactOf
) -> None:
    pretrained = load_encoder(artifact_of("pretrain").file("masked.safetensors")).norm.weight
    for pooling, expected in (("cls", pretrained.detach()), ("mean", torch.ones(16))):
        context = make_context("finetune", recipe_with(finetune={"pooling": pooling, "base_lr": 1e-12, "weight_decay": 0.0}), pooling)
        finetune.run(context)
        torch.testing.assert_close(load_classifier(context.folder / WEIGHTS).model.encoder.norm.weight.detach(), expected)


def test_the_baseline_trains_positions_from_a_table_of_sines_or_from_noise(make_context: MakeContext, recipe_with: RecipeWith) -> None:
    for positions in ("sincos", "learned"):
        student = {"patch_px": 7, "width": 8, "depth": 1, "heads": 1, "positions": positions}
        context = make_context("baseline", recipe_with(student=student, baseline={"base_lr": 1e-12, "weight_decay": 0.0}), positions)
        baseline.run(context)
        table = load_classifier(context.folder / WEIGHTS).model.encoder.pos_embed
        assert bool(table[:, 0].abs().max() > 1e-6) == (positions == "learned")


# What is shown.


class Seen:
    """What each classifier was asked during a stage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[int, list[tuple[Tensor, Tensor | None, bool, bool]]] = {}
        inner = Classifier.forward_heads

        def forward_heads(model: Classifier, images: Tensor, *, survival: Tensor | None = None) -> Any:
            self.calls.setdefault(id(model), []).append((images, survival, model.training, torch.is_grad_enabled()))
            return inner(model, images, survival=survival)

        monkeypatch.setattr(Classifier, "forward_heads", forward_heads)

    def student_and_teacher(self) -> tuple[list[Any], list[Any]]:
        student, *others = self.calls.values()
        return student, others[0] if others else []


@pytest.mark.parametrize("method", ["hard", "soft", "nkd", "custom"])
def test_the_teacher_sees_the_students_mixed_images_in_evaluation_mode_without_gradient_or_drop_path(
    method: str, make_context: MakeContext, recipe_with: RecipeWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    specific.run(make_context("specific", recipe_with(specific={**METHODS[method], **EVERYTHING})))
    student, teacher = seen.student_and_teacher()
    assert len(student) == len(teacher) == 2
    for (ours, survival, training, gradient), (theirs, no_survival, evaluating, no_gradient) in zip(student, teacher, strict=True):
        assert torch.equal(ours, theirs)
        assert training and gradient and survival is not None
        assert not evaluating and not no_gradient and no_survival is None


def test_plain_fine_tuning_asks_no_teacher_and_has_none(
    make_context: MakeContext, recipe_with: RecipeWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, recipe = Seen(monkeypatch), recipe_with(specific=METHODS["finetune"])
    context = make_context("specific", recipe)
    assert set(context.inputs) == {"data", "generic"}
    specific.run(context)
    assert seen.student_and_teacher()[1] == []


def test_a_fine_tuned_student_does_not_run_again_when_the_teacher_changes(run_of: Callable[..., Path], recipe_with: RecipeWith) -> None:
    generic = {"method": "mae", "decoder": {"width": 8, "depth": 1, "heads": 1}}
    sections = {"generic": generic, "specific": METHODS["finetune"]}
    taught = {"generic": generic, "specific": METHODS["hard"]}
    for chosen, reruns in ((sections, False), (taught, True)):
        changed = recipe_with(**chosen, finetune={"pooling": "cls"})
        stale = {step.stage.name for step in planning.plan(changed, run_of(**chosen)) if step.runs}
        assert "finetune" in stale and ("specific" in stale) == reruns


def test_drop_path_grows_from_nothing_and_is_a_function_of_seed_epoch_and_sample(
    make_context: MakeContext, recipe_with: RecipeWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = {"patch_px": 7, "width": 8, "depth": 3, "heads": 1}
    seen = Seen(monkeypatch)
    baseline.run(make_context("baseline", recipe_with(student=student, baseline={"drop_path": 0.4, "epochs": 2})))
    (calls,) = seen.calls.values()
    assert len(calls) == 4
    context = make_context("baseline", recipe_with(student=student, baseline={"drop_path": 0.4, "epochs": 2}), "feed")
    for call, batch in zip(calls, batches_of(context), strict=True):
        draws = torch.from_numpy(uniform(0, "drop_path", batch.turn.epoch, batch.turn.indices, 6)).view(-1, 3, 2)
        assert torch.equal(call[1], survival_scales(draws, [0.0, 0.2, 0.4]))
    assert calls[0][1][:, 0].eq(1).all() and calls[0][1][:, 2].eq(0).any()


def batches_of(context: Context) -> list[Any]:
    """The batches that the baseline stage of a context sees."""
    from g2sd_deploy.stages.context import open_dataset
    from g2sd_deploy.stages.fitting import make_feed

    assert context.recipe.baseline is not None
    return list(make_feed(context, open_dataset(context.inputs["data"]), context.recipe.baseline).batches())


# Losses of a user's own.


def given() -> list[tuple[Tensor, Tensor | None, Tensor, Tensor | None]]:
    found: list[Any] = sys.modules["loss_of_a_user"].given  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("method", ["custom", "custom_deit"])
def test_a_users_loss_is_given_both_heads_the_labels_and_what_the_teacher_says(
    method: str, make_context: MakeContext, recipe_with: RecipeWith, artifact_of: ArtifactOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(monkeypatch)
    context = make_context("specific", recipe_with(specific={**METHODS[method], **PLAIN_IMAGES}))
    specific.run(context)
    (images, *_), (logits, dist_logits, targets, teacher_logits) = seen.student_and_teacher()[0][0], given()[0]
    assert logits.shape == targets.shape == (32, 10)
    assert (dist_logits is not None) == (method == "custom_deit")
    labels = targets.argmax(dim=1)
    torch.testing.assert_close(targets, smoothed_one_hot(labels, 10, 0.2))
    teacher = load_classifier(artifact_of("finetune").file(WEIGHTS)).model
    assert teacher_logits is not None and not teacher_logits.requires_grad
    torch.testing.assert_close(teacher_logits, teacher(images).detach())


def test_a_users_loss_needs_no_teacher(make_context: MakeContext, recipe_with: RecipeWith, artifact_of: ArtifactOf) -> None:
    generic = {"method": "mae", "decoder": {"width": 8, "depth": 1, "heads": 1}}
    recipe = recipe_with(pretrain=None, finetune=None, generic=generic, specific=METHODS["custom"])
    specific.run(make_context("specific", recipe))
    assert [teacher_logits for *_, teacher_logits in given()] == [None, None]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("losses_of_nobody:loss", r"^specific\.loss is losses_of_nobody:loss: cannot import losses_of_nobody "),
        ("loss_of_a_user:absent", r"^specific\.loss is loss_of_a_user:absent: absent is not in that module; name a function$"),
        ("loss_of_a_user:given", r"^specific\.loss is loss_of_a_user:given: given is nothing that can be called; name a function$"),
    ],
)
def test_a_loss_that_cannot_be_found_is_refused(loss: str, message: str, make_context: MakeContext, recipe_with: RecipeWith) -> None:
    with pytest.raises(UserError, match=message):
        specific.run(make_context("specific", recipe_with(specific={"method": "custom", "loss": loss})))


def test_a_student_with_other_heads_than_its_encoder_was_trained_with_is_warned_of(
    make_context: MakeContext, recipe_with: RecipeWith
) -> None:
    student = {"patch_px": 7, "width": 8, "depth": 2, "heads": 4}
    context = make_context("specific", recipe_with(student=student, specific=METHODS["finetune"]))
    made = specific.run(context)
    (warning,) = made.metrics["warnings"]
    assert (
        "pre-trained with 1 attention heads and is fine-tuned with 4" in warning and "make generic.heads and student.heads agree" in warning
    )
    assert load_classifier(context.folder / WEIGHTS).model.encoder.spec.heads == 4
