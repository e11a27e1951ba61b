"""Fake run folders: the shape of real ones, with plausible numbers and no training."""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import Rendered, read_run, render_report

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
CORRUPTIONS = {"gaussian_noise": 0.21, "defocus_blur": 0.12, "fog": 0.31, "brightness": 0.07, "contrast": 0.24, "pixelate": 0.05}
ENVIRONMENT = {"platform": "Linux-6.1-x86_64", "cpu": "Intel Xeon, 2.60 GHz", "num_cpus": 2, "python": "3.11.13"}
TOOLS = {"torch": "2.15.0", "timm": "1.0.31"}


@dataclass
class FakeRun:
    """Content of a run folder; tests change it, then write it."""

    run: dict[str, Any]
    artifacts: dict[str, dict[str, Any]]
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    preview: bytes = b""
    manifest: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the folder as `g2sd run` would leave it and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(self.run), encoding="utf-8")
        for stage, artifact in self.artifacts.items():
            (folder / stage).mkdir(exist_ok=True)
            (folder / stage / "artifact.json").write_text(json.dumps(artifact), encoding="utf-8")
        for stage, rows in self.histories.items():
            (folder / stage / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        if self.preview:
            (folder / "data" / "preview.png").write_bytes(self.preview)
        if "export" in self.artifacts and self.manifest:
            (folder / "export" / "bundle").mkdir(exist_ok=True)
            (folder / "export" / "bundle" / "manifest.json").write_text(json.dumps(self.manifest), encoding="utf-8")
        return folder


@pytest.fixture
def full_run() -> FakeRun:
    """A quickstart: bundled teacher, two-stage student, baseline, export and profile; everything passed."""
    return quickstart_run()


@pytest.fixture(scope="session")
def full_run_factory() -> Callable[[], FakeRun]:
    """Builds a full run that a test may change."""
    return quickstart_run


@pytest.fixture
def teacher_run() -> FakeRun:
    """A run that only makes a teacher: data, pretrain, finetune, evaluate."""
    return teacher_only_run()


def quickstart_run() -> FakeRun:
    """Build the full run."""
    steps = {"generic": (0.62, 0.043, 47), "specific": (2.31, 0.91, 71), "baseline": (2.33, 0.74, 118)}
    stages = {
        "data": data_metrics(),
        "teacher": teacher_metrics(),
        **{stage: training_metrics(stage, *numbers) for stage, numbers in steps.items()},
        "evaluate": evaluate_metrics(),
        "export": export_metrics(),
        "profile": json.loads((Path(__file__).parent / "profile.json").read_text(encoding="utf-8")),
    }
    parents = {
        "generic": ["teacher"],
        "specific": ["teacher", "generic"],
        "evaluate": ["teacher", "specific", "baseline"],
        "export": ["specific"],
        "profile": ["export"],
    }
    artifacts = {stage: artifact(stage, metrics, parents.get(stage, [])) for stage, metrics in stages.items()}
    artifacts["export"]["files"] = {
        "bundle/models/fp32.onnx": {"sha256": digest("onnx"), "bytes": 1_935_222},
        "bundle/manifest.json": {"sha256": digest("manifest"), "bytes": 2_113},
        "bundle/sample.npz": {"sha256": digest("sample"), "bytes": 14_020},
    }
    return FakeRun(
        run=run_json("quickstart", "Distil the bundled Fashion-MNIST teacher into a 4 times smaller student on a laptop.", list(stages)),
        artifacts=artifacts,
        histories={stage: history(*numbers[:2]) for stage, numbers in steps.items()},
        preview=strip_png(),
        manifest={
            "licences": {"code": "Apache-2.0 AND MIT", "model": "Apache-2.0", "data": "MIT"},
            "provenance": {"weights_sha256": digest("specific")},
        },
    )


def teacher_metrics() -> dict[str, Any]:
    """Metrics of stage teacher."""
    parts = {
        role: {
            "source": "bundled:fashion-mnist",
            "file": f"{role}.safetensors",
            "sha256": digest(f"teacher {role}"),
            "description": f"{role} of g2sd",
            "licence": "MIT" if role == "classifier" else None,
        }
        for role in ("masked", "classifier")
    }
    return {"source": "bundled:fashion-mnist", "num_parameters": 2_654_410, "parts": parts, "classifier_parameters": 2_131_978}


def teacher_only_run() -> FakeRun:
    """Build the run of a teacher's recipe."""
    steps = {"pretrain": (1.07, 0.31, 2_580), "finetune": (2.32, 0.58, 1_940)}
    teacher = {"teacher": evaluate_metrics()["models"]["teacher"]}
    stages = {
        "data": data_metrics(),
        **{stage: training_metrics(stage, *numbers) for stage, numbers in steps.items()},
        "evaluate": {**evaluate_metrics(), "models": teacher, "agreement": {}},
    }
    return FakeRun(
        run=run_json("quickstart_teacher", "Pre-train and fine-tune the teacher.", list(stages)),
        artifacts={stage: artifact(stage, metrics, []) for stage, metrics in stages.items()},
        histories={stage: history(*numbers[:2]) for stage, numbers in steps.items()},
    )


def digest(text: str) -> str:
    """A stand-in for a SHA-256, fixed by the text."""
    return hashlib.sha256(text.encode()).hexdigest()


def run_json(recipe: str, description: str, stages: list[str]) -> dict[str, Any]:
    """run.json of a recipe that has exactly these stages."""
    every = ("data", "teacher", "pretrain", "finetune", "generic", "specific", "baseline", "evaluate", "export", "profile")
    resolved = {"name": recipe, "description": description, "seed": 0, **{stage: {} if stage in stages else None for stage in every}}
    command = f"g2sd run recipes/{recipe}.yaml"
    return {"format": 1, "recipe": recipe, "recipe_sha256": digest(recipe), "resolved": resolved, "command": command}


def artifact(stage: str, metrics: dict[str, Any], parents: list[str]) -> dict[str, Any]:
    """artifact.json of one stage."""
    extra = {"export": {"onnx": "1.23.2", "onnxruntime": "1.31.1"}, "profile": {"onnxruntime": "1.31.1"}}.get(stage, {})
    return {
        "format": 1,
        "stage": stage,
        "key": digest(f"key {stage}"),
        "digest": digest(f"digest {stage}"),
        "files": {"model.safetensors": {"sha256": digest(stage), "bytes": 1_900_000}},
        "config": {},
        "parents": {name: digest(f"digest {name}") for name in parents},
        "version": "0.1.0",
        "tools": {**TOOLS, **extra},
        "environment": deepcopy(ENVIRONMENT),
        "seconds": metrics.get("train_seconds", 3.0) + 1.4,
        "finished_at": "2026-11-21T18:00:00Z",
        "metrics": metrics,
    }


def data_metrics() -> dict[str, Any]:
    """Metrics of stage data."""
    return {
        "num_train": 10_000,
        "num_test": 5_000,
        "num_classes": len(CLASSES),
        "class_names": list(CLASSES),
        "image_px": 28,
        "num_channels": 1,
        "fingerprint": digest("data"),
        "description": "Fashion-MNIST, a fixed subset: grey photographs of clothes (MIT licence).",
    }


def training_metrics(stage: str, first: float, final: float, seconds: float) -> dict[str, Any]:
    """Metrics of a training stage."""
    methods = {
        "pretrain": "MAE pre-training",
        "finetune": "supervised fine-tuning",
        "generic": "G2SD generic distillation",
        "specific": "G2SD specific distillation",
        "baseline": "supervised training from scratch",
    }
    parameters = {"generic": 560_112, "pretrain": 2_654_410, "finetune": 2_131_978}.get(stage, 481_354)
    return {
        "method": methods[stage],
        "first_loss": first,
        "final_loss": final,
        "num_parameters": parameters,
        "model_bytes": 4 * parameters + 3_200,
        "images_seen": round(seconds * 1_904),
        "images_per_s": 1_904.3,
        "train_seconds": seconds + 0.4,
        "device": "cpu",
    }


def history(first: float, final: float, num_steps: int = 300, epochs: float = 12.0) -> list[dict[str, Any]]:
    """A noisy exponential fall from one loss to the other; the noise is a fixed sum of sines."""
    rows = []
    for step in range(1, num_steps + 1):
        done = step / num_steps
        wobble = math.sin(12.9898 * step) + math.sin(4.1414 * step + 1)
        value = final + (first - final) * math.exp(-5 * done) * (1 + 0.05 * wobble) + 0.02 * final * wobble
        rows.append({"step": step, "epoch": round(epochs * done, 4), "loss": round(value, 6), "lr": 1e-3 * (1 - done)})
    return rows


def scores(top1: float, ece: float, num_images: int | None = None) -> dict[str, Any]:
    """Accuracy and calibration that fit together."""
    found = {"top1": round(top1, 4), "top5": round(1 - (1 - top1) * 0.02, 4), "nll": round(2.6 * (1 - top1), 4), "ece": round(ece, 4)}
    return found if num_images is None else {**found, "num_images": num_images}


def evaluate_metrics() -> dict[str, Any]:
    """Metrics of stage evaluate."""
    models = {
        "teacher": model_scores(2_131_978, 0.9236, 0.021, 0.9),
        "student": model_scores(481_354, 0.8944, 0.018, 1.0),
        "baseline": model_scores(481_354, 0.8528, 0.034, 1.15),
    }
    note = "The corruptions are regenerated at the size of the images, so these numbers do not compare with ImageNet-C."
    return {"models": models, "num_corruption_images": 1_000, "corruption_note": note, "agreement": {"student": 0.9312, "baseline": 0.8811}}


def model_scores(num_parameters: int, top1: float, ece: float, frailty: float) -> dict[str, Any]:
    """One model: clean, every corruption at every severity, and the mean."""
    corruptions = {
        name: {str(level): scores(top1 * (1 - harm * frailty * level / 3), ece * (1 + level)) for level in range(1, 6)}
        for name, harm in CORRUPTIONS.items()
    }
    every = [found["top1"] for levels in corruptions.values() for found in levels.values()]
    return {
        "num_parameters": num_parameters,
        "model_mib": round(4 * num_parameters / 2**20, 3),
        "clean": scores(top1, ece, 5_000),
        "corruptions": corruptions,
        "mean_corruption_top1": round(sum(every) / len(every), 4),
    }


def export_metrics() -> dict[str, Any]:
    """Metrics of stage export, parity passed."""
    parity = {
        "verdict": "passed",
        "reason": "",
        "num_images": 5_000,
        "flipped": 0,
        "flipped_share": 0.0,
        "max_abs_logit_diff": 3.34e-6,
        "mean_abs_logit_diff": 4.12e-7,
        "min_cosine": 0.9999999,
        "top1_reference": 0.8944,
        "top1_candidate": 0.8944,
        "tolerance": {"max_abs_logit_diff": 1e-3, "flipped_share": 0.0},
        "reference": "torch 2.15.0",
        "candidate": "onnxruntime 1.31.1 CPUExecutionProvider",
    }
    hop = {**parity, "name": "onnx", "candidate": "onnxruntime 1.31.1 CPUExecutionProvider"}
    return {
        "verdict": "passed",
        "target": "cpu-x86",
        "default": "fp32-onnxruntime",
        "model_file": "models/fp32.onnx",
        "model_bytes": 1_935_222,
        "model_sha256": digest("onnx"),
        "bundle": "bundle",
        "parity": parity,
        "hops": [hop],
        "candidates": [
            candidate("int8-onnxruntime", "failed", 0.8814, 1.3, "1.30 points of accuracy are lost, tolerated 0.30"),
            candidate("fp32-onnxruntime", "passed", 0.8944, 0.0, "", chosen=True),
            candidate("int8-dynamic-onnxruntime", "passed", 0.8926, 0.18, ""),
            candidate("bf16-openvino", "not_run", None, None, "openvino is not installed here"),
        ],
        "latency": {"fp32-onnxruntime": {"p50_ms": 0.91}, "int8-dynamic-onnxruntime": {"p50_ms": 1.01}},
        "reasons": {
            "fp32-onnxruntime": "the fastest inside the accuracy budget",
            "int8-dynamic-onnxruntime": "1.11 times as slow as what ships",
        },
        "standing": {name: standing_of(top1) for name, top1 in (("float", 0.8944), ("shipped", 0.8943))},
    }


def candidate(name: str, verdict: str, top1: float | None, drop: float | None, reason: str, *, chosen: bool = False) -> dict[str, Any]:
    """A row of the export stage's candidates."""
    flipped = None if top1 is None else 3
    figures = {"top1": top1, "drop_points": drop, "flipped": flipped, "file_bytes": 1_935_222, "chosen": chosen}
    return {"name": name, "precision": name[:4], "runtime": "onnxruntime", "verdict": verdict, "reason": reason, **figures}


def standing_of(top1: float) -> dict[str, Any]:
    """Scores of the float model or of what ships."""
    corruptions = {"contrast": {"3": {"top1": top1 - 0.1}}, "gaussian_noise": {"3": {"top1": top1 - 0.3}}}
    return {"num_images": 5_000, "top1": top1, "nll": 0.31, "ece": 0.021, "mean_corruption_top1": top1 - 0.2, "corruptions": corruptions}


def strip_png(num_images: int = 20, side: int = 28) -> bytes:
    """A grey PNG strip of simple shapes."""
    width = num_images * side
    rows = []
    for y in range(side):
        shades = [int(255 * max(0.0, 1 - math.hypot(x % side - 14, y - 14) / (6 + x // side % 8))) for x in range(width)]
        rows.append(b"\0" + bytes(shades))
    header = struct.pack(">IIBBBBB", width, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.fixture(scope="session")
def full_report(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """The report of the unchanged full run, rendered once for every test that only reads it."""
    return render_report(read_run(quickstart_run().write(tmp_path_factory.mktemp("full"))))
