"""Every method of the generic stage in a tiny recipe: what it leaves, what it is a function of, and what the next stage makes of it."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from g2sd_deploy import pipeline, planning
from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.models.checkpoint import load_classifier, load_encoder, load_masked
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.progress import LineProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages import generic
from g2sd_deploy.stages.context import Context
from g2sd_deploy.stages.fitting import views_of
from g2sd_deploy.training.feed import Batch, Turn

RunOf = Callable[..., Path]
RecipeWith = Callable[..., Recipe]
MakeContext = Callable[..., Context]
Section = dict[str, Any]

DECODER = {"width": 8, "depth": 1, "heads": 1}
METHODS: dict[str, Section] = {
    "g2sd": {"method": "g2sd", "decoder": DECODER, "teacher_decoder_block": 2},
    "g2sd_masked": {"method": "g2sd", "decoder": DECODER, "teacher_decoder_block": 1, "supervise": "masked"},
    "g2sd_encoder": {"method": "g2sd", "teacher_encoder_block": 2},
    "dmae": {"method": "dmae", "decoder": DECODER, "student_block": 1, "teacher_block": 2},
    "tinymim": {"method": "tinymim", "teacher_block": 2, "relation_heads": 1},
    "mae": {"method": "mae", "decoder": DECODER},
    "custom": {"method": "custom", "builder": "methods_of_a_user:build", "options": {"weight": 2.0}},
}
FILES = {"g2sd": "generic", "g2sd_masked": "generic", "dmae": "masked", "mae": "masked"}
TERMS = {"dmae": {"loss_pixels", "loss_alignment"}, "tinymim": {"loss_query_key", "loss_value_value"}, "custom": {"loss_near", "loss_far"}}
SAID = {"g2sd_masked": "G2SD", "g2sd_encoder": "G2SD", "custom": "methods_of_a_user:build", "mae": "MAE", "tinymim": "TinyMIM"}
STILL = {"method": "finetune", "base_lr": 1e-12, "weight_decay": 0.0}

pytestmark = pytest.mark.usefixtures("in_the_users_folder")
MODULE_NAME = "methods_of_a_user"
MODULE = """
import torch
from torch import nn

given = []


class Learner(nn.Module):
    def __init__(self, student, teacher, weight):
        super().__init__()
        self.student, self.target, self.weight = student, teacher.encoder.features if teacher else None, weight

    def forward(self, views):
        ours = self.student(views.student_images).mean(dim=1)
        theirs = self.target(views.images, taps=(1,))[0].mean(dim=1) if self.target else torch.zeros(len(ours), 16)
        return {"near": self.weight * (ours.norm(dim=1) - theirs.norm(dim=1)).square().mean(), "far": ours.square().mean()}


def build(student, teacher, *, weight):
    given.append((student, teacher))
    return Learner(student, teacher, weight)


def no_module(student, teacher):
    return lambda views: {}


def forgets_the_student(student, teacher):
    return nn.Linear(2, 2)


class Bare(nn.Module):
    def __init__(self, student, teacher):
        super().__init__()
        self.student = student

    def forward(self, views):
        return self.student(views.images).mean()


