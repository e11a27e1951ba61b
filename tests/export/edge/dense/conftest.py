"""Tiny networks whose answers are known from the image, and bundles of them, written by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import g2sd_export.edge
from g2sd_export.edge.dense.outputs import answer_of
from g2sd_export.edge.dense.preparing import prepared
from g2sd_export.edge.dense.task import DenseTask

CLASS_NAMES = ("red thing", "grünes Ding", "blue thing")
PX = 32
MASK_PX = 28
BOXES = np.asarray([[0, 0, 16, 16], [8, 4, 32, 20], [20, 20, 30, 30]], np.float32)
FILE = "models/pixels.onnx"


def colour_segmenter(task: DenseTask, *, outputs: str = "logits") -> bytes:
    """uint8 [B, px, px, 3] to the colours' means over squares of 4 x 4 pixels: red is class 0, green 1, blue 2."""
    px = task.image_px
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Div", ["means", "scale"], ["logits"]),
    ]
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, px // 4, px // 4])
    if outputs == "classes":
        nodes += [
            helper.make_node("ArgMax", ["chw"], ["indices"], axis=1, keepdims=0),
            helper.make_node("Cast", ["indices"], ["classes"], to=TensorProto.UINT8),
        ]
        found = helper.make_tensor_value_info("classes", TensorProto.UINT8, ["batch", px, px])
    return _content(nodes, [found], {"scale": np.float32(100)}, task)


def colour_detector(task: DenseTask, *, batch: int | str = "batch") -> bytes:
    """uint8 [B, px, px, 3] to three fixed boxes of classes 0, 1, 2, whose scores are the means of red, green and blue."""
    masks = np.ones((3, MASK_PX, MASK_PX), np.float32)
    masks[1, :, MASK_PX // 2 :] = 0
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "rows_and_columns"], ["scores"], keepdims=0),
        helper.make_node("Shape", ["scores"], ["head"]),
    ]
    for name in ("boxes", "labels", "masks"):
        nodes += [
            helper.make_node("Concat", ["head", f"{name}.tail"], [f"{name}.shape"], axis=0),
            helper.make_node("Expand", [f"{name}.value", f"{name}.shape"], [name]),
        ]
    constants = {
        "scale": np.float32(255),
        "rows_and_columns": np.asarray([1, 2]),
        "boxes.value": BOXES[None],
        "labels.value": np.asarray([[0, 1, 2]]),
        "masks.value": masks[None],
        "boxes.tail": np.asarray([4]),
        "labels.tail": np.asarray([], np.int64),
        "masks.tail": np.asarray([MASK_PX, MASK_PX]),
    }
    outputs = [
        helper.make_tensor_value_info("masks", TensorProto.FLOAT, [batch, 3, MASK_PX, MASK_PX]),  # in another order than they are wanted
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 3, 4]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, 3]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3]),
    ]
    return _content(nodes, outputs, constants, task, batch)


