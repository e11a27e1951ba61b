"""`g2sd plan --probe` of a recipe with a task: how its images are counted, and what is extended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.probe import sizing
from g2sd_deploy.probe.trial import _counted
from g2sd_deploy.recipe import find_recipe, load_recipe, shrink_for_smoke
from g2sd_deploy.settings import Recipe

TASKS = ("segmentation", "detection")


def recipe_of(task: str, *changes: str) -> Recipe:
    return load_recipe(find_recipe(f"quickstart_{task}"), list(changes))


@pytest.mark.parametrize("task", TASKS)
def test_images_with_a_truth_are_counted_and_read_anew_for_every_step(task: str) -> None:
    recipe = recipe_of(task, "data.max_train_images=2000", "data.max_test_images=300", "generic.batch_size=64", "specific.batch_size=16")
    extent = _counted(recipe)
    assert (extent.train, extent.test) == (recipe.data.max_train_images, recipe.data.max_test_images)
    assert extent.trial_train == sizing.NUM_STEPS * 64  # of generic, the largest batch
    assert sizing.decoded_bytes(recipe, 2000, 300) == (0, 0)  # they are listed, not stored
    trial = sizing.trial_recipe(recipe, extent, {"generic", "specific"})
    assert (trial.data.max_train_images, trial.data.source) == (1280, "scenes")
    assert trial.export is not None and (trial.export.max_quantisers, trial.export.calibration_images) == (1, 128)
    assert recipe.export is not None and trial.export.robustness == recipe.export.robustness, "only classifiers are corrupted"
    large = sizing.trial_recipe(recipe_of(task, "export.calibration_images=null", "data.image_px=512"), extent, set()).export
    assert large is not None and large.calibration_images == 57, "inputs of 512 px, with the pixels of 300 of 224 px"
    assert trial.specific is not None and trial.specific.epochs * (1280 // 16) == pytest.approx(sizing.NUM_STEPS)


@pytest.mark.parametrize("task", TASKS)
def test_a_smoke_run_has_a_handful_of_images_and_steps(task: str) -> None:
    small = shrink_for_smoke(recipe_of(task))
    assert (small.data.max_train_images, small.data.max_test_images) == (40, 40)
    assert small.task == recipe_of(task).task and small.student == recipe_of(task).student
    trainings = sizing.training_of(small)
    assert set(trainings) == {"generic", "specific", "baseline"}
    assert {(training.epochs, training.batch_size) for training in trainings.values()} == {(1.0, 8)}


def test_the_evaluation_grows_with_the_test_images() -> None:
    """Three networks count the test images one after the other, and each tells its end twice."""
    from g2sd_deploy.artifact import Artifact
    from g2sd_deploy.probe.estimates import Estimate
    from g2sd_deploy.probe.trial import _other
    from g2sd_deploy.probe.watching import Series, Watched

    recipe = recipe_of("segmentation")
    extent = sizing.extent_of(recipe, 2000, 300)
    extent = type(extent)(**vars(extent) | {"trial_test": 60})
    series = [Series(180, "", [(2.0, 0), (3.0, 60)]), Series(180, "", [(3.0, 60)]), Series(180, "", [(3.5, 60), (6.0, 180)])]
    artifact = Artifact.__new__(Artifact)
    object.__setattr__(artifact, "files", {})
    found = _other(Estimate("evaluate", True, ""), recipe, extent, artifact, Watched(10.0, 0.0, series))
    assert found.seconds == pytest.approx(10.0 + 4.0 * (300 / 60 - 1))  # from 2 s to 6 s it was scored


def test_a_probe_of_a_task_tries_its_stages(g2sd: Callable[..., Any], tmp_path: Path) -> None:
    changes = (
        "data.max_train_images=64",
        "data.max_test_images=4",
        "data.image_px=32",
        "pretrain.encoder.width=16",
        "pretrain.epochs=20",
        "pretrain.batch_size=16",
    )
    options = [word for change in changes for word in ("--set", change)]
    out = tmp_path / "out"
    answer = g2sd(
        "plan",
        "quickstart_teacher_segmentation",
        *options,
        "--until",
        "pretrain",
        "--probe",
        "--probe-minutes",
        0,
        "--out",
        out,
        "--device",
        "cpu",
        "--workers",
        0,
        "--json",
    )
    assert answer.code == 0, answer.err
    rows = {row["stage"]: row for row in json.loads(answer.out)["stages"]}
    assert list(rows) == ["data", "pretrain"] and rows["pretrain"]["steps"] == 20 * (64 // 16)
    assert rows["pretrain"]["steps_tried"] == sizing.MIN_STEPS and list(tmp_path.iterdir()) == []