not_callable = 3
"""


def artifact(run: Path, stage: str) -> Artifact:
    found = read_artifact(run / stage)
    assert found is not None
    return found


def file_of(method: str) -> str:
    return f"{FILES.get(method, 'encoder')}.safetensors"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_its_student_and_a_history_with_each_term_of_its_loss(method: str, run_of: RunOf) -> None:
    made = artifact(run_of(generic=METHODS[method], specific=STILL), "generic")
    assert set(made.files) == {file_of(method), "history.jsonl"}
    rows = [json.loads(line) for line in made.file("history.jsonl").read_text().splitlines()]
    terms = TERMS.get(method, set())
    assert [set(row) for row in rows] == [{"step", "epoch", "loss", "lr", *terms}] * 2
    assert all(row["loss"] == pytest.approx(sum(row[term] for term in terms), rel=1e-5) for row in rows if terms)
    assert SAID.get(method, "") in made.metrics["method"]
    assert made.metrics["num_parameters"] > 0 and made.metrics["first_loss"] == rows[0]["loss"]
    assert "warnings" not in made.metrics


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_the_same_student_again_and_another_under_another_seed(
    method: str, run_of: RunOf, make_context: MakeContext, recipe_with: RecipeWith
) -> None:
    first = artifact(run_of(generic=METHODS[method], specific=STILL), "generic").file(file_of(method))
    recipe = recipe_with(generic=METHODS[method], specific=STILL)
    torch.manual_seed(999)  # what ran before does not matter
    np.random.seed(999)
    for seed, folder in ((0, "same"), (1, "other")):
        context = make_context("generic", recipe.model_copy(update={"seed": seed}), folder)
        generic.run(context)
        assert ((context.folder / file_of(method)).read_bytes() == first.read_bytes()) == (seed == 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_specific_student_starts_from_the_encoder_of_any_method(method: str, run_of: RunOf) -> None:
    run = run_of(generic=METHODS[method], specific=STILL)
    before = load_encoder(artifact(run, "generic").file(file_of(method)))
    after = load_classifier(artifact(run, "specific").file("classifier.safetensors")).model.encoder
    assert before.spec == after.spec == EncoderSpec(28, 7, 1, width=8, depth=2, heads=1)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_the_student_learns(method: str, run_of: RunOf, make_context: MakeContext, recipe_with: RecipeWith) -> None:
    """Its weights differ from those of a stage that learns next to nothing."""
    context = make_context("generic", recipe_with(generic={**METHODS[method], "base_lr": 1e-12, "weight_decay": 0.0}))
    generic.run(context)
    untouched = load_encoder(context.folder / file_of(method)).state_dict()
    trained = load_encoder(artifact(run_of(generic=METHODS[method], specific=STILL), "generic").file(file_of(method))).state_dict()
    same = {name for name, value in trained.items() if torch.allclose(value, untouched[name], atol=1e-7)}
    tail = {f"blocks.1.{part}.{kind}" for part in ("attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")}
    norm = {"norm.weight", "norm.bias"}
    unread = {"tinymim": tail | norm, "custom": norm}  # behind the relations; behind what the user's method reads
    assert same - {"pos_embed"} == unread.get(method, set())


@pytest.mark.parametrize("method", METHODS)
def test_learned_positions_are_a_choice_in_every_method(method: str, make_context: MakeContext, recipe_with: RecipeWith) -> None:
    student = {"patch_px": 7, "width": 8, "depth": 1, "heads": 1, "positions": "learned"}
    context = make_context("generic", recipe_with(generic=METHODS[method], student=student))
    generic.run(context)
    encoder = load_encoder(context.folder / file_of(method))
    assert encoder.spec.learned_positions and encoder.pos_embed[:, 0].any()


# Teachers.


def stages_that_run(recipe: Recipe, run: Path) -> list[str]:
    return [step.stage.name for step in planning.plan(recipe, run) if step.runs]


def test_what_needs_no_teacher_does_not_run_again_when_the_teacher_changes(run_of: RunOf, recipe_with: RecipeWith) -> None:
    other = {
        "encoder": {"patch_px": 7, "width": 16, "depth": 2, "heads": 2},
        "decoder": {"width": 8, "depth": 2, "heads": 1},
        "base_lr": 2e-3,
    }
    sections = {"generic": METHODS["mae"], "specific": STILL}
    stale = stages_that_run(recipe_with(**sections, pretrain=other), run_of(**sections))
    assert "pretrain" in stale and not {"generic", "specific", "baseline"} & set(stale)
    taught = {"generic": METHODS["dmae"], "specific": STILL}
    stale = stages_that_run(recipe_with(**taught, pretrain=other), run_of(**taught))
    assert {"pretrain", "generic", "specific"} <= set(stale)


@pytest.mark.parametrize("method", ["mae", "custom"])
def test_a_recipe_without_any_teacher_is_possible(method: str, run_of: RunOf) -> None:
    run = run_of("specific", pretrain=None, finetune=None, generic=METHODS[method], specific=STILL)
    assert artifact(run, "generic").parents.keys() - {"methods_of_a_user:build"} == {"data"}
    assert artifact(run, "specific").parents.keys() == {"data", "generic"}
    assert [load_classifier(artifact(run, "specific").file("classifier.safetensors")).model.token] == ["none"]


@pytest.mark.parametrize(("first", "stage"), [("tinymim", "generic"), ("g2sd", "generic"), ("dmae", "generic"), ("dmae", "specific")])
def test_a_finished_student_is_the_teacher_of_the_next_recipe(
    first: str, stage: str, run_of: RunOf, recipe_with: RecipeWith, tmp_path: Path
) -> None:
    teacher = run_of(generic=METHODS[first], specific=STILL) / stage
    student = {"patch_px": 7, "width": 4, "depth": 1, "heads": 1}
    settings = {"method": "tinymim", "teacher_block": 1, "drop_path": 0.1}
    chained = recipe_with(
        teacher={"encoder": str(teacher)}, pretrain=None, finetune=None, student=student, generic=settings, specific=STILL, evaluate=None
    )
    pipeline.run(
        chained, tmp_path / "run", runtime=Runtime(torch.device("cpu")), progress=LineProgress(io.StringIO()), command="", until="generic"
    )
    taken = load_encoder(artifact(tmp_path / "run", "teacher").file("encoder.safetensors")).state_dict()
    weights = next(file for file in ("encoder", "generic", "masked", "classifier") if (teacher / f"{file}.safetensors").exists())
    given = load_encoder(teacher / f"{weights}.safetensors").state_dict()
    assert all(torch.equal(value, given[name]) for name, value in taken.items())
    assert load_encoder(artifact(tmp_path / "run", "generic").file("encoder.safetensors")).spec.width == 4


@pytest.mark.parametrize("first", ["mae", "dmae"])
def test_a_student_with_a_decoder_teaches_g2sd(first: str, run_of: RunOf, recipe_with: RecipeWith, tmp_path: Path) -> None:
    teacher = run_of(generic=METHODS[first], specific=STILL) / "generic"
    chained = recipe_with(
        teacher={"masked": str(teacher)},
        pretrain=None,
        finetune=None,
        generic={**METHODS["g2sd"], "teacher_decoder_block": 1},
        specific=STILL,
    )
    pipeline.run(
        chained, tmp_path / "run", runtime=Runtime(torch.device("cpu")), progress=LineProgress(io.StringIO()), command="", until="generic"
    )
    assert load_masked(artifact(tmp_path / "run", "teacher").file("masked.safetensors")).decoder.spec.width == 8
    assert artifact(tmp_path / "run", "generic").metrics["method"] == "G2SD generic distillation"


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("g2sd", {"teacher_decoder_block": 3}, "generic.teacher_decoder_block is 3, but the teacher's decoder has 2 blocks"),
        ("g2sd_encoder", {"teacher_encoder_block": 3}, "generic.teacher_encoder_block is 3, but the teacher has 2 blocks"),
        ("dmae", {"teacher_block": 3}, "generic.teacher_block is 3, but the teacher has 2 blocks"),
        ("tinymim", {"teacher_block": 9}, "generic.teacher_block is 9, but the teacher has 2 blocks"),
    ],
)
def test_a_block_that_the_teacher_has_not_is_refused(
    method: str, changes: Section, message: str, make_context: MakeContext, recipe_with: RecipeWith
) -> None:
    with pytest.raises(UserError) as caught:
        generic.run(make_context("generic", recipe_with(generic=METHODS[method] | changes)))
    assert str(caught.value) == message


@pytest.mark.parametrize("method", ["g2sd", "g2sd_encoder", "dmae", "tinymim"])
def test_a_teacher_of_other_patches_is_refused(method: str, make_context: MakeContext, recipe_with: RecipeWith) -> None:
    student = {"patch_px": 14, "width": 8, "depth": 1, "heads": 1}
    with pytest.raises(UserError, match="28 px images in 7 px patches, the student 1 x 28 px in 14 px; they share one mask"):
        generic.run(make_context("generic", recipe_with(generic=METHODS[method], student=student)))


def test_relation_heads_that_do_not_divide_a_width_are_refused(make_context: MakeContext, recipe_with: RecipeWith) -> None:
    by_teacher = {"method": "tinymim", "teacher_block": 1}
    odd = {"patch_px": 7, "width": 12, "depth": 1, "heads": 1}
    with pytest.raises(UserError, match=r"^3 heads of relations do not divide the teacher's width 16; set generic\.relation_heads$"):
        generic.run(make_context("generic", recipe_with(generic={**by_teacher, "relation_heads": 3}, student=odd)))


# TinyMIM's heads.


def told(recipe: Recipe, run: Path) -> str:
    """What a person reads on stderr while the stale stages of a copy run."""
    stream = io.StringIO()
    pipeline.run(recipe, run, runtime=Runtime(torch.device("cpu")), progress=LineProgress(stream), command="", until="specific")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("heads", "warned"),
    [
        ({"relation_heads": 1}, {}),
        ({}, {"generic": "the student's last block learns relations of 2 heads and is fine-tuned with 1"}),  # the teacher's heads
        ({"heads": 2, "relation_heads": 1}, {"specific": "the encoder was pre-trained with 2 attention heads and is fine-tuned with 1"}),
        ({"heads": 4, "relation_heads": 2}, {"generic": "relations of 2 heads", "specific": "pre-trained with 4 attention heads"}),
    ],
)
def test_a_person_is_warned_where_pre_training_and_fine_tuning_have_other_heads(
    heads: Section, warned: dict[str, str], recipe_with: RecipeWith, run_of: RunOf, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run_of(generic=METHODS["tinymim"], specific=STILL), tmp_path / "run"))
    settings = {"method": "tinymim", "teacher_block": 2, "drop_path": 0.2, **heads}
    lines = [line for line in told(recipe_with(generic=settings, specific=STILL), run).splitlines() if "WARNING" in line]
    assert [line.partition(":")[0] for line in lines] == list(warned)
    for (stage, text), line in zip(warned.items(), lines, strict=True):
        assert line.startswith(f"{stage}: WARNING ") and text in line
        assert artifact(run, stage).metrics["warnings"] == [line.removeprefix(f"{stage}: WARNING ")]
    for stage in {"generic", "specific"} - warned.keys():
        assert "warnings" not in artifact(run, stage).metrics


# Draws.


def test_masks_and_drop_paths_are_functions_of_seed_epoch_and_sample(make_context: MakeContext) -> None:
    context, spec = make_context("generic"), EncoderSpec(28, 7, 1, width=8, depth=3, heads=1)

    def batch(indices: list[int], epoch: int) -> Batch:
        images = torch.zeros(len(indices), 1, 28, 28)
        return Batch(
            images, images + 1, torch.zeros(len(indices), dtype=torch.int64), Turn(7, epoch, np.array(indices), 1.0, ends_step=True)
        )

    whole, part = views_of(context, batch([5, 3, 9], 2), spec), views_of(context, batch([9], 2), spec)
    assert (whole.mask_noise.shape, whole.drop_draws.shape) == ((3, 16), (3, 3, 2))
    assert torch.equal(whole.mask_noise[2:], part.mask_noise) and torch.equal(whole.drop_draws[2:], part.drop_draws)
    later = views_of(context, batch([9], 3), spec)
    assert not torch.equal(later.mask_noise, part.mask_noise) and not torch.equal(later.drop_draws, part.drop_draws)
    assert whole.images.eq(0).all() and whole.student_images.eq(1).all()


# Sanity band.


def banded(**band: object) -> Section:
    return {**METHODS["g2sd"], "loss_band": {"start": [0.01, 3.0], "after": 0.5, "below": 9.0, **band}}


def test_a_loss_inside_its_band_passes_and_a_run_that_is_too_short_for_it_is_not_judged(run_of: RunOf) -> None:
    verdict = artifact(run_of("generic", generic=banded()), "generic").metrics["loss_band"]
    assert verdict["verdict"] == "passed" and "after 50% of the steps, under 9.0" in verdict["reason"]
    verdict = artifact(run_of("generic", generic=banded(after=0.9)), "generic").metrics["loss_band"]
    assert verdict["verdict"] == "not_run" and "the run was too short" in verdict["reason"]


@pytest.mark.parametrize(
    ("band", "message"),
    [({"start": [1e-5, 2e-5]}, "generic: the first loss is "), ({"below": 1e-5}, "generic: after 50% of the steps the loss is ")],
)
def test_a_loss_outside_its_band_fails_the_run_and_leaves_nothing(
    band: Section, message: str, tiny_run: Path, recipe_with: RecipeWith, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run", ignore=lambda *_: ["generic", "specific"]))
    with pytest.raises(RunFailed, match=message):
        told(recipe_with(generic=banded(**band)), run)
    assert not (run / "generic").exists()


# Methods of a user's own.


def test_a_users_method_is_given_the_student_the_frozen_teacher_and_its_options(make_context: MakeContext, recipe_with: RecipeWith) -> None:
    context = make_context("generic", recipe_with(generic=METHODS["custom"]))
    made = generic.run(context)
    student, teacher = sys.modules["methods_of_a_user"].given[-1]
    assert student.spec.width == 8 and teacher.encoder.spec.width == 16 and teacher.decoder.spec.depth == 2
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert made.metrics["num_parameters"] == sum(parameter.numel() for parameter in student.parameters())


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            "methods_of_nobody:build",
            "generic.builder is methods_of_nobody:build: cannot import methods_of_nobody .*install it, or run in the",
        ),
        ("methods_of_a_user:absent", "generic.builder is methods_of_a_user:absent: absent is not in that module; name a function"),
        ("methods_of_a_user:not_callable", "not_callable is nothing that can be called; name a function"),
        ("methods_of_a_user:no_module", "generic.builder methods_of_a_user:no_module returned function; wanted a torch.nn.Module"),
        ("methods_of_a_user:build", "cannot be called with 2 arguments and the options none .*missing a required argument: 'weight'"),
        ("methods_of_a_user:Bare", "custom method methods_of_a_user:Bare gives Tensor; wanted a dict of named loss terms"),
        ("methods_of_a_user:forgets_the_student", "returned a module that does not hold the student; keep it as an attribute"),
    ],
)
def test_a_method_that_cannot_be_used_is_refused(builder: str, message: str, make_context: MakeContext, recipe_with: RecipeWith) -> None:
    with pytest.raises(UserError, match=message):
        generic.run(make_context("generic", recipe_with(generic={"method": "custom", "builder": builder})))


@pytest.mark.parametrize(
    ("section", "method"),
    [("generic", {"method": "custom", "builder": "of_nobody:build"}), ("specific", {"method": "custom", "loss": "of_nobody.at_all:loss"})],
)
def test_a_method_that_is_not_there_is_refused_before_anything_trains(
    section: str, method: Section, recipe_with: RecipeWith, tmp_path: Path
) -> None:
    recipe = recipe_with(**{section: method})
    for attempt in (lambda: planning.plan(recipe, tmp_path / "run"), lambda: told(recipe, tmp_path / "run")):
        with pytest.raises(
            UserError, match=rf"^{section}\.(builder|loss) is of_nobody.*: cannot import of_nobody.*install it, or run in the"
        ):
            attempt()
    assert not (tmp_path / "run").exists()


def test_a_users_method_runs_again_when_its_file_changes(
    run_of: RunOf, recipe_with: RecipeWith, user_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, recipe = run_of(generic=METHODS["custom"], specific=STILL), recipe_with(generic=METHODS["custom"], specific=STILL)
    assert "generic" not in stages_that_run(recipe, run)
    (tmp_path / "methods_of_a_user.py").write_text(MODULE + "# changed\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(user_folder)])
    sys.modules.pop("methods_of_a_user", None)
    (step,) = [step for step in planning.plan(recipe, run) if step.stage.name == "generic"]
    assert step.runs and step.reason == "methods_of_a_user:build changed"
