"""A dense quickstart with several seeds: distilled student, the same generic student on the labels alone, and their teacher.

    python benchmarks/dense_study.py quickstart_segmentation --seeds 0 1 2 --out runs/study

Each seed is a run of the recipe up to its evaluation; a stopped one goes on where it was. Prints a table (Markdown) and, last, one
JSON line.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from g2sd_deploy import pipeline
from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.progress import make_progress
from g2sd_deploy.recipe import find_recipe, load_recipe
from g2sd_deploy.runtime import make_runtime

MODELS = {"teacher": "teacher", "student": "generic and specific distillation", "baseline": "generic distillation, labels alone"}
SCORES = {"segmentation": {"mIoU": ("miou",), "aAcc": ("aacc",)}, "detection": {"box AP": ("box", "ap"), "mask AP": ("mask", "ap")}}


def evaluated(name: str, seed: int, settings: list[str], out: Path) -> dict[str, Any]:
    recipe = load_recipe(find_recipe(name), [f"seed={seed}", *settings])
    folder, command = out / f"{name}-seed{seed}", f"benchmarks/dense_study.py {name}"
    pipeline.run(recipe, folder, runtime=make_runtime(None), progress=make_progress(), command=command, until="evaluate")
    artifact = read_artifact(folder / "evaluate")
    assert artifact is not None
    return artifact.metrics


def score(metrics: dict[str, Any], model: str, path: tuple[str, ...]) -> float:
    found: Any = metrics["models"][model]
    for key in path:
        found = found[key]
    return 100.0 * float(found)


def summarise(by_seed: dict[int, dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    first = next(iter(by_seed.values()))
    return {
        title: {model: [score(metrics, model, path) for metrics in by_seed.values()] for model in MODELS}
        for title, path in SCORES[first["task"]].items()
    }


def print_table(found: dict[str, dict[str, list[float]]], seeds: list[int]) -> None:
    print("| score | model | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | standard deviation |")
    print("| --- " * (len(seeds) + 4) + "|")
    for title, models in found.items():
        for model, values in models.items():
            spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells = [*(f"{value:.2f}" for value in values), f"{statistics.mean(values):.2f}", spread]
            print(f"| {title} | {MODELS[model]} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="quickstart_segmentation or quickstart_detection")
    parser.add_argument("--out", type=Path, default=Path("runs/dense_study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="as `g2sd run --set`")
    args = parser.parse_args()
    found = summarise({seed: evaluated(args.recipe, seed, args.settings, args.out) for seed in args.seeds})
    print_table(found, args.seeds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
