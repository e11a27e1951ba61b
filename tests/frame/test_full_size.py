"""The papers' recipes at their own size: every method takes optimiser steps on photographs' shapes. Slow: minutes and gigabytes."""

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo

from g2sd_deploy.planning import stages_of
from g2sd_deploy.recipe import bundled_recipes, load_recipe

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "method_steps.py"
ENCODER_TARGET = ("generic.teacher_decoder_block=null", "generic.decoder=null", "generic.teacher_encoder_block=12")
CASES: dict[str, tuple[str, tuple[str, ...], tuple[str, str]]] = {
    "g2sd, hard": ("g2sd_vit_small", (), ("G2SD generic distillation", "G2SD specific distillation (hard decisions)")),
    "g2sd of the encoder, soft": (
        "g2sd_vit_small",
        (*ENCODER_TARGET, "specific.method=soft"),
        ("G2SD generic distillation of the encoder", "soft distillation"),
    ),
    "mae, nkd": ("mae_ms_vit_small", ("specific.method=nkd",), ("MAE pre-training of the student", "normalised knowledge distillation")),
    "dmae": ("dmae_vit_small", (), ("DMAE", "plain fine-tuning")),
    "tinymim": ("tinymim_vit_small", (), ("TinyMIM", "plain fine-tuning")),
}


@pytest.fixture(scope="module")
def method_steps() -> ModuleType:
    found = importlib.util.spec_from_file_location("method_steps", SCRIPT)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten of ImageNet's classes, a few noise pictures each."""
    root, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ImageNetInfo("imagenet-1k").label_names()[:1000:100]:
            (root / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 256, (256, 270, 3), dtype=np.uint8)).save(root / split / name / f"{i}.jpg")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_vit_small_learns_five_steps_from_a_vit_base(case: str, method_steps: Any, photographs: Path, tmp_path: Path) -> None:
    name, settings, methods = CASES[case]
    args = argparse.Namespace(data=photographs, set=list(settings), steps=5, batch=4, device="cpu")
    rows = method_steps.time_recipe(name, args, tmp_path)
    assert [row["method"] for row in rows] == list(methods)
    assert all(row["steps"] == 5 and row["step_ms"] > 0 and np.isfinite(row["final_loss"]) for row in rows)
    assert rows[1]["student_m"] > 21.6


def test_the_benchmark_knows_every_recipe_of_that_size(method_steps: Any) -> None:
    wanted = {path.stem for path in bundled_recipes() if "_vit_" in path.stem and load_recipe(path).task is None}
    assert set(method_steps.full_size_recipes()) == wanted and len(wanted) == 15
    for path in bundled_recipes():
        if path.stem in wanted:
            recipe = load_recipe(path)
            roles = [role for role in ("masked", "encoder", "classifier") if getattr(recipe.teacher, role, None) is not None]
            named = [getattr(recipe.teacher, role) for role in roles]
            assert all(any(size in value for size in method_steps.SHAPES) for value in named), path.stem
            assert {"generic", "specific"} <= {stage.name for stage in stages_of(recipe)}
