"""The command line in this process, stages that cost nothing, and one real smoke run per session."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import g2sd_deploy
import g2sd_export
from g2sd_deploy import artifact, pipeline
from g2sd_deploy.artifact import Made
from g2sd_deploy.data.idx import write_idx
from g2sd_deploy.pipeline import Step
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.settings import Recipe

# A forward pass that may use two threads where one core is free takes a hundred times as long.
FAST = ("--smoke", "--set", "profile.threads=1", "--device", "cpu")


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status, and what it wrote where."""

    code: int
    out: str
    err: str


def g2sd_command(*arguments: object) -> Answer:
    """Run `g2sd ARGUMENTS` in this process; an exception that reaches the user fails the test."""
    from g2sd_deploy.cli import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def g2sd() -> Callable[..., Answer]:
    return g2sd_command


@pytest.fixture(scope="session")
def process_environment() -> dict[str, str]:
    """For a process of its own in any folder: where the packages are."""
    roots = {str(Path(str(package.__file__)).parent.parent) for package in (g2sd_deploy, g2sd_export)}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots)), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class SmokeRun:
    """A finished smoke run of the quickstart and what the command wrote."""

    folder: Path
    answer: Answer
    arguments: tuple[str, ...]


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """Not to be changed; see `own_run`."""
    folder = tmp_path_factory.mktemp("smoke") / "quickstart"
    arguments = ("run", "quickstart", *FAST)
    return SmokeRun(folder, g2sd_command(*arguments, "--out", folder), arguments)


@pytest.fixture
def own_run(smoke_run: SmokeRun, tmp_path: Path) -> Path:
    """A copy of the smoke run that the test may damage."""
    return Path(shutil.copytree(smoke_run.folder, tmp_path / "run"))


class MakeImages(Protocol):
    """Writes SPLIT/CLASS/IMAGE files of random colours."""

    def __call__(self, root: Path, splits: tuple[str, ...] = ..., *, classes: int = 4, per_class: int = 24, px: int = 40) -> Path: ...


@pytest.fixture(scope="session")
def make_image_folder() -> MakeImages:
    def make(root: Path, splits: tuple[str, ...] = ("train", "test"), *, classes: int = 4, per_class: int = 24, px: int = 40) -> Path:
        rng = np.random.default_rng(0)
        for split in splits:
            for name in (f"class{i}" for i in range(classes)):
                (root / split / name).mkdir(parents=True)
                for i in range(per_class):
                    pixels = rng.integers(0, 256, (px, px + 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / split / name / f"{i:03}.jpg")
        return root

    return make


@pytest.fixture(scope="session")
def make_idx_folder() -> Callable[[Path], Path]:
    """Writes four IDX files of random 28 px images in ten classes."""

    def make(root: Path) -> Path:
        root.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for split, num in (("train", 100), ("t10k", 50)):
            write_idx(root / f"{split}-images-idx3-ubyte.gz", rng.integers(0, 256, (num, 28, 28), dtype=np.uint8))
            write_idx(root / f"{split}-labels-idx1-ubyte.gz", (np.arange(num) % 10).astype(np.uint8))
        return root

    return make


@dataclass
class FakeStages:
    """Stands for every stage: writes what its settings and its inputs say, so that a change of either changes its digest.

    Attributes:
        ran: Names of the stages that ran, in order.
        failures: Stage to the reason of its failed verdict.
        raises: Stage to what it raises once it has written half a file.
        constant: Stages whose result is the same whatever their settings.
    """

    ran: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    raises: dict[str, BaseException] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)

    def __call__(self, module: str) -> "FakeStages":
        assert module.startswith("g2sd_deploy.stages."), module
        return self

    def run(self, context: Any) -> Made:
        (context.folder / "half.txt").write_text("half")
        if context.stage in self.raises:
            raise self.raises[context.stage]
        self.ran.append(context.stage)
        config = next(stage.config for stage in pipeline.stages_of(context.recipe) if stage.name == context.stage)
        made_of = {"config": config, "inputs": {role: artifact.digest for role, artifact in context.inputs.items()}}
        (context.folder / "half.txt").unlink()
        (context.folder / "result.json").write_text(json.dumps({} if context.stage in self.constant else made_of, default=str))
        return Made({"stage": context.stage}, timing={"seconds": len(self.ran)}, failure=self.failures.get(context.stage, ""))

    def take(self) -> list[str]:
        """The stages that ran since the last call."""
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    fake = FakeStages()
    monkeypatch.setattr(pipeline, "import_module", fake)
    monkeypatch.setattr(artifact, "_sync", lambda path: None)  # what a crash of the machine leaves is tested with the artifacts
    return fake


@pytest.fixture
def run_recipe(tmp_path: Path) -> Callable[..., list[Step]]:
    """Run a recipe in the folder `out` of the test."""

    def run(recipe: Recipe, **options: Any) -> list[Step]:
        arguments = {"device": torch.device("cpu"), "progress": SilentProgress(), "command": "g2sd run"} | options
        return pipeline.run(recipe, tmp_path / "out", **arguments)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def python() -> str:
    return sys.executable
