"""A student that starts from a finished one of another run, and a teacher that is fine-tuned from a finished pre-trained one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from g2sd_deploy import pipeline, planning
from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import load_encoder, save_encoder
from g2sd_deploy.models.dense.segmenter_file import load_segmenter
from g2sd_deploy.models.position import resize_positions
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages.student_start import named_student

SHAPE = {"patch_px": 8, "width": 16, "depth": 4, "heads": 2}
TRAIN = {"epochs": 1, "batch_size": 8, "base_lr": 1e-2}
STILL = TRAIN | {"base_lr": 1e-12, "weight_decay": 0.0}  # so small that what is written is what was begun with
GENERIC = {"method": "mae", "decoder": {"width": 8, "depth": 1, "heads": 1}, **TRAIN}
SCENES: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "scenes",
        "root": "bundled:fashion-mnist",
        "image_px": 32,
        "num_channels": 3,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "max_train_images": 8,
        "max_test_images": 2,
    },
    "task": {"kind": "segmentation", "channels": 8, "aux_channels": None},
    "student": SHAPE,
    "specific": {"method": "finetune", **STILL},
}


def recipe_of(**sections: dict[str, Any] | None) -> Recipe:
    """The tiny recipe with sections changed (None: left out)."""
    values = {
        name: section and SCENES.get(name, {}) | section for name, section in (SCENES | sections).items() if isinstance(section, dict)
    }
    return Recipe.model_validate(SCENES | values | {name: None for name, section in sections.items() if section is None})


def run_recipe(recipe: Recipe, folder: Path, until: str) -> list[planning.Step]:
    return pipeline.run(
        recipe, folder, runtime=Runtime(torch.device("cpu")), progress=SilentProgress(), command="g2sd run tiny", until=until
    )


def stage_of(folder: Path, stage: str) -> Artifact:
    found = read_artifact(folder / stage)
    assert found is not None and not found.failure
    return found


def write_encoder(path: Path, seed: int = 0, **changes: int) -> Path:
    """The student's encoder with random weights, for images of 64 px."""
    torch.manual_seed(seed)
    save_encoder(path, Encoder(EncoderSpec(64, 8, changes.get("num_channels", 3), changes.get("width", 16), changes.get("depth", 4), 2)))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return write_encoder(tmp_path_factory.mktemp("weights") / "student.safetensors")


@pytest.fixture(scope="module")
def trained(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose student started from the file. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    baseline = {"start": "generic", **STILL}
    run_recipe(recipe_of(student={"weights": str(weights)}, baseline=baseline), folder, "baseline")
    return folder


@pytest.mark.parametrize("stage", ["specific", "baseline"])
def test_a_student_starts_from_a_finished_one_fitted_to_its_images(weights: Path, trained: Path, stage: str) -> None:
    given = load_encoder(weights)
    model = load_segmenter(stage_of(trained, stage).file("segmenter.safetensors")).model
    for name, value in given.state_dict().items():
        wanted = resize_positions(value, 4) if name == "pos_embed" else value
        torch.testing.assert_close(model.encoder.state_dict()[name], wanted, msg=name)


def test_no_generic_stage_is_asked_for(trained: Path) -> None:
    assert not (trained / "generic").exists()
    assert "generic" not in stage_of(trained, "specific").parents


def test_another_student_makes_its_stages_stale_and_no_other(weights: Path, trained: Path, tmp_path: Path) -> None:
    baseline = {"start": "generic", **STILL}
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights.read_bytes())
    steps = planning.plan(recipe_of(student={"weights": str(moved)}, baseline=baseline), trained, until="baseline")
    assert [step.stage.name for step in steps if step.runs] == []
    write_encoder(moved, seed=1)
    steps = planning.plan(recipe_of(student={"weights": str(moved)}, baseline=baseline), trained, until="baseline")
    assert {step.stage.name: step.reason for step in steps if step.runs} == dict.fromkeys(
        ("specific", "baseline"), "student.weights changed"
    )
    from_scratch = recipe_of(student={"weights": str(moved)}, baseline=dict(STILL))
    assert "student.weights" not in planning.identity_of(from_scratch, planning.stages_of(from_scratch)[2], trained).parents


