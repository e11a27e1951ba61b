"""The recipes of ADE20K and COCO at their own size: teachers and students take optimiser steps. Slow: minutes and gigabytes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from g2sd_deploy import pipeline
from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.data.scenes.settings import SceneSpec
from g2sd_deploy.data.scenes.source import SceneSource
from g2sd_deploy.data.scenes.writing import write_scenes
from g2sd_deploy.models.checkpoint import save_encoder
from g2sd_deploy.models.dense.network_file import save_network
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.recipe import find_recipe, load_recipe
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages.dense_context import dense_task, task_file
from g2sd_deploy.stages.dense_models import make_network

STEPS = 3
NUM_CLASSES = {"ade20k": 150, "coco": 80}
LAYOUT = {"ade20k": "masks", "coco": "coco"}
SHAPES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}


def encoder_spec(size: str, image_px: int) -> EncoderSpec:
    width, heads = SHAPES[size]
    return EncoderSpec(image_px, 16, 3, width=width, depth=12, heads=heads)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few scenes in the layouts, split names and class counts of ADE20K and COCO."""
    root = tmp_path_factory.mktemp("dense") / "scenes"
    write_scenes(SceneSource(SceneSpec(image_px=320), num_train=STEPS, num_test=2), root, tick=lambda done, total: None)
    for folder in ("images", "annotations"):
        for split, name in (("train", "training"), ("test", "validation")):
            (root / "masks" / folder / split).rename(root / "masks" / folder / name)
    (root / "masks" / "classes.txt").write_text("".join(f"class {i}\n" for i in range(NUM_CLASSES["ade20k"])), encoding="utf-8")
    for split, name in (("train", "train2017"), ("test", "val2017")):
        (root / "coco" / split).rename(root / "coco" / name)
        annotations = root / "coco" / "annotations"
        described = json.loads((annotations / f"instances_{split}.json").read_bytes())
        (annotations / f"instances_{split}.json").unlink()
        have = {category["id"] for category in described["categories"]}
        more = [number for number in range(1, 2 * NUM_CLASSES["coco"]) if number not in have][: NUM_CLASSES["coco"] - len(have)]
        described["categories"] += [{"id": number, "name": f"class {number}", "supercategory": "none"} for number in more]
        (annotations / f"instances_{name}.json").write_text(json.dumps(described), encoding="utf-8")
    return root


def shortened(name: str, scenes: Path, folder: Path) -> Recipe:
    """The recipe with its own models on the scenes, three steps long; what it takes from other runs has random weights."""
    data_set, recipe = name.rpartition("_")[2], load_recipe(find_recipe(name))
    stage = "finetune" if recipe.student is None else "specific"
    overrides = [f"data.root={scenes / LAYOUT[data_set]}", f"data.max_train_images={STEPS}", "data.max_test_images=1"]
    overrides += [f"{stage}.epochs=1", f"{stage}.warmup_epochs=0.4", f"{stage}.batch_size=1", f"{stage}.precision=fp32"]
    torch.manual_seed(0)
    if recipe.student is None:
        save_encoder(folder / "teacher.safetensors", Encoder(encoder_spec("base", 224)))
        return load_recipe(find_recipe(name), [*overrides, f"teacher.encoder={folder / 'teacher.safetensors'}"])
    save_encoder(folder / "student.safetensors", Encoder(encoder_spec(name.split("_")[2], 224)))
    assert recipe.task is not None
    teacher = make_network(recipe.task, encoder_spec("base", recipe.data.image_px), NUM_CLASSES[data_set])
    save_network(folder / "teacher.safetensors", teacher, dense_task(recipe), class_names_of(scenes, data_set))
    role = task_file(recipe).partition(".")[0]
    overrides += [f"student.weights={folder / 'student.safetensors'}", f"teacher.{role}={folder / 'teacher.safetensors'}"]
    return load_recipe(find_recipe(name), overrides)


def class_names_of(scenes: Path, data_set: str) -> tuple[str, ...]:
    if data_set == "ade20k":
        return tuple((scenes / "masks" / "classes.txt").read_text(encoding="utf-8").splitlines())
    described = json.loads((scenes / "coco" / "annotations" / "instances_val2017.json").read_bytes())
    return tuple(category["name"] for category in sorted(described["categories"], key=lambda category: int(category["id"])))


TERMS = {"ade20k": {"loss_ce", "loss_aux"}, "coco": {"loss_rpn_objectness", "loss_region_mask"}}
TAUGHT = {"ade20k": {"loss_cwd"}, "coco": {"loss_frs_feature", "loss_frs_objectness"}}
MILLIONS = {
    "mae_vit_base_ade20k": 163.88,
    "g2sd_vit_small_ade20k": 42.00,
    "g2sd_vit_tiny_ade20k": 11.03,
    "mae_vit_base_coco": 113.89,
    "g2sd_vit_small_coco": 46.00,
    "g2sd_vit_tiny_coco": 28.48,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MILLIONS)
def test_a_recipe_of_a_task_learns_three_steps_at_its_own_size(name: str, scenes: Path, tmp_path: Path) -> None:
    recipe = shortened(name, scenes, tmp_path)
    stage, data_set = ("finetune" if recipe.student is None else "specific"), name.rpartition("_")[2]
    pipeline.run(
        recipe,
        tmp_path / "run",
        runtime=Runtime(torch.device("cpu"), workers=0),
        progress=SilentProgress(),
        command="g2sd run",
        until=stage,
    )
    made = read_artifact(tmp_path / "run" / stage)
    assert made is not None and made.metrics["num_steps"] == STEPS
    rows = [json.loads(line) for line in made.file("history.jsonl").read_text(encoding="utf-8").splitlines()]
    wanted = TERMS[data_set] | (set() if recipe.student is None else TAUGHT[data_set])
    assert wanted <= rows[-1].keys()
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert round(made.metrics["num_parameters"] / 1e6, 2) == MILLIONS[name]
