"""The smoke run's recipe."""

from pathlib import Path

import pytest

from g2sd_deploy.recipe import bundled_recipes, load_recipe, shrink_for_smoke
from g2sd_deploy.settings import Recipe, TrainSettings

SECTIONS = list(Recipe.model_fields)


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda path: path.stem)
def test_the_smoke_run_keeps_every_stage_and_every_model(path: Path) -> None:
    recipe = load_recipe(path)
    small = shrink_for_smoke(recipe)
    assert [name for name in SECTIONS if getattr(small, name) is not None] == [n for n in SECTIONS if getattr(recipe, n) is not None]
    assert (small.name, small.student, small.teacher) == (recipe.name, recipe.student, recipe.teacher)
    for stage in ("pretrain", "generic"):
        for shape in ("encoder", "decoder"):
            assert getattr(getattr(small, stage), shape, None) == getattr(getattr(recipe, stage), shape, None)


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda path: path.stem)
def test_a_smoke_run_trains_five_steps_in_every_stage(path: Path) -> None:
    recipe = load_recipe(path)
    small = shrink_for_smoke(recipe)
    trained = {name: stage for name in SECTIONS if isinstance(stage := getattr(small, name), TrainSettings)}
    assert trained
    assert small.data.max_train_images == small.data.max_test_images == 40
    assert {(stage.batch_size, stage.epochs) for stage in trained.values()} == {(8, 1.0)}
    for name, stage in trained.items():
        changed = {key for key, value in stage.model_dump().items() if value != getattr(recipe, name).model_dump()[key]}
        assert changed <= {"epochs", "warmup_epochs", "batch_size", "loss_band"}
        assert getattr(stage, "loss_band", None) is None


def test_a_recipe_of_fewer_images_keeps_them() -> None:
    recipe = load_recipe(bundled_recipes()[0], ["data.max_train_images=24", "data.max_test_images=8"])
    assert (recipe.data.max_train_images, recipe.data.max_test_images) == (24, 8)
    small = shrink_for_smoke(recipe).data
    assert (small.max_train_images, small.max_test_images) == (24, 8)


def test_what_is_done_with_the_student_is_short() -> None:
    small = shrink_for_smoke(load_recipe(next(path for path in bundled_recipes() if path.stem == "quickstart")))
    assert small.evaluate is not None and small.evaluate.corruptions is not None and small.profile is not None
    assert (small.evaluate.corruptions.max_images, small.evaluate.corruptions.severities) == (4, (3,))
    assert small.profile.seconds == 0.1
