"""Latency of the file that ships beside what else one could run, in turn in one process: batch 1, two threads.

Rivals, all from the same weights: timm eager in fp32; ONNX Runtime on the plain float export; OpenVINO on the same file, in fp32 and as it
comes (on processors with AMX it computes in bf16 without saying so); ONNX Runtime's static INT8; and NNCF with OpenVINO, as their
documentation has it: an OpenVINO model, the transformer preset, every setting of the runtime left alone.

    g2sd export vit_small.safetensors --on IMAGENETTE --split val --out bundle_small
    python benchmarks/inference_cpu.py --data IMAGENETTE --model small=vit_small.safetensors:bundle_small --out inference_cpu.json

Accuracy is taken on the validation images with `--images`. The goals: the shipped file takes at most 0.45 of timm eager's time and is no
slower than NNCF with OpenVINO, at no more than 0.3 points lost.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from g2sd_deploy.models.checkpoint import ClassifierFile, load_classifier
from g2sd_export.bundle import open_bundle
from g2sd_export.edge.openvino_runner import shared_core
from g2sd_export.edge.preprocess import Preprocessing, load_image, normalise
from g2sd_export.int8.calibration import pick_calibration
from g2sd_export.onnx_file import export_onnx
from g2sd_export.shipping.race import RaceSettings, race

CALIBRATION = 300
GOAL_OF_EAGER = 0.45
GOAL_POINTS = 0.3


@dataclass
class Rival:
    """Anything that is timed: takes what the network takes, gives logits."""

    name: str
    preprocessing: Preprocessing
    run: Callable[[np.ndarray], np.ndarray]
    pixels: bool = False
    version: str = ""

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return images if self.pixels else normalise(images, self.preprocessing)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        return self.run(inputs)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return self.forward(self.prepare(images))


def timm_model(file: ClassifierFile) -> torch.nn.Module:
    """timm's own ViT with the same weights, which has to answer alike."""
    spec, classifier = file.model.encoder.spec, file.model
    assert classifier.token == "none" and classifier.pooling == "mean", "the rivals know plain ViTs with mean pooling"
    model = timm.models.VisionTransformer(
        img_size=spec.image_px,
        patch_size=spec.patch_px,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        num_classes=len(file.class_names),
        global_pool="avg",
    ).eval()
    state = {name.removeprefix("encoder."): value for name, value in classifier.state_dict().items()}
    state |= {f"fc_norm.{part}": state.pop(f"norm.{part}") for part in ("weight", "bias")}
    model.load_state_dict(state)
    images = torch.rand(2, spec.num_channels, spec.image_px, spec.image_px)
    with torch.inference_mode():
        assert torch.allclose(model(images), classifier(images), atol=1e-4), "timm's model answers differently"
    return model


def rivals(file: ClassifierFile, calibration: np.ndarray, threads: int, folder: Path) -> list[Rival]:
    """Everything but what ships."""
    pre, model = file.preprocessing, timm_model(file)
    onnx = export_onnx(model, image_px=pre.image_px, num_channels=pre.num_channels, path=folder / "timm.onnx").path
    floats = [normalise(image[None], pre) for image in calibration]
    return [
        _eager(model, pre),
        onnxruntime_rival("ONNX Runtime fp32", onnx, pre, threads),
        openvino_rival("OpenVINO fp32", onnx, pre, threads, INFERENCE_PRECISION_HINT="f32"),
        openvino_rival("OpenVINO as it comes", onnx, pre, threads),
        onnxruntime_rival("ONNX Runtime INT8", _ort_int8(onnx, floats, folder), pre, threads),
        openvino_rival("NNCF + OpenVINO INT8", nncf_int8(onnx, floats, folder), pre, threads),
    ]


def _eager(model: torch.nn.Module, pre: Preprocessing) -> Rival:
    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(inputs)).numpy()

    return Rival("timm eager fp32", pre, run)


def onnxruntime_rival(name: str, path: Path, pre: Preprocessing, threads: int) -> Rival:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Rival(name, pre, lambda inputs: session.run(None, {"images": inputs})[0], version=onnxruntime.__version__)


def openvino_rival(name: str, path: Path, pre: Preprocessing, threads: int, **more: Any) -> Rival:
    import openvino

    core = shared_core()
    model = core.read_model(path)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **more}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return Rival(name, pre, lambda inputs: request.infer({0: inputs})[0], version=openvino.__version__)


