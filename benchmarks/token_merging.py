"""Does merging tokens pay, where attention is fused? Latency against the same network without merging, in turn, and what it costs.

For each classifier and each number of merged tokens per block: torch eager with fused attention, ONNX Runtime and OpenVINO, one image, in
one session for each runtime, every network beside the one that merges nothing; and top-1 of both on the same images, paired.

    python benchmarks/token_merging.py --data IMAGENETTE --model tiny=vit_tiny.safetensors --model small=vit_small.safetensors \
        --out token_merging.json

"wins" is a ratio whose whole 95 % interval lies below 1. What merging is worth beside a smaller number format is for `g2sd pareto`.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from g2sd_deploy.data.decoding import decode_set
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.data.selection import Selection
from g2sd_deploy.data.sources import guess_kind, open_source
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.models.checkpoint import ClassifierFile, load_classifier
from g2sd_deploy.models.deploy import as_shipped
from g2sd_deploy.models.token_merging import token_counts, with_token_merging
from g2sd_export.edge.measuring import MeasureSettings, Subject, measure
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.openvino_runner import OpenVINORunner
from g2sd_export.edge.runner import Runner
from g2sd_export.onnx_file import export_onnx
from g2sd_export.paired import paired_drop

RUNTIMES = ("torch", "onnxruntime", "openvino")
BATCH = 8


def images_of(folder: Path, split: str, file: ClassifierFile, most: int) -> ImageSet:
    """Images, spread evenly over the split."""
    source = open_source(guess_kind(str(folder)), str(folder), splits=(split,))
    if source.class_names != file.class_names:
        raise SystemExit(f"--data {folder}: its classes are not the classifier's")
    samples = source.samples(split, None)
    picks = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(np.int64)
    return decode_set(Selection(samples, picks), file.preprocessing, lambda done, total: None)


def runners_of(file: ClassifierFile, merged: int, folder: Path, threads: int) -> dict[str, Runner]:
    """The classifier that merges so many tokens, on each runtime."""
    model, pre, path = with_token_merging(file.model, merged), file.preprocessing, folder / f"{merged}.onnx"
    export_onnx(as_shipped(model), image_px=pre.image_px, num_channels=pre.num_channels, path=path)
    return {
        "torch": TorchRunner(model, pre, device=torch.device("cpu"), threads=threads),
        "onnxruntime": OnnxRunner(path, pre, threads=threads),
        "openvino": OpenVINORunner(path, pre, threads=threads),
    }


def right_of(runner: Runner, images: ImageSet) -> Any:
    """Whether each image is recognised."""
    pixels = np.asarray(images.images)
    parts = [runner.infer(pixels[at : at + BATCH]).argmax(axis=1) for at in range(0, len(pixels), BATCH)]
    return np.concatenate(parts) == np.asarray(images.labels)


def timed(runners: dict[int, Runner], seconds: float) -> dict[str, Any]:
    """Rows by number of merged tokens, and the conditions."""
    subjects = [Subject(str(merged), 1, call_of(runner)) for merged, runner in runners.items()]
    session = measure(subjects, MeasureSettings(percentile=90.0, seconds=seconds, reference="0"))
    return {"rows": session.rows, "conditions": session.conditions}


def call_of(runner: Runner) -> Callable[[], object]:
    """One image, prepared."""
    pre = runner.preprocessing
    pixels = np.random.default_rng(0).integers(0, 256, (1, pre.image_px, pre.image_px, pre.num_channels), dtype=np.uint8)
    return partial(runner.forward, runner.prepare(pixels))


def study(name: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers of one classifier."""
    file = load_classifier(path)
    images = images_of(arguments.data, arguments.split, file, arguments.images)
    merges = sorted({0, *arguments.merge})
    with tempfile.TemporaryDirectory() as scratch:
        runners = {merged: runners_of(file, merged, Path(scratch), arguments.threads) for merged in merges}
        right = {merged: right_of(found["torch"], images) for merged, found in runners.items()}
        sessions = {runtime: timed({merged: runners[merged][runtime] for merged in merges}, arguments.seconds) for runtime in RUNTIMES}
    spec, pooling = file.model.encoder.spec, file.model.pooling
    rows = []
    for merged in merges:
        row: dict[str, Any] = {"model": name, "merged_per_block": merged, "tokens": token_counts(spec, pooling, merged)}
        row |= {"top1": float(right[merged].mean()), "drop": paired_drop(right[0], right[merged]).to_dict()}
        rows.append(row | {runtime: sessions[runtime]["rows"][str(merged)] for runtime in RUNTIMES})
    return {"rows": rows, "conditions": {runtime: sessions[runtime]["conditions"] for runtime in RUNTIMES}}


def show(row: dict[str, Any]) -> None:
    """One row in a line."""
    low, high = (100 * end for end in row["drop"]["interval"])
    lost = f"lost {100 * row['drop']['drop']:+.2f} points ({low:+.2f} to {high:+.2f})"
    timings = "; ".join(f"{runtime} {latency(row[runtime])}" for runtime in RUNTIMES)
    print(f"{row['model']} r={row['merged_per_block']}: top-1 {row['top1']:.2%}, {lost}; {timings}", flush=True)


def latency(row: dict[str, Any]) -> str:
    """Median, ratio and whether it wins."""
    text, ratio = f"{row['p50_ms']:.2f} ms", row.get("ratio")
    if ratio is not None:
        low, high = ratio["interval"]
        standing = "wins" if high < 1 else "loses" if low > 1 else "draws"
        text += f", x{ratio['value']:.3f} ({low:.3f} to {high:.3f})" + (f", {standing}" if row["verdict"] == "valid" else "")
    return text if row["verdict"] == "valid" else f"{text} [{row['verdict']}: {'; '.join(row['reasons'])}]"


def main() -> None:
    """Study every classifier, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the splits of Imagenette")
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=FILE", help="classifier of g2sd; repeatable")
    parser.add_argument("--merge", type=lambda text: [int(part) for part in text.split(",")], default=[4, 8, 13], help="tokens per block")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0, help="most time for each network on each runtime")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {}
    for asked in arguments.model:
        name, _, path = asked.partition("=")
        found[name] = study(name, Path(path), arguments)
        for row in found[name]["rows"]:
            show(row)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
