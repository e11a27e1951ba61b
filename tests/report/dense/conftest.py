"""Runs with a task as `g2sd run` leaves them: hand-written numbers and small pictures, no training."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.report import Rendered, read_run, render_report

GARMENTS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
REACHED = {"teacher": 0.7131, "student": 0.6857, "baseline": 0.6414}
PARAMETERS = {"teacher": 1_871_830, "student": 729_398, "baseline": 729_398}
TERMS = {"segmentation": ("ce", "aux", "cwd"), "detection": ("rpn_objectness", "rpn_box", "region_class", "frs_feature")}
PICTURED = ("image", "truth", "teacher", "student", "baseline")


class DenseRun:
    """A run folder's content; tests change it, then write it."""

    def __init__(self, full: Any, task: str, num_classes: int) -> None:
        self.full, self.task = full, task
        self.pictures: dict[str, bytes] = {}
        names = GARMENTS[:num_classes] + [f"class {index:03}" for index in range(len(GARMENTS), num_classes)]
        full.run["recipe"] = full.run["resolved"]["name"] = f"quickstart_{task}"
        full.run["resolved"] |= {"task": {"kind": task}, "baseline": {"start": "generic"}, "student": {"width": 192, "depth": 12}}
        self.metrics("data").update(num_classes=num_classes, class_names=names, num_test=300, num_test_objects=812)
        full.artifacts["evaluate"]["metrics"] = self._evaluation(names)
        self._export()
        for stage in ("specific", "baseline"):
            full.histories[stage] = [self._with_terms(row) for row in full.histories[stage]]
        self.metrics("teacher").update(num_parameters=PARAMETERS["teacher"])
        file = "segmenter.safetensors" if task == "segmentation" else "detector.safetensors"
        full.artifacts["teacher"]["files"] = {file: {"sha256": "0" * 64, "bytes": 7_501_304}}

    def metrics(self, stage: str) -> Any:
        """What a stage measured."""
        return self.full.artifacts[stage]["metrics"]

    @property
    def models(self) -> Any:
        """Scores by model."""
        return self.metrics("evaluate")["models"]

    def write(self, folder: Path) -> Path:
        """Write the folder and return it."""
        self.full.write(folder)
        for name, png in self.pictures.items():
            (folder / "evaluate" / name).write_bytes(png)
        return folder

    def _evaluation(self, names: list[str]) -> dict[str, Any]:
        pictures = [{name: f"picture_{index}_{name}.png" for name in PICTURED} for index in (0, 75)]
        self.pictures = {file: png(place) for place, file in enumerate(file for row in pictures for file in row.values())}
        score = pixel_scores if self.task == "segmentation" else object_scores
        models = {model: {"num_parameters": PARAMETERS[model], **score(value, names)} for model, value in REACHED.items()}
        shown = {"shown_score": 0.3} if self.task == "detection" else {}
        return {"task": self.task, "num_images": 300, "class_names": names, "models": models, "pictures": pictures, **shown}

    def _with_terms(self, row: dict[str, Any]) -> dict[str, Any]:
        shares = {name: 0.5 ** (place + 1) for place, name in enumerate(TERMS[self.task])}
        return {**row, **{f"loss_{name}": share * row["loss"] for name, share in shares.items()}}

    def _export(self) -> None:
        metrics = self.metrics("export")
        figures, tolerance = PROOFS[self.task]
        proof = {"name": "fp32-onnxruntime", "verdict": "passed", "reason": "", "num_images": 200, **figures, "tolerance": tolerance}
        proof |= {"reference": "torch 2.15.0", "candidate": "onnxruntime 1.31.1 CPUExecutionProvider"}
        metrics |= {"parity": proof, "hops": [{**proof, "name": "onnx"}]}
        del metrics["standing"]
        for one in metrics["candidates"]:
            del one["top1"], one["flipped"]
            one |= figures if one["verdict"] != "not_run" else {}


PROOFS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "segmentation": (
        {"changed_share": 0.00012, "worst_changed_share": 0.00134, "miou_reference": 0.6861, "miou_candidate": 0.686},
        {"changed_share": 0.001, "changed_share_of_image": 0.01},
    ),
    "detection": (
        {
            "unmatched_share": 0.0013,
            "max_score_diff": 0.00042,
            "max_box_shift_px": 0.031,
            "mask_changed_share": 0.0002,
            "ap_reference": 0.6861,
            "ap_candidate": 0.686,
            "mask_ap_reference": 0.6412,
            "mask_ap_candidate": 0.6411,
        },
        {"unmatched_share": 0.005, "max_score_diff": 0.01, "max_box_shift_px": 0.5, "changed_mask_share": 0.01},
    ),
}


def of_classes(value: float, names: list[str]) -> dict[str, float | None]:
    """A figure for each class, spread about the mean; the fourth class has none."""
    found: dict[str, float | None] = {name: round(value + 0.25 * math.sin(1.7 * index), 4) for index, name in enumerate(names)}
    found[names[3]] = None
    return found


def pixel_scores(value: float, names: list[str]) -> dict[str, Any]:
    """Scores of a segmenter."""
    interval = [round(value - 0.0133, 4), round(value + 0.0127, 4)]
    rest = {"aacc": round(value + 0.221, 4), "macc": round(value + 0.0874, 4), "iou_by_class": of_classes(value, names)}
    return {"miou": value, "miou_interval": interval, **rest}


def object_scores(value: float, names: list[str]) -> dict[str, Any]:
    """Scores of a detector; there are no large objects."""

    def precision(ap: float) -> dict[str, float | None]:
        around = {"ap50": ap + 0.2, "ap75": ap + 0.05, "ap_small": ap - 0.1, "ap_medium": ap + 0.07}
        return {"ap": ap, **{key: round(one, 4) for key, one in around.items()}, "ap_large": None}

    return {
        "box": precision(value),
        "mask": precision(round(value - 0.0445, 4)),
        "box_ap_interval": [round(value - 0.0151, 4), round(value + 0.0149, 4)],
        "box_ap_by_class": of_classes(value, names),
        "mask_ap_by_class": of_classes(value - 0.0445, names),
    }


def png(number: int, side: int = 24, *, noise: bool = False) -> bytes:
    """A small picture that differs from that of any other number; with noise one that compresses badly."""
    rows, columns = np.mgrid[:side, :side]
    pixels = np.stack([rows * 9 + 20 * number, columns * 7, (rows * columns) % 200], axis=2) % 256
    if noise:
        pixels = (pixels + (rows * 7919 + columns * 104_729)[:, :, None] * np.array([1, 31, 57]) ** 2 // 13) % 256
    written = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(written, "PNG")
    return written.getvalue()


@pytest.fixture(scope="session")
def dense_run(full_run_factory: Callable[[], Any]) -> Callable[..., DenseRun]:
    """Builds a finished run of a task, exported and timed, that a test may change."""

    def made(task: str, num_classes: int = len(GARMENTS)) -> DenseRun:
        return DenseRun(full_run_factory(), task, num_classes)

    return made


@pytest.fixture(scope="session", params=["segmentation", "detection"])
def shown(request: pytest.FixtureRequest, dense_run: Callable[..., DenseRun], tmp_path_factory: pytest.TempPathFactory) -> "Shown":
    """The unchanged run of each task and its report, rendered once."""
    run = dense_run(request.param)
    return Shown(run, render_report(read_run(run.write(tmp_path_factory.mktemp(request.param)))))


class Shown:
    """A run and its page."""

    def __init__(self, run: DenseRun, rendered: Rendered) -> None:
        self.run, self.rendered = run, rendered
        self.data = json.loads(rendered.json)
