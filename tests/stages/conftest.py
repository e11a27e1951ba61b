"""A tiny run whose teacher is made on the spot, up to the evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from g2sd_deploy import pipeline
from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.progress import SilentProgress
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
    "student": {"patch_px": 7, "width": 8, "depth": 1, "heads": 1},
    "generic": {"decoder": {"width": 8, "depth": 1, "heads": 1}, "teacher_decoder_block": 1, **TRAIN},
    "specific": dict(TRAIN),
    "baseline": dict(TRAIN),
    "evaluate": {"corruptions": {"names": ["contrast"], "severities": [1, 5], "max_images": 10}},
}


def run_recipe(recipe: Recipe, folder: Path, **options: Any) -> list[pipeline.Step]:
    return pipeline.run(recipe, folder, device=torch.device("cpu"), progress=SilentProgress(), command="g2sd run tiny", **options)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.model_validate(TINY)


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


@pytest.fixture
def make_context(artifact_of: Callable[[str], Artifact], recipe: Recipe, tmp_path: Path) -> Callable[..., Context]:
    """What a stage of the tiny run is given, with another recipe if asked for."""

    def make(stage: str, changed: Recipe | None = None, folder: str = "made") -> Context:
        wanted = next(one for one in pipeline.stages_of(recipe) if one.name == stage)
        inputs = {role: artifact_of(parent) for role, parent in wanted.parents.items()}
        (tmp_path / folder).mkdir()
        return Context(changed or recipe, stage, inputs, tmp_path / folder, tmp_path, torch.device("cpu"), SilentProgress())

    return make
