"""Latency of full-size segmenters and detectors in every number format that ships, beside what else one could run: batch 1, in turn.

    g2sd data scenes scenes --num-train 60 --num-test 1 --image-px 512
    python benchmarks/dense_inference_cpu.py --images scenes/masks --image-px 512 g2sd_vit_small_ade20k g2sd_vit_small_coco

The networks are those of the recipes, with random weights: latency does not ask what was learned, and nothing is said of accuracy. The
files are made as `g2sd export` makes them. Rivals, from the same network: torch eager in fp32, ONNX Runtime and OpenVINO on the plain float
export, and NNCF with OpenVINO as their documentation has it.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_cpu import Rival, nncf_int8, onnxruntime_rival, openvino_rival
from PIL import Image

from g2sd_deploy.data.dense.folders import open_dense_folder
from g2sd_deploy.models.dense.segmenter_shipping import as_shipped
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.recipe import find_recipe, load_recipe
from g2sd_deploy.stages.dense_models import make_network
from g2sd_export.dense.exam import open_network
from g2sd_export.dense.onnx_file import dense_metadata, export_dense_onnx
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.preprocess import normalise
from g2sd_export.int8.calibration import inputs_of
from g2sd_export.int8.quantise import candidates
from g2sd_export.shipping.race import RaceSettings, race
from g2sd_export.targets import Candidate

CALIBRATION = 300
NUM_CLASSES = {"segmentation": 150, "detection": 80}
METHODS = ("nncf", "ort-minmax")
EAGER = "torch eager fp32"


def pictures(folder: Path, image_px: int) -> np.ndarray:
    samples = open_dense_folder("masks", str(folder)).samples("train", None)
    count = min(len(samples), inputs_of(CALIBRATION, image_px))
    found = [Image.fromarray(samples.read(index).pixels).resize((image_px, image_px), Image.Resampling.BILINEAR) for index in range(count)]
    return np.stack([np.asarray(image.convert("RGB")) for image in found])


def network(name: str, image_px: int) -> tuple[torch.nn.Module, DenseTask, float]:
    recipe = load_recipe(find_recipe(name), [])
    assert recipe.task is not None and recipe.student is not None, f"{name} is no recipe of a task"
    kind, student, data = recipe.task.kind, recipe.student, recipe.data
    shape = {"patch_px": student.patch_px, "width": student.width, "depth": student.depth, "heads": student.heads}
    spec = EncoderSpec(image_px=image_px, num_channels=data.num_channels, **shape)
    torch.manual_seed(0)
    model = make_network(recipe.task, spec, NUM_CLASSES[kind]).eval()
    millions = sum(value.numel() for value in model.parameters()) / 1e6
    task = DenseTask(kind, image_px, data.num_channels, tuple(data.mean), tuple(data.std))
    return (as_shipped(model, "logits") if kind == "segmentation" else model), task, millions  # type: ignore[arg-type]


def runners(module: torch.nn.Module, task: DenseTask, images: np.ndarray, threads: int, folder: Path) -> dict[str, tuple[Any, int]]:
    """Everything that is timed, by name, with the bytes of its file."""
    num, pre = NUM_CLASSES[task.kind], task.preprocessing()
    metadata = dense_metadata(task, [str(index) for index in range(num)], weights_sha256="0" * 64, recipe="benchmark")
    plain = export_dense_onnx(module, task, num_classes=num, path=folder / "float.onnx", metadata=metadata).path
    pixels = deployable_onnx(plain, pre, path=folder / "fp32.onnx").path

    def eager(inputs: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(inputs))

    nncf = nncf_int8(plain, [normalise(image[None], pre) for image in images], folder)
    found: dict[str, tuple[Any, int]] = {
        EAGER: (Rival(EAGER, pre, eager), 0),
        "ONNX Runtime fp32": (onnxruntime_rival("", plain, pre, threads), plain.stat().st_size),
        "OpenVINO as it comes": (openvino_rival("", plain, pre, threads), plain.stat().st_size),
        "NNCF + OpenVINO INT8": (openvino_rival("", nncf, pre, threads), nncf.with_suffix(".bin").stat().st_size),
    }
    files = {one.method: one.path for one in candidates(pixels, images, scheme="cpu", methods=METHODS, folder=folder)}
    ways: dict[str, tuple[Path, dict[str, str]]] = {
        "fp32-openvino": (pixels, {"precision": "fp32"}),
        "bf16-openvino": (pixels, {"precision": "bf16"}),
        **{f"int8-openvino, {method}": (path, {"precision": "int8"}) for method, path in files.items()},
        **{f"int8-bf16-openvino, {method}": (path, {"precision": "int8", "float_precision": "bf16"}) for method, path in files.items()},
    }
    for name, (path, values) in ways.items():
        candidate = Candidate.model_validate({"runtime": "openvino", **values})
        found[name] = (open_network(candidate, path, task, num, threads=threads), path.stat().st_size)
    return found


def measure(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    module, task, millions = network(name, arguments.image_px)
    found = runners(module, task, pictures(arguments.images, arguments.image_px), arguments.threads, folder)
    latencies = race({label: runner for label, (runner, _) in found.items()}, RaceSettings(seconds=arguments.seconds))
    rows = {}
    print(f"{name}: {millions:.1f} M parameters, {task.image_px} px, {task.kind}")
    for label, latency in latencies.items():
        mib = found[label][1] / 2**20
        rows[label] = {**latency, "of_eager": latency["p50_ms"] / latencies[EAGER]["p50_ms"], "mib": mib}
        shown = f"{latency['p50_ms']:8.1f} ms  {rows[label]['of_eager']:.3f} of eager  {mib:6.1f} MiB"
        print(f"  {label:32} {shown}  {latency['verdict']}, spread {latency['spread']:.0%}", flush=True)
    return {"parameters_m": millions, "image_px": task.image_px, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="of segmentation or detection")
    parser.add_argument("--images", type=Path, required=True, help="folder of masks, with images/train, to calibrate with")
    parser.add_argument("--image-px", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="the most time for each row")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = {"threads": arguments.threads, "cpus": os.cpu_count()}
    for name in arguments.recipes:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(name, arguments, Path(folder))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