def _content(nodes: list[Any], outputs: list[Any], constants: dict[str, Any], task: DenseTask, batch: int | str = "batch") -> bytes:
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, task.image_px, task.image_px, 3])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [images], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    told = {"class_names": list(CLASS_NAMES), "task": task.to_dict()}
    helper.set_model_props(model, {key: json.dumps(value) for key, value in told.items()})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of whatever lies in the folder, and its digest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("manifest.json", "manifest.sha256"))
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if "__pycache__" not in path.parts}
    files = {name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in contents.items()}
    content = json.dumps({**facts, "files": files}, indent=2).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def write_bundle(folder: Path, task: DenseTask, model: bytes, answer: dict[str, npt.NDArray[Any]], pixels: npt.NDArray[np.uint8]) -> Path:
    """A bundle of two variants: ONNX Runtime (the default) and OpenVINO.

    Args:
        folder: Made here.
        task: What the model does.
        model: An ONNX file.
        answer: What is expected for the picture.
        pixels: uint8 [h, w, 3]: the picture.
    """
    (folder / "models").mkdir(parents=True)
    (folder / FILE).write_bytes(model)
    (folder / "labels.txt").write_bytes("".join(f"{name}\n" for name in CLASS_NAMES).encode())
    (folder / "README.md").write_text("# tiny\n")
    (folder / "sbom.cdx.json").write_text("{}\n")
    Image.fromarray(pixels).save(folder / "sample.png")
    shutil.copytree(Path(g2sd_export.edge.__file__).parent, folder / "edge", ignore=shutil.ignore_patterns("__pycache__"))
    windows = prepared(pixels, task)[1]
    golden = {f"{key}.fp32-onnxruntime": array for key, array in answer.items()}
    np.savez(folder / "sample.npz", images=windows, decoded=windows, **answer, **golden)  # type: ignore[arg-type]
    limits = {
        "segmentation": {"changed_share": 0.01, "changed_share_of_image": 0.02},
        "detection": {"unmatched_share": 0.0, "max_score_diff": 0.001, "max_box_shift_px": 0.1, "changed_mask_share": 0.0},
    }[task.kind]
    first = {"segmentation": ("logits", ["batch", 3, PX // 4, PX // 4]), "detection": ("boxes", ["batch", 3, 4])}[task.kind]
    common: dict[str, Any] = {
        "file": FILE,
        "precision": "fp32",
        "input": {"name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", PX, PX, 3]},
        "output": {"name": first[0], "dtype": "float32", "shape": first[1]},
        "verdict": "passed",
        "reason": "",
        "hops": [],
        "tolerance": limits,
        "device_tolerance": limits,
        "latency": None,
    }
    variants = [
        {"name": "fp32-onnxruntime", "runtime": "onnxruntime", "settings": {"provider": "CPUExecutionProvider"}, **common},
        {"name": "fp32-openvino", "runtime": "openvino", "settings": {"inference_precision": "f32"}, **common},
    ]
    facts: dict[str, Any] = {
        "format": 2,
        "name": "tiny",
        "version": "0.0",
        "verdict": "passed",
        "reason": "",
        "target": {"name": "cpu", "description": "A test."},
        "labels": "labels.txt",
        "sample": "sample.npz",
        "sample_image": "sample.png",
        "model_card": "README.md",
        "sbom": "sbom.cdx.json",
        "licences": {"model": "unknown", "code": "Apache-2.0 AND MIT", "teacher": "unknown", "data": "unknown"},
        "preprocessing": task.preprocessing().to_dict(),
        "task": task.to_dict(),
        "default": "fp32-onnxruntime",
        "variants": variants,
        "provenance": {},
    }
    seal(folder, facts)
    return folder


@pytest.fixture(scope="session")
def segmentation() -> DenseTask:
    """A task of class maps."""
    return DenseTask("segmentation", PX, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(scope="session")
def detection() -> DenseTask:
    """A task of boxes."""
    return DenseTask("detection", PX, 3, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), min_score=0.2)


@pytest.fixture(scope="session")
def segmenter(segmentation: DenseTask) -> bytes:
    """An ONNX file that tells colours apart, with logits."""
    return colour_segmenter(segmentation)


@pytest.fixture(scope="session")
def labeller(segmentation: DenseTask) -> bytes:
    """An ONNX file that tells colours apart, with classes."""
    return colour_segmenter(segmentation, outputs="classes")


@pytest.fixture(scope="session")
def detector(detection: DenseTask) -> bytes:
    """An ONNX file with fixed boxes, and scores that are the means of the colours."""
    return colour_detector(detection)


@pytest.fixture(scope="session")
def detector_of_two(detection: DenseTask) -> bytes:
    """The same, which takes two images at a time and no other number."""
    return colour_detector(detection, batch=2)


@pytest.fixture(scope="session")
def flag() -> npt.NDArray[np.uint8]:
    """uint8 [48, 64, 3]: a red left half, a green upper right quarter and a blue lower one."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32, 0] = pixels[:24, 32:, 1] = pixels[24:, 32:, 2] = 200
    return pixels


def colour_classes(windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The segmenter's answer, computed another way: logits averaged over 4 x 4 pixels, enlarged by torch."""
    import torch

    chw = torch.from_numpy(windows.astype(np.float32).transpose(0, 3, 1, 2)) / 100
    small = torch.nn.functional.avg_pool2d(chw, 4)
    large = torch.nn.functional.interpolate(small, size=windows.shape[1:3], mode="bilinear", align_corners=False)
    return large.argmax(dim=1).numpy().astype(np.uint8)


@pytest.fixture(scope="session")
def pristine_segmentation(
    segmentation: DenseTask, segmenter: bytes, flag: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle that segments; not to be changed."""
    answer = {"classes": colour_classes(prepared(flag, segmentation)[1])}
    return write_bundle(tmp_path_factory.mktemp("segmentation") / "bundle", segmentation, segmenter, answer, flag)


@pytest.fixture(scope="session")
def pristine_detection(
    detection: DenseTask, detector: bytes, flag: npt.NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A bundle that detects; not to be changed."""
    windows = prepared(flag, detection)[1]
    masks = np.ones((1, 3, MASK_PX, MASK_PX), np.float32)
    masks[0, 1, :, MASK_PX // 2 :] = 0
    scores = windows.astype(np.float64).mean(axis=(1, 2)) / 255
    answer = answer_of((BOXES[None], scores.astype(np.float32), np.asarray([[0, 1, 2]]), masks), detection)
    return write_bundle(tmp_path_factory.mktemp("detection") / "bundle", detection, detector, answer, flag)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a bundle that the test may damage."""
    return lambda bundle: Path(shutil.copytree(bundle, tmp_path / "bundle"))


@pytest.fixture
def reseal_dense() -> Callable[[Path, Callable[[dict[str, Any]], object]], Path]:
    """Change a manifest as somebody would who corrects every digest."""

    def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
        facts = json.loads((folder / "manifest.json").read_bytes())
        facts.pop("files")
        change(facts)
        seal(folder, facts)
        return folder

    return resealed