def test_the_folder_of_a_finished_stage_is_a_student(tmp_path: Path) -> None:
    run_recipe(recipe_of(generic=GENERIC), tmp_path / "run", "generic")
    named = named_student(recipe_of(student={"weights": str(tmp_path / "run" / "generic")}))
    own = load_encoder(tmp_path / "run" / "generic" / "masked.safetensors").state_dict()
    for name, value in named.state_dict().items():
        assert torch.equal(value, own[name]), name


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.safetensors", "there is no such file or stage folder; give one such as runs/NAME/generic"),
        ("data", "the stage data made no student of generic; give the folder of one that did"),
        ("specific", "the stage specific made no student of generic"),
        (".", "no stage finished there"),
    ],
)
def test_a_student_that_is_not_there_is_refused(trained: Path, reference: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        named_student(recipe_of(student={"weights": str(trained / reference)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 24}, "4 blocks of width 24 .* ask for 4 blocks of width 16"),
        ({"depth": 5}, "5 blocks of width 16 .* ask for 4 blocks"),
        ({"num_channels": 1}, "and 1 channels.* ask for .* and 3 channels"),
    ],
)
def test_a_student_of_another_shape_is_refused(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    path = write_encoder(tmp_path / "other.safetensors", **changes)
    with pytest.raises(UserError, match=message):
        named_student(recipe_of(student={"weights": str(path)}))


def test_a_classifier_starts_from_one_too(recipe_with: Callable[..., Recipe], tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    torch.manual_seed(0)
    given = Encoder(EncoderSpec(28, 7, 1, 8, 2, 2))
    save_encoder(path, given)
    student = {"patch_px": 7, "width": 8, "depth": 2, "heads": 1, "weights": str(path)}
    gone = dict.fromkeys(("pretrain", "finetune", "generic", "baseline", "evaluate"))
    still = {"method": "finetune", "base_lr": 1e-12, "weight_decay": 0.0}
    run_recipe(recipe_with(student=student, specific=still, **gone), tmp_path / "run", "specific")
    made = stage_of(tmp_path / "run", "specific")
    trained = load_encoder(made.file("classifier.safetensors")).state_dict()
    for name, value in given.state_dict().items():
        torch.testing.assert_close(trained[name], value, msg=name)
    assert "2 attention heads" in made.metrics["warnings"][0]


def test_a_task_teacher_is_fine_tuned_from_a_finished_pretrained_one(weights: Path, tmp_path: Path) -> None:
    teacher = {"encoder": str(weights), "resize_positions": True}
    alone = recipe_of(teacher=teacher, finetune=dict(STILL), student=None, specific=None, evaluate={})
    assert [stage.name for stage in planning.stages_of(alone)] == ["data", "teacher", "finetune", "evaluate", "report"]
    recipe = recipe_of(teacher=teacher, finetune=dict(STILL), student={"weights": str(weights)}, specific={"method": "cwd"}, evaluate={})
    run_recipe(recipe, tmp_path / "run", "evaluate")
    made = load_segmenter(stage_of(tmp_path / "run", "finetune").file("segmenter.safetensors")).model
    blocks = load_encoder(weights).state_dict()["blocks.3.mlp.fc2.weight"]
    torch.testing.assert_close(made.encoder.state_dict()["blocks.3.mlp.fc2.weight"], blocks)
    assert {"teacher", "student"} == set(stage_of(tmp_path / "run", "evaluate").metrics["models"])
    assert "finetune" in stage_of(tmp_path / "run", "specific").parents


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"student": {"weights": "x"}, "generic": GENERIC}, "student.weights takes the place of generic; give one of them"),
        ({}, "specific needs generic before it, or student.weights"),
        ({"specific": None, "baseline": {"start": "generic", **TRAIN}}, "add generic or student.weights, or start from scratch"),
        ({"student": {"weights": "x"}, "specific": None, "baseline": TRAIN}, "student.weights is given, but nothing starts from it"),
        ({"teacher": {"segmenter": "x"}, "finetune": TRAIN}, "teacher.segmenter names a finished one; give one of them"),
        ({"finetune": TRAIN}, "finetune needs pretrain before it, or a pre-trained teacher.encoder or teacher.masked"),
    ],
)
def test_what_does_not_go_together_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe_of(**sections)
