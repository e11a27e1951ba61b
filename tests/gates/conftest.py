"""Snapshots made by hand, profiles as the measuring core writes them, and two small real runs."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from g2sd_deploy import pipeline
from g2sd_deploy.gates.packing import images_digest, packed
from g2sd_deploy.gates.snapshot import Answers, Model, SetFigures, Snapshot
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe

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
        "max_train_images": 320,
        "max_test_images": 60,
    },
    "teacher": {"masked": "bundled:fashion-mnist", "classifier": "bundled:fashion-mnist"},
    "student": {"patch_px": 7, "width": 24, "depth": 1, "heads": 2},
    "generic": {"method": "g2sd", "decoder": {"width": 8, "depth": 1, "heads": 1}, "teacher_decoder_block": 1, **TRAIN},
    "specific": {
        "method": "finetune",
        "epochs": 20,
        "batch_size": 32,
        "base_lr": 3e-2,
        "warmup_epochs": 1,
        "mix": {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0},
        "augment": {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "rand_augment": None, "erasing": 0.0},
    },
    "evaluate": {"corruptions": {"names": ["contrast", "fog"], "severities": [1, 3], "max_images": 30}},
    "export": {"only": ["fp32-onnxruntime"], "num_samples": 4, "robustness": None},
}


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def g2sd() -> Callable[..., Answer]:
    """Run `g2sd ARGUMENTS` in this process, outside of any CI system unless the test names one."""

    def run(*arguments: object, **environment: str) -> Answer:
        from g2sd_deploy.cli import app

        nothing = {"GITHUB_ACTIONS": None, "GITHUB_STEP_SUMMARY": None}
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={**nothing, **environment})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real run, from the data to the export. Not to be changed."""
    return _run(TINY, tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="session")
def broken_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same up to the evaluation, with a learning rate at which the student learns nothing. Not to be changed."""
    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("broken") / "run"))
    shutil.rmtree(folder / "export")
    return _run(TINY | {"specific": TINY["specific"] | {"base_lr": 1e-12, "min_lr": 0.0}}, folder, until="evaluate")


def _run(values: dict[str, Any], folder: Path, until: str = "export") -> Path:
    recipe, runtime = Recipe.model_validate(values), Runtime(torch.device("cpu"))
    pipeline.run(recipe, folder, runtime=runtime, progress=SilentProgress(), command="g2sd run tiny", until=until)
    return folder


@pytest.fixture(scope="session")
def answers() -> Callable[..., Answers]:
    """Stored answers of images "a0", "a1", ...; right is a text of 1 and 0."""

    def make(right: str | Iterable[int], scoring: str = "clean", variant: str = "", images: str = "a") -> Answers:
        bits = np.array([int(bit) for bit in right], dtype=bool)
        names = [f"{images}{place}" for place in range(len(bits))]
        digest = images_digest(names, range(len(bits)), [0] * len(bits), "")
        return Answers(set=scoring, variant=variant, num_images=len(bits), images=digest, right=packed(bits))

    return make


@pytest.fixture(scope="session")
def student(answers: Callable[..., Answers]) -> Callable[..., Model]:
    """A model with answers to clean images, and to corrupted ones by their variant."""

    def make(right: str, images: str = "a", **corrupted: str) -> Model:
        share = right.count("1") / len(right)
        stored = [
            answers(right, images=images),
            *(answers(bits, variant=name.replace("_", "/"), images=images) for name, bits in corrupted.items()),
        ]
        sets = {"clean": SetFigures(num_images=len(right), top1=share, top1_interval=(share, share))}
        return Model(sets=sets, answers=tuple(stored))

    return make


@pytest.fixture(scope="session")
def snapshot() -> Callable[..., Snapshot]:
    """A snapshot of these models."""

    def make(others: dict[str, Any] | None = None, /, **models: Model) -> Snapshot:
        return Snapshot(recipe="tiny", made_of={}, models=models, **(others or {}))

    return make


@pytest.fixture(scope="session")
def profile() -> Callable[..., dict[str, Any]]:
    """A profile of one model with a ratio to the reference, as `g2sd profile --json` prints it."""

    def make(value: float = 0.5, half_width: float = 0.005, **changes: Any) -> dict[str, Any]:
        row = {
            "model": "/somewhere/bundle",
            "variant": "fp32-onnxruntime",
            "runtime": "onnxruntime",
            "version": "1.31.1",
            "provider": "CPU",
            "precision": "fp32",
            "digest": "d" * 64,
            "file_bytes": 1000,
            "batch": 1,
            "threads": 2,
            "scenario": "single_stream",
            "verdict": "valid",
            "reasons": [],
            "p50_ms": 10 * value,
            "p90_ms": 11 * value,
            "p99_ms": None,
            "round_p50_ms": [10 * value] * 12,
            "round_index": list(range(12)),
            "ratio": {"to": "reference", "value": value, "interval": [value * (1 - half_width), value * (1 + half_width)]},
        }
        reference = {**row, "model": "reference", "variant": "", "digest": "r" * 64, "p50_ms": 10.0, "ratio": None}
        found = {
            "format": 1,
            "machine": {"system": "Linux", "machine": "x86_64", "cpu": "Some CPU", "cpus": 2},
            "conditions": {"verdict": "valid", "reasons": []},
            "reference": "reference",
            "rows": [reference, row],
            "layers": [],
        }
        for key, changed in changes.items():
            place = row if key in row else found["machine"] if key in found["machine"] else found  # type: ignore[operator]
            place[key] = changed  # type: ignore[index]
        return found

    return make


@pytest.fixture(scope="session")
def process_environment() -> dict[str, str]:
    """For a process of its own in any folder: where the packages are, and a `g2sd` command."""
    import g2sd_deploy
    import g2sd_export

    roots = {str(Path(str(package.__file__)).parent.parent) for package in (g2sd_deploy, g2sd_export)}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(sorted(roots)), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
