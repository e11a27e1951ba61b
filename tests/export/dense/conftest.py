"""A tiny segmenter and a tiny detector, real-looking images, and what shipping makes of them, made once per session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from g2sd_export.answers import Count
from g2sd_export.dense.exam import DenseExam
from g2sd_export.dense.half import kept_by_rule
from g2sd_export.dense.onnx_file import dense_metadata, export_dense_onnx
from g2sd_export.dense.proof import Metric, Scorer
from g2sd_export.dense.quantising import HeldOut, dense_int8
from g2sd_export.dense.questions import Questions, answers_to, questions_of
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.preprocess import normalise
from g2sd_export.shipping.material import Material, TrainingImages
from g2sd_export.shipping.race import RaceSettings
from g2sd_export.shipping.ship import Shipment, ship_from
from g2sd_export.shipping.workshop import Formats, Workshop
from g2sd_export.targets import Target, load_target

CLASS_NAMES = ("sky", "Wiese für Übermorgen", "dog", "cat")
PX, PATCH, KEPT = 32, 8, 6
SIZES = ((40, 52), (32, 32), (61, 33), (24, 90), (50, 50))
SEGMENTATION = DenseTask("segmentation", PX, 3, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
SLIDING = replace(SEGMENTATION, inference="slide", stride=20)
DETECTION = replace(SEGMENTATION, kind="detection", min_score=0.3)
CANDIDATES: list[dict[str, str]] = [
    {"runtime": "openvino", "precision": "int8"},
    {"runtime": "openvino", "precision": "fp32"},
    {"runtime": "onnxruntime", "precision": "fp32"},
]
TOLERANCE = {name: {"max_abs_logit_diff": 1.0} for name in ("fp32", "fp16", "int8")}


class TinySegmenter(nn.Module):
    """Logits at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Conv2d(8, len(CLASS_NAMES), 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.nn.functional.gelu(self.patches(images)))
        return logits


class TinyDetector(nn.Module):
    """A box for each patch, non-maximum suppression over the batch in one call, and as many rows as asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, PATCH, PATCH)
        self.box, self.score, self.mask = nn.Linear(12, 4), nn.Linear(12, len(CLASS_NAMES)), nn.Linear(12, 28 * 28)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch = images.shape[0]
        tokens = torch.tanh(self.patches(images)).flatten(2).transpose(1, 2)
        ticks = torch.arange(PX // PATCH) * PATCH + PATCH / 2
        centres = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).reshape(-1, 2)
        reach = 2 + self.box(tokens).sigmoid() * PX / 2
        boxes = torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], -1).clamp(0, PX)
        scores, labels = self.score(tokens).softmax(-1).max(-1)
        apart = (torch.arange(batch)[:, None] * len(CLASS_NAMES) + labels) * (PX + 1.0)
        alive = nms((boxes + apart[..., None]).flatten(0, 1), scores.flatten(), 0.5)
        scores = scores * torch.zeros_like(scores).flatten().index_fill(0, alive, 1.0).view_as(scores)
        best, place = scores.topk(KEPT, dim=1)
        boxes = boxes.gather(1, place[..., None].expand(-1, -1, 4))
        masks = self.mask(tokens.gather(1, place[..., None].expand(-1, -1, 12))).sigmoid()
        return boxes, best, labels.gather(1, place), masks.reshape(batch, KEPT, 28, 28)


class TorchNet:
    """A module as the proof asks it."""

    name = "torch"
    version = "test"

    def __init__(self, module: nn.Module, task: DenseTask) -> None:
        self.module, self.task = module, task

    def infer(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        with torch.no_grad():
            found = self.module(torch.from_numpy(normalise(images, self.task.preprocessing())))
        return tuple(one.numpy() for one in (found if isinstance(found, tuple) else (found,)))


@dataclass
class Made:
    """A tiny model, its float file, the questions and what became of the candidates."""

    task: DenseTask
    module: nn.Module
    float_onnx: Path
    questions: Questions
    target: Target
    shipment: Shipment


def make_module(kind: str) -> nn.Module:
    """With fixed weights, so large that answers differ from place to place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = TinySegmenter() if kind == "segmentation" else TinyDetector()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(3.0)
    return module.eval()


