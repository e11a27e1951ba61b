"""A tiny run whose teacher is made on the spot, up to the evaluation."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from g2sd_deploy import pipeline, planning
from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages.context import Context

TRAIN = {"epochs": 1, "batch_size": 32, "base_lr": 1e-3}
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "idx",
        "root": "bundled:fashion-mnist",
        "image_px": 28,
        "num_channels": 1,
        "mean": [0.286],
        "std": [0.353],
        "max_train_images": 64,
        "max_test_images": 40,
    },
    "pretrain": {"encoder": {"patch_px": 7, "width": 16, "depth": 2, "heads": 2}, "decoder": {"width": 8, "depth": 2, "heads": 1}, **TRAIN},
    "finetune": {"pooling": "mean", **TRAIN},
    "student": {"patch_px": 7, "width": 8, "depth": 2, "heads": 1},
    "generic": {"method": "g2sd", "decoder": {"width": 8, "depth": 1, "heads": 1}, "teacher_decoder_block": 1, **TRAIN},
    "specific": {"method": "hard", **TRAIN},
    "baseline": dict(TRAIN),
    "evaluate": {"corruptions": {"names": ["contrast"], "severities": [1, 5], "max_images": 10}},
}


def run_recipe(recipe: Recipe, folder: Path, **options: Any) -> list[planning.Step]:
    return pipeline.run(recipe, folder, runtime=Runtime(torch.device("cpu")), progress=SilentProgress(), command="g2sd run tiny", **options)


def changed_recipe(**sections: dict[str, Any] | None) -> Recipe:
    """The tiny recipe with some sections replaced (None: left out); what trains does so as shortly as the others."""
    values = TINY | {
        name: section and ({} if name in ("data", "teacher", "student") else TRAIN) | section for name, section in sections.items()
    }
    return Recipe.model_validate({name: value for name, value in values.items() if value is not None})


@pytest.fixture(scope="session")
def recipe_with() -> Callable[..., Recipe]:
    return changed_recipe


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return changed_recipe()


@pytest.fixture(scope="session")
def tiny_run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    run_recipe(recipe, folder)
    return folder


@pytest.fixture(scope="session")
def artifact_of(tiny_run: Path) -> Callable[[str], Artifact]:
    """A finished stage of the tiny run."""

    def find(stage: str) -> Artifact:
        artifact = read_artifact(tiny_run / stage)
        assert artifact is not None
        return artifact

    return find


@pytest.fixture(scope="session")
def run_of(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run of the tiny recipe with some sections replaced, up to a stage; what they do not change is not run again. Not to be changed."""
    made: dict[str, Path] = {}

    def run(until: str = "specific", **sections: dict[str, Any] | None) -> Path:
        key = repr((until, sorted(sections.items())))
        if key not in made:
            made[key] = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("changed") / "run"))
            run_recipe(changed_recipe(**sections), made[key], until=until)
        return made[key]

    return run


@pytest.fixture
def make_context(artifact_of: Callable[[str], Artifact], recipe: Recipe, tmp_path: Path) -> Callable[..., Context]:
    """What a stage of the tiny run is given, with another recipe or other inputs if asked for."""

    def make(stage: str, changed: Recipe | None = None, folder: str = "made", **inputs: Artifact) -> Context:
        chosen = changed or recipe
        wanted = next(one for one in planning.stages_of(chosen) if one.name == stage)
        found = {role: inputs[role] if role in inputs else artifact_of(parent) for role, parent in wanted.parents.items()}
        (tmp_path / folder).mkdir()
        return Context(chosen, stage, found, tmp_path / folder, tmp_path, Runtime(torch.device("cpu")), SilentProgress(), "key")

    return make


@pytest.fixture(scope="module")
def user_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user keeps the method of the test file: its MODULE, under its MODULE_NAME."""
    folder = tmp_path_factory.mktemp("user")
    (folder / f"{request.module.MODULE_NAME}.py").write_text(request.module.MODULE)
    return folder


@pytest.fixture
def in_the_users_folder(request: pytest.FixtureRequest, user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(user_folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop(request.module.MODULE_NAME, None)
