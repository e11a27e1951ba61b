"""Every recipe that ships runs from end to end, on a handful of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.planning import stages_of
from g2sd_deploy.recipe import bundled_recipes, load_recipe, resolved_text

RECIPES = bundled_recipes()
# These train in seconds; the recipes of the papers need teachers that are not at hand, and minutes.
SMALL = [path for path in RECIPES if path.stem in ("quickstart", "quickstart_teacher", "cifar10", "imagenette")]


DENSE = [path for path in RECIPES if path.stem.startswith("quickstart") and path.stem.endswith(("segmentation", "detection"))]


def by_name(path: Path) -> str:
    return path.stem


def test_the_recipes_of_the_readme_are_there() -> None:
    assert {"quickstart", "quickstart_teacher"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=by_name)
def test_a_recipe_opens_with_what_it_is_and_its_command(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = list(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert len(comment) >= 3
    assert any(line.startswith(f"# Command:  g2sd run recipes/{path.name}") for line in comment)


@pytest.mark.parametrize("path", RECIPES, ids=by_name)
def test_a_recipe_is_named_as_its_file_and_says_what_it_does(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description.endswith(".")


def test_a_recipe_is_shown_as_it_stands_or_resolved(g2sd: Callable[..., Any]) -> None:
    path = next(path for path in RECIPES if path.stem == "mae_vit_tiny")
    assert g2sd("recipes", "show", "mae_vit_tiny").out == path.read_text(encoding="utf-8")
    shown = g2sd("recipes", "show", "mae_vit_tiny", "--resolved").out
    assert shown == resolved_text(path)
    assert "\nbase:" not in shown and "image_px: 224" in shown


@pytest.mark.parametrize("path", SMALL, ids=by_name)
def test_a_recipe_runs_from_end_to_end(
    path: Path, g2sd: Callable[..., Any], make_idx_folder: Any, make_image_folder: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    recipe = load_recipe(path)
    stages = [stage.name for stage in stages_of(recipe)]
    data = recipe.data
    if data.root.startswith("bundled:"):
        run = request.getfixturevalue("smoke_run")
        assert path.stem == "quickstart", "give this recipe a run of its own"
        answer, folder = run.answer, run.folder
    else:
        if data.source == "idx":
            root = make_idx_folder(tmp_path / "data")
        else:
            root = make_image_folder(tmp_path / "data", (data.train_split, data.test_split), px=data.image_px)
        folder = tmp_path / "out"
        fast = ("--set", "profile.threads=1") if recipe.profile is not None else ()
        answer = g2sd("run", path, "--smoke", "--device", "cpu", "--set", f"data.root={root}", *fast, "--out", folder)
    check_run(answer, folder, stages)


@pytest.mark.parametrize("path", DENSE, ids=by_name)
def test_a_recipe_of_composed_scenes_runs_from_end_to_end(path: Path, g2sd: Callable[..., Any], tmp_path: Path) -> None:
    stages = [stage.name for stage in stages_of(load_recipe(path))]
    answer = g2sd("run", path, "--smoke", "--device", "cpu", "--workers", 1, "--out", tmp_path / "out")
    check_run(answer, tmp_path / "out", stages)


def check_run(answer: Any, folder: Path, stages: list[str]) -> None:
    """Every stage ran in its turn and left an artifact that is whole."""
    assert answer.code == 0, answer.err
    assert [line.removesuffix(": starts") for line in answer.err.splitlines() if line.endswith(": starts")] == stages
    for name in stages:
        artifact = read_artifact(folder / name)
        assert artifact is not None
        artifact.verify()