def _ort_int8(onnx: Path, floats: list[np.ndarray], folder: Path) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(floats[:32])

        def get_next(self) -> dict[str, np.ndarray] | None:
            found = next(self.left, None)
            return None if found is None else {"images": found}

    path = folder / "ort_int8.onnx"
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "op_types_to_quantize": ["MatMul", "Gemm", "Conv"]}
    quantize_static(onnx, path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
    return path


def nncf_int8(onnx: Path, floats: list[np.ndarray], folder: Path) -> Path:
    import nncf
    import openvino

    model = shared_core().read_model(onnx)
    data = nncf.Dataset(floats, lambda one: {"images": one})
    quantised = nncf.quantize(
        model, data, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED, subset_size=len(floats)
    )
    openvino.save_model(quantised, folder / "nncf_int8.xml")
    return folder / "nncf_int8.xml"


def listing(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Images of SPLIT/CLASS/IMAGE folders and their classes, in order."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    found = [(path, label) for label, one in enumerate(classes) for path in sorted(one.iterdir())]
    return [path for path, _ in found], np.array([label for _, label in found])


def top1(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of right decisions, image by image."""
    return float(np.mean([int(model.infer(image[None]).argmax()) == label for image, label in zip(images, labels, strict=True)]))


def measure(arguments: argparse.Namespace, name: str, classifier: Path, bundle: Path, folder: Path) -> dict[str, Any]:
    """One model: every rival and every variant of its bundle."""
    file = load_classifier(classifier)
    pre = file.preprocessing
    paths, labels = listing(arguments.data / "train")
    pick = pick_calibration(labels, [str(path.relative_to(arguments.data)) for path in paths], count=CALIBRATION)
    runners: dict[str, Any] = {
        one.name: one for one in rivals(file, np.stack([load_image(paths[i], pre) for i in pick.indices]), arguments.threads, folder)
    }
    shipped = open_bundle(bundle)
    ships = f"ships: {shipped.default}"
    for variant in shipped.variants:
        runners[ships if variant.name == shipped.default else variant.name] = shipped.runner(
            threads=arguments.threads, variant=variant.name
        )
    found = race(runners, RaceSettings(seconds=arguments.seconds, percentile=99))
    paths, labels = listing(arguments.data / "val")
    count = min(len(paths), arguments.images)
    picks = np.arange(count) * len(paths) // max(1, count)
    images = np.stack([load_image(paths[i], pre) for i in picks]) if count else np.zeros(0)
    rows = {}
    for label, latency in found.items():
        accuracy = top1(runners[label], images, labels[picks]) if count else None
        rows[label] = {**latency, "of_eager": latency["p50_ms"] / found["timm eager fp32"]["p50_ms"], "top1": accuracy}
        shown = f"{latency['verdict']}, spread {latency['spread']:.0%}" + ("" if accuracy is None else f"  top-1 {accuracy:.2%}")
        print(f"{name:6} {label:28} {latency['p50_ms']:7.2f} ms  {rows[label]['of_eager']:.3f} of eager  {shown}", flush=True)
    return {"rows": rows, "verdicts": verdicts(rows, ships)}


def verdicts(rows: dict[str, dict[str, Any]], ships: str) -> dict[str, bool | None]:
    """The goals, met or not."""
    own, rival, eager = rows[ships], rows["NNCF + OpenVINO INT8"], rows["timm eager fp32"]
    lost = None if own["top1"] is None else 100 * (eager["top1"] - own["top1"])
    met = {
        f"at most {GOAL_OF_EAGER} of timm eager": own["of_eager"] <= GOAL_OF_EAGER,
        "no slower than NNCF + OpenVINO INT8": own["p50_ms"] <= rival["p50_ms"],
        f"at most {GOAL_POINTS} points lost": None if lost is None else lost <= GOAL_POINTS,
    }
    for goal, one in met.items():
        print(f"  {goal}: {'not measured' if one is None else 'met' if one else 'NOT met'}", flush=True)
    return met


def main() -> None:
    """Measure every model that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ of Imagenette")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=CLASSIFIER:BUNDLE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="the most time for each rival")
    parser.add_argument("--images", type=int, default=0, help="validation images for accuracy; none by default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    Image.init()
    results: dict[str, Any] = {"threads": arguments.threads, "cpus": os.cpu_count()}
    for one in arguments.model:
        name, _, files = one.partition("=")
        classifier, _, bundle = files.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(arguments, name, Path(classifier), Path(bundle), Path(folder))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
