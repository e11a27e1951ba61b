"""Images per second of one training on 1, 2, ... processes with the same global batch, and how well they share the work.

    python benchmarks/scaling.py [--processes 1 2] [--rounds 3] [--device cpu] [--shard] [--width 192] [--batch 128] [--steps 40]

Each measurement is the real command, started by torchrun, in a new folder; rounds take the numbers of processes in turn, so that what else
the machine does meets all of them. Data lie decoded in memory: this measures computing and exchanging gradients, not loading. Efficiency is
the rate over the rate of one process times their number. Prints a table (Markdown) and, last, one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from g2sd_deploy.environment import machine

RECIPE = """name: scaling
data: {{source: idx, root: "bundled:fashion-mnist", image_px: 28, num_channels: 1, mean: [0.286], std: [0.353], max_train_images: {batch},
       max_test_images: 1}}
pretrain: {{encoder: {{patch_px: 4, width: {width}, depth: 12, heads: 3}}, decoder: {{width: 64, depth: 1, heads: 1}},
           epochs: {steps}, batch_size: {batch}, base_lr: 1.0e-3}}
finetune: {{epochs: 1, batch_size: {batch}, base_lr: 1.0e-3}}
student: {{patch_px: 4, width: 16, depth: 1, heads: 1}}
generic: {{method: mae, decoder: {{width: 8, depth: 1, heads: 1}}, epochs: 1, batch_size: {batch}, base_lr: 1.0e-3}}
specific: {{method: hard, epochs: 1, batch_size: {batch}, base_lr: 1.0e-3}}
"""


def measure(num: int, options: argparse.Namespace) -> dict[str, Any]:
    """What the pretrain stage's artifact says of a training on `num` processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = RECIPE.format(batch=options.batch, width=options.width, steps=options.steps)
        (folder / "scaling.yaml").write_text(recipe)
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num), "-m", "g2sd_deploy"]
        command = [*launch, "run", "scaling.yaml", "--out", "out", "--until", "pretrain", "--device", options.device]
        shard = ["--shard"] if options.shard and num > 1 else []
        subprocess.run([*command, *shard], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
        metrics: dict[str, Any] = json.loads((folder / "out" / "pretrain" / "artifact.json").read_text())["metrics"]
        assert metrics["num_processes"] == num
        return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    found: dict[int, list[dict[str, Any]]] = {num: [] for num in options.processes}
    for _ in range(options.rounds):
        for num in options.processes:
            found[num].append(measure(num, options))
    rates = {num: statistics.median(one["images_per_s"] for one in many) for num, many in found.items()}
    first = options.processes[0]
    efficiency = {num: rate / rates[first] * first / num for num, rate in rates.items()}
    print("| processes | images/s (median) | of each round | efficiency |\n| --- | --- | --- | --- |")
    for num, rate in rates.items():
        rounds = ", ".join(f"{one['images_per_s']:.0f}" for one in found[num])
        print(f"| {num} | {rate:.0f} | {rounds} | {efficiency[num]:.2f} |")
    parameters = found[first][0]["num_parameters"]
    print(
        json.dumps({"images_per_s": rates, "efficiency": efficiency, "num_parameters": parameters, **vars(options), "machine": machine()})
    )


if __name__ == "__main__":
    main()
