"""Images per second and memory of an evaluation on a CPU: `g2sd evaluate` against timm's validate.py, whole commands in turn.

    python benchmarks/evaluate_throughput.py FOLDER VALIDATE [--model vit_tiny_patch16_224] [--weights FILE] [--rounds 3] [--onnx FILE]

FOLDER is Imagenette (holds val/WNID/IMAGE); VALIDATE is validate.py of a checkout of huggingface/pytorch-image-models. Both score the same
weights in float32 on the same files with timm's preprocessing of the model, over 1000 logits, with their own defaults (validate.py: batches
of 256, 4 loader processes, all cores in one forward pass). Without --weights they are drawn from a fixed seed.

Seconds are of the whole command as a user waits for it; images/s leave out the start, which is a run on one image of each class. Both must
find the same top-1 and top-5, to the image. The largest memory of ours is measured on a quarter of the images, too: it has to stay flat.
Prints a table and, last, one JSON line; exit status 1 where the figures differ.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo

from g2sd_deploy.environment import machine

GOAL = 1.5
RIVAL, OWN = "timm validate.py", "g2sd evaluate, torch"
MIB = 1 << 10  # ru_maxrss is in KiB on Linux


@dataclass
class Contender:
    """A command; `seconds` and `mib` hold what each of its runs took."""

    command: Sequence[str]
    seconds: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    said: str = ""

    def run(self) -> None:
        """Run it once to its end.

        Raises:
            RuntimeError: It failed; with what it wrote.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            start = time.perf_counter()
            process = subprocess.Popen(self.command, stdout=out, stderr=err)
            _, status, usage = os.wait4(process.pid, 0)
            self.seconds.append(time.perf_counter() - start)
            self.mib.append(usage.ru_maxrss / MIB)
            for file in (out, err):
                file.seek(0)
            self.said = out.read()
            if status:
                raise RuntimeError(f"{' '.join(self.command)}\n{err.read()[-2000:]}")


def weights_of(model: str, given: Path | None, folder: Path) -> Path:
    """The weights as the safetensors file that both read."""
    torch.manual_seed(0)
    network = timm.create_model(model)
    if given is not None:
        state = load_file(given) if given.suffix == ".safetensors" else torch.load(given, weights_only=True)
        network.load_state_dict(state)
    path = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return path


def part_of(folder: Path, into: Path, num: int) -> Path:
    """The first images of each class, in a folder of the same layout."""
    for wnid in sorted((folder / "val").iterdir()):
        (into / "val" / wnid.name).mkdir(parents=True)
        for image in sorted(wnid.iterdir())[:num]:
            shutil.copyfile(image, into / "val" / wnid.name / image.name)
    return into


def timm_command(validate: Path, folder: Path, model: str, weights: Path, scratch: Path) -> list[str]:
    """validate.py on class folders of wnids, of which the class map tells the index among all 1000."""
    synsets = scratch / "synsets.txt"
    synsets.write_text("\n".join(ImageNetInfo("imagenet-1k").label_names()) + "\n")  # type: ignore[no-untyped-call]
    results = ["--results-file", str(scratch / "timm.json"), "--results-format", "json"]
    data = ["--data-dir", str(folder / "val"), "--class-map", str(synsets), "--num-classes", "1000"]
    return [sys.executable, str(validate), *data, "--model", model, "--checkpoint", str(weights), "--device", "cpu", *results]


def our_command(folder: Path, model: str) -> list[str]:
    """The same by the command of this package."""
    return [sys.executable, "-m", "g2sd_deploy", "evaluate", f"m={model}", "--on", f"imagenette={folder}", "--device", "cpu", "--json"]


def timm_figures(scratch: Path) -> dict[str, float]:
    found = json.loads((scratch / "timm.json").read_text())
    row = found[0] if isinstance(found, list) else found
    return {"top1": float(row["top1"]), "top5": float(row["top5"])}


def our_figures(said: str) -> dict[str, float]:
    scores = json.loads(said)["models"]["m"]["sets"]["imagenette"]
    return {"top1": 100 * scores["top1"], "top5": 100 * scores["top5"], "num": scores["num_images"]}


def main() -> None:
    """Run the contenders in turn, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("validate", type=Path)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--onnx", type=Path, help="The same model as an ONNX file of this package, as a third contender.")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(args, Path(name))
    show(found)
    print(json.dumps(found))
    sys.exit(0 if found["same"] else 1)


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """All runs; ratios are of medians over the rounds, in each of which every contender has its turn."""
    weights = weights_of(args.model, args.weights, scratch)
    few, quarter = part_of(args.folder, scratch / "few", 1), part_of(args.folder, scratch / "quarter", 98)
    models = {"g2sd evaluate, torch": f"timm:{args.model}@{weights}"}
    models |= {"g2sd evaluate, ONNX Runtime": str(args.onnx)} if args.onnx is not None else {}
    contenders = {RIVAL: Contender(timm_command(args.validate, args.folder, args.model, weights, scratch))}
    contenders |= {name: Contender(our_command(args.folder, model)) for name, model in models.items()}
    starts = {RIVAL: Contender(timm_command(args.validate, few, args.model, weights, scratch))}
    starts |= {name: Contender(our_command(few, model)) for name, model in models.items()}
    figures = {}
    for _ in range(args.rounds):
        for name, contender in contenders.items():
            contender.run()
            figures[name] = timm_figures(scratch) if name == RIVAL else our_figures(contender.said)
            starts[name].run()
    small = Contender(our_command(quarter, models[OWN]))
    small.run()
    num = int(figures[OWN]["num"])
    rows = {}
    for name, contender in contenders.items():
        seconds, began = statistics.median(contender.seconds), statistics.median(starts[name].seconds)
        rows[name] = {"seconds": seconds, "start": began, "images_per_s": num / (seconds - began), "mib": max(contender.mib)}
        rows[name] |= {key: figures[name][key] for key in ("top1", "top5")}
    return {
        "model": args.model,
        "num_images": num,
        "rounds": args.rounds,
        "contenders": rows,
        "ratio": rows[OWN]["images_per_s"] / rows[RIVAL]["images_per_s"],
        "same": all(round(num * figures[RIVAL][key] / 100) == round(num * figures[OWN][key] / 100) for key in ("top1", "top5")),
        "mib_of_a_quarter": small.mib[0],
        "machine": machine(),
    }


def show(found: dict[str, Any]) -> None:
    """The table, and how far from the goal."""
    table = Table(title=f"{found['model']}, {found['num_images']:,} images, median of {found['rounds']}")
    for heading in ("", "command, s", "start, s", "images/s", "largest memory, MiB", "top-1 %", "top-5 %"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in found["contenders"].items():
        cells = [row["seconds"], row["start"], row["images_per_s"], row["mib"]]
        table.add_row(name, *(f"{cell:.1f}" for cell in cells), f"{row['top1']:.3f}", f"{row['top5']:.3f}")
    console = Console(width=120)
    console.print(table)
    console.print(
        f"ours by theirs: {found['ratio']:.2f} (goal {GOAL}); memory on a quarter of the images: {found['mib_of_a_quarter']:.0f} MiB"
    )


if __name__ == "__main__":
    main()
