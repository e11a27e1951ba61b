"""The four-recipe ablation of G2SD at small scale: MAE, MAE + specific, generic + fine-tuning, generic + specific; several seeds.

    python benchmarks/ablation.py --data FOLDER_OF_CIFAR10 --out runs/ablation --seeds 0 1 2

FOLDER_OF_CIFAR10 holds train/CLASS/*.jpg and test/CLASS/*.jpg. A stopped run goes on where it was; stages that two recipes share (the
teacher, the student's pre-training) are computed once per seed. Prints a table (Markdown) and, last, one JSON line.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from g2sd_deploy import pipeline
from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.evaluation.predictions import columns_of, predictions_file
from g2sd_deploy.planning import parents_by_stage, stages_of
from g2sd_deploy.progress import make_progress
from g2sd_deploy.recipe import load_recipe
from g2sd_deploy.run_folder import check_folder, record_run
from g2sd_deploy.runtime import make_runtime
from g2sd_deploy.settings import Recipe

RECIPES = Path(__file__).parent / "ablation"
VARIANTS = {
    "mae": "MAE",
    "mae_ms": "MAE, specific distillation",
    "g2sd_without_specific": "G2SD without specific",
    "g2sd": "G2SD",
}
SAME_PRETRAINING = {"mae_ms": "mae", "g2sd": "g2sd_without_specific"}


def run(recipe: Recipe, folder: Path) -> None:
    pipeline.run(recipe, folder, runtime=make_runtime(None), progress=make_progress(), command=f"benchmarks/ablation.py ({recipe.name})")


def top1_of(folder: Path, model: str) -> float:
    evaluated = read_artifact(folder / "evaluate")
    assert evaluated is not None
    return float(evaluated.metrics["models"][model]["clean"]["top1"])


def right_of(folder: Path) -> np.ndarray:
    """Which test images the student decides rightly."""
    return columns_of(folder / "evaluate" / predictions_file("student"), "clean")["correct"]


def share_stages(folder: Path, other: Path) -> None:
    """Take over the finished stages that both recipes have; the pipeline checks that they are the same."""
    for stage in ("data", "generic"):
        if (other / stage).is_dir() and not (folder / stage).exists():
            shutil.copytree(other / stage, folder / stage)


def run_seed(seed: int, data: Path, out: Path, teacher: Path) -> dict[str, Path]:
    folders = {}
    for name in VARIANTS:
        overrides = [f"data.root={data}", f"seed={seed}"]
        if name != "mae":
            overrides += [f"teacher.masked={teacher / 'pretrain'}", f"teacher.classifier={teacher / 'finetune'}"]
        recipe = load_recipe(RECIPES / f"{name}.yaml", overrides)
        folder = folders[name] = out / f"{name}-seed{seed}"
        check_folder(recipe, folder)
        folder.mkdir(parents=True, exist_ok=True)
        record_run(recipe, folder, "benchmarks/ablation.py", parents_by_stage(stages_of(recipe)))
        if name in SAME_PRETRAINING:
            share_stages(folder, folders[SAME_PRETRAINING[name]])
        run(recipe, folder)
    return folders


def summarise(folders: dict[int, dict[str, Path]], teacher_top1: float) -> dict[str, Any]:
    rows = {}
    for name in VARIANTS:
        values = [100 * top1_of(found[name], "student") for found in folders.values()]
        spread = statistics.stdev(values) if len(values) > 1 else None
        rows[name] = {"top1": values, "mean": statistics.mean(values), "stdev": spread}
    pairs = {}
    for worse, better in (("mae", "mae_ms"), ("mae", "g2sd_without_specific"), ("mae_ms", "g2sd"), ("g2sd_without_specific", "g2sd")):
        alone = [(right_of(found[better]), right_of(found[worse])) for found in folders.values()]
        pairs[f"{better} over {worse}"] = [[int((a & ~b).sum()), int((b & ~a).sum())] for a, b in alone]
    return {"teacher_top1": 100 * teacher_top1, "students": rows, "right_alone": pairs}


def print_table(found: dict[str, Any], seeds: list[int]) -> None:
    print("| recipe | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | standard deviation |")
    print("| --- " * (len(seeds) + 3) + "|")
    for name, title in VARIANTS.items():
        row = found["students"][name]
        cells = [f"{value:.2f}" for value in row["top1"]] + [f"{row['mean']:.2f}", "" if row["stdev"] is None else f"{row['stdev']:.2f}"]
        print(f"| {title} | " + " | ".join(cells) + " |")
    print(f"\nTeacher: {found['teacher_top1']:.2f} %.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teacher-only", action="store_true", help="train the teacher and stop")
    args = parser.parse_args()
    teacher = args.out / "teacher"
    run(load_recipe(RECIPES / "teacher.yaml", [f"data.root={args.data}"]), teacher)
    if args.teacher_only:
        return
    folders = {seed: run_seed(seed, args.data, args.out, teacher) for seed in args.seeds}
    found = summarise(folders, top1_of(teacher, "teacher"))
    print_table(found, args.seeds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
