"""Optimiser steps of every method at full size: the recipes that ship, their own models and settings, on real images; timed.

    python benchmarks/method_steps.py --data FOLDER_OF_IMAGENETTE [--recipes NAME ...] [--set KEY=VALUE ...] [--steps 5] [--batch 8]
        [--device cuda]

FOLDER_OF_IMAGENETTE holds train/CLASS and val/CLASS. Only epochs and batch of a recipe are shrunk. A teacher of the same shape with random
weights stands in for a public one, so the losses mean nothing here and the time of a step does. Prints a table (Markdown) and, last, one
JSON line.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from timm.data import ImageNetInfo

from g2sd_deploy import pipeline
from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.environment import machine
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier, save_encoder, save_masked
from g2sd_deploy.models.masked import DecoderSpec, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec
from g2sd_deploy.progress import make_progress
from g2sd_deploy.recipe import bundled_recipes, load_recipe
from g2sd_deploy.runtime import make_runtime
from g2sd_deploy.settings import Recipe
from g2sd_export.edge.preprocess import Preprocessing

IMAGENET = Preprocessing(224, 256, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SHAPES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def full_size_recipes() -> list[str]:
    return [path.stem for path in bundled_recipes() if load_recipe(path).data.image_px == IMAGENET.image_px]


def stand_ins(recipe: Recipe, folder: Path) -> list[str]:
    """Overrides that put a random teacher of the same shape in the place of each one that the recipe names."""
    overrides = []
    for role in ("masked", "encoder", "classifier"):
        named = getattr(recipe.teacher, role, None)
        if named is None:
            continue
        size = next(size for size in SHAPES if size in named)
        path = folder / f"{role}_{size}.safetensors"
        if not path.is_file():
            write_teacher(role, size, path)
        overrides.append(f"teacher.{role}={path}")
    return overrides


def write_teacher(role: str, size: str, path: Path) -> None:
    width, depth, heads = SHAPES[size]
    spec = EncoderSpec(224, 16, 3, width=width, depth=depth, heads=heads)
    torch.manual_seed(0)
    match role:
        case "masked":
            save_masked(path, MaskedAutoencoder(spec, DecoderSpec(512, 8, 16)))
        case "encoder":
            save_encoder(path, Encoder(spec))
        case _:
            names = tuple(ImageNetInfo("imagenet-1k").label_names())
            save_classifier(path, ClassifierFile(Classifier(spec, len(names), pooling="mean"), IMAGENET, names))


def shrunk(name: str, args: argparse.Namespace, teachers: Path) -> Recipe:
    """The recipe with its own models, a few steps long."""
    path = next(path for path in bundled_recipes() if path.stem == name)
    recipe = load_recipe(path, args.set)
    overrides = [*args.set, f"data.root={args.data}", *stand_ins(recipe, teachers)]
    overrides += [f"data.max_train_images={args.steps * args.batch}", "data.max_test_images=20"]
    for stage in ("generic", "specific"):
        if getattr(recipe, stage) is not None:
            overrides += [f"{stage}.epochs=1", f"{stage}.warmup_epochs=0", f"{stage}.batch_size={args.batch}"]
    if getattr(recipe.generic, "loss_band", None) is not None:
        overrides.append("generic.loss_band=null")
    return load_recipe(path, overrides)


def time_recipe(name: str, args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    recipe = shrunk(name, args, folder)
    run = folder / name
    command = "benchmarks/method_steps.py"
    pipeline.run(recipe, run, runtime=make_runtime(args.device), progress=make_progress(), command=command, until="specific")
    rows = []
    for stage in ("generic", "specific"):
        artifact = read_artifact(run / stage)
        assert artifact is not None
        found = artifact.metrics
        assert found["num_steps"] == args.steps, f"{name}: {stage} took {found['num_steps']} steps"
        rows.append(
            {
                "recipe": name,
                "stage": stage,
                "method": found["method"],
                "student_m": found["num_parameters"] / 1e6,
                "steps": found["num_steps"],
                "step_ms": found["step_ms"],
                "first_loss": found["first_loss"],
                "final_loss": found["final_loss"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+", default=full_size_recipes())
    parser.add_argument("--set", nargs="+", default=[], help="settings of all these recipes, as g2sd run --set takes them")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", choices=["cpu", "cuda"], default=None)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.recipes:
            rows += time_recipe(name, args, Path(folder))
    print("| recipe | stage | method | student, M parameters | step, ms | loss, first and last |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        losses = f"{row['first_loss']:.3f}, {row['final_loss']:.3f}"
        print(f"| {row['recipe']} | {row['stage']} | {row['method']} | {row['student_m']:.2f} | {row['step_ms']:,.0f} | {losses} |")
    print(json.dumps({"batch": args.batch, "threads": torch.get_num_threads(), "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