def make_images(first: int = 0, sizes: Sequence[tuple[int, int]] = SIZES) -> list[npt.NDArray[np.uint8]]:
    """Blocks of colour on gradients, of several sizes; others from another number on."""
    images = []
    for index, (rows, columns) in enumerate(sizes, first):
        draw = np.random.default_rng(index)
        blocks = np.kron(draw.integers(0, 200, (-(-rows // 9), -(-columns // 9), 3)), np.ones((9, 9, 1)))[:rows, :columns]
        images.append((blocks + np.linspace(0, 55, columns)[None, :, None]).astype(np.uint8))
    return images


def metric_of(task: DenseTask, questions: Questions, module: nn.Module) -> Metric:
    """Against a truth that is nearly what torch says: the share of pixels that are right, or of boxes that are where they were."""
    truth = list(answers_to(TorchNet(module, task), questions, batch_size=3, count=Count(None, 0)).results(questions))

    def metric(results: Iterable[Any]) -> dict[str, float | None]:
        pairs = list(zip(truth, results, strict=True))
        if task.kind == "segmentation":
            return {"miou": float(np.mean([(one == other).mean() for one, other in pairs]))}
        hits = [len(one) == len(other) and np.allclose(one.boxes, other.boxes, atol=0.5) for one, other in pairs]
        return {"ap": float(np.mean(hits)), "mask_ap": None}

    return metric


def make_target(candidates: list[dict[str, str]] = CANDIDATES, **more: Any) -> Target:
    """What two layers of random weights lose in 8 bits is much, and allowed."""
    loss = {"max_metric_drop_points": 60.0, "unmatched_share": 0.5, "changed_mask_share": 0.2, "changed_share_of_image": 0.5}
    values: dict[str, Any] = {"name": "mine", "description": "A device.", "candidates": candidates, "tolerance": TOLERANCE, "threads": 1}
    values |= {"int8": {"methods": ["ort-minmax"]}, "dense": {"int8": {**load_target("cpu-x86").limits("int8").model_dump(), **loss}}}
    return Target.model_validate({**values, **more})


def make_training(task: DenseTask, reference: nn.Module) -> tuple[TrainingImages, HeldOut]:
    """Images to calibrate with and others to judge on, whose truth is nearly what the reference says."""
    windows = questions_of(make_images(50, SIZES * 2), task).windows
    held_out = questions_of(make_images(80, SIZES * 2), task)
    names = tuple(f"image {index}" for index in range(2 * len(SIZES)))
    seen = TrainingImages(windows, np.zeros(len(windows), np.int64), names, "made-up")
    return seen, HeldOut(held_out, metric_of(task, held_out, reference))


def ship_tiny(
    task: DenseTask,
    folder: Path,
    *,
    module: nn.Module | None = None,
    reference: nn.Module | None = None,
    target: Target | None = None,
    training: tuple[TrainingImages | None, HeldOut | None] | None = None,
) -> Made:
    """Export a module and prove it against a reference, which is the module itself unless a test says otherwise."""
    module = module or make_module(task.kind)
    reference = reference or module
    target, questions = target or make_target(), questions_of(make_images(), task)
    metadata = dense_metadata(task, CLASS_NAMES, weights_sha256="ab" * 32, recipe="tiny")
    path = folder / "float.onnx"
    export_dense_onnx(module, task, num_classes=len(CLASS_NAMES), path=path, metadata=metadata)
    calibration, held_out = training or make_training(task, reference)
    material = Material(path, task.preprocessing(), questions.windows, np.zeros(0, np.int64), calibration=calibration)
    exam = DenseExam(questions, CLASS_NAMES, target, Scorer(metric_of(task, questions, reference), questions))
    formats = Formats(dense_int8(held_out, CLASS_NAMES), kept_by_rule)
    shop = Workshop(material, target, folder, lambda done, total, note: None, RaceSettings(seconds=0.01), formats)
    return Made(task, module, path, questions, target, ship_from(shop, exam, TorchNet(reference, task)))


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[DenseTask], Made]:
    """What shipping makes of the tiny model of a task."""
    known: dict[DenseTask, Made] = {}

    def made(task: DenseTask) -> Made:
        if task not in known:
            known[task] = ship_tiny(task, tmp_path_factory.mktemp(task.kind))
        return known[task]

    return made
