"""A bundle of format 2, written here by hand: the reader is not to be tested with a writer that shares its mistakes."""

from __future__ import annotations

import fnmatch
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
from g2sd_export.edge.preprocess import Preprocessing

CLASS_NAMES = ("T-shirt", "Trouser", "Pullover", "Kleid für Übermorgen", "Coat", "Sandal")
TOLERANCE = {"max_abs_logit_diff": 1e-3, "flipped_share": 0.0}
DEVICE_TOLERANCE = {"max_abs_logit_diff": 1e-4, "flipped_share": 0.0}


def pixels_from_float(source: Path, pre: Preprocessing) -> bytes:
    """The float file with operators in front that take uint8 [B, H, W, C], in the plain way that a deployable file folds away."""
    model = onnx.load(source)
    graph = model.graph
    constants = {"scale": 255, "mean": np.reshape(pre.mean, (-1, 1, 1)), "std": np.reshape(pre.std, (-1, 1, 1))}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value, np.float32), f"pre.{key}") for key, value in constants.items())
    (old,) = graph.input
    for node in graph.node:
        node.input[:] = ["normalised" if name == old.name else name for name in node.input]
    shape = ["batch", pre.image_px, pre.image_px, pre.num_channels]
    graph.input.remove(old)
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.UINT8, shape))
    steps = [
        helper.make_node("Transpose", ["images"], ["pre.chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pre.chw"], ["pre.float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pre.float", "pre.scale"], ["pre.unit"]),
        helper.make_node("Sub", ["pre.unit", "pre.mean"], ["pre.centred"]),
        helper.make_node("Div", ["pre.centred", "pre.std"], ["normalised"]),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def variant_entry(name: str, file: str, pre: Preprocessing, **changes: Any) -> dict[str, Any]:
    """An entry of the manifest for a file that takes uint8 [B, H, W, C], or float32 [B, C, H, W] where ``float`` is in its name."""
    precision, runtime = name.split("-")[:2]
    pixels = "float" not in name
    side, channels = pre.image_px, pre.num_channels
    settings = {"provider": "CPUExecutionProvider"} if runtime == "onnxruntime" else {"inference_precision": "f32"}
    return {
        "name": name,
        "file": file,
        "precision": precision,
        "runtime": runtime,
        "settings": settings,
        "input": {
            "name": "images",
            "dtype": "uint8" if pixels else "float32",
            "layout": "NHWC" if pixels else "NCHW",
            "shape": ["batch", side, side, channels] if pixels else ["batch", channels, side, side],
        },
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(CLASS_NAMES)]},
        "verdict": "passed",
        "reason": "",
        "hops": [],
        "tolerance": TOLERANCE,
        "device_tolerance": DEVICE_TOLERANCE,
        "latency": None,
        **changes,
    }


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of whatever lies in the folder, and its digest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("manifest.json", "manifest.sha256"))
    files = {}
    for path in paths:
        content = path.read_bytes()
        files[path.relative_to(folder).as_posix()] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    content = json.dumps({**facts, "files": files}, indent=2, ensure_ascii=False).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def facts_of(folder: Path) -> dict[str, Any]:
    """What ``seal`` wrote, without the list of files."""
    facts: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return {key: value for key, value in facts.items() if key != "files"}


def resealed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle after a change to its manifest by somebody who also corrects every digest."""
    facts = facts_of(folder)
    change(facts)
    seal(folder, facts)
    return folder


def write_format_2(folder: Path, source: Path, pre: Preprocessing, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]) -> Path:
    """A whole bundle of three variants: pixels on ONNX Runtime (the default) and OpenVINO, and float images on ONNX Runtime."""
    (folder / "models").mkdir(parents=True)
    (folder / "models/pixels.onnx").write_bytes(pixels_from_float(source, pre))
    shutil.copy(source, folder / "models/float.onnx")
    (folder / "labels.txt").write_bytes("".join(f"{name}\n" for name in CLASS_NAMES).encode())
    (folder / "README.md").write_text("# tiny\n")
    (folder / "sbom.cdx.json").write_text("{}\n")
    Image.fromarray(images[0, :, :, 0]).save(folder / "sample.png")
    shutil.copytree(Path(g2sd_export.edge.__file__).parent, folder / "edge", ignore=shutil.ignore_patterns("__pycache__"))
    variants = [
        variant_entry("fp32-onnxruntime", "models/pixels.onnx", pre),
        variant_entry("fp32-openvino", "models/pixels.onnx", pre),
        variant_entry("fp32-onnxruntime-float", "models/float.onnx", pre, device_tolerance=None),
    ]
    golden = {f"logits.{entry['name']}": logits for entry in variants[:2]}
    np.savez(folder / "sample.npz", images=images, logits=logits, decoded=images[0], **golden)
    facts = {
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
        "preprocessing": pre.to_dict(),
        "default": "fp32-onnxruntime",
        "variants": variants,
        "provenance": {"recipe": "tiny"},
    }
    seal(folder, facts)
    return folder


@pytest.fixture(scope="session")
def pristine_bundle(
    onnx_path: Path,
    preprocessing: Preprocessing,
    images: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of the tiny model; not to be changed."""
    return write_format_2(tmp_path_factory.mktemp("format2") / "bundle", onnx_path, preprocessing, images, logits)


@pytest.fixture(scope="session")
def pixels_onnx(onnx_path: Path, preprocessing: Preprocessing) -> bytes:
    """The tiny model as a file that takes uint8 [B, H, W, C]."""
    return pixels_from_float(onnx_path, preprocessing)


@pytest.fixture
def bundle(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return Path(shutil.copytree(pristine_bundle, tmp_path / "bundle"))


@pytest.fixture
def reseal() -> Callable[[Path, Callable[[dict[str, Any]], object]], Path]:
    """``resealed``: change a manifest as somebody would who corrects every digest."""
    return resealed


class FakeMachine:
    """A machine whose time passes only when something works on it: files in memory, a clock, and neighbours that use its processors."""

    name = "Linux"
    process = 7

    def __init__(self, num_cpus: int = 2) -> None:
        self.files: dict[str, str] = {}
        self.commands: dict[str, str] = {}
        self.num_cpus = num_cpus
        self.now_s = self.own_s = self.others_s = self.stolen_s = 0.0
        self.others: Callable[[float], float] = lambda now_s: 0.0
        self.stolen: Callable[[float], float] = lambda now_s: 0.0
        self.has_stat = True

    def work(self, ms: float, *, cpus: float = 1.0) -> None:
        """Time passes, in steps, while we use processors and others use theirs."""
        for _ in range(max(1, round(ms))):
            step_s = ms / 1000 / max(1, round(ms))
            self.own_s += cpus * step_s
            self.others_s += self.others(self.now_s) * step_s
            self.stolen_s += self.stolen(self.now_s) * step_s
            self.now_s += step_s

    def sleep(self, seconds: float) -> None:
        self.work(1000 * seconds, cpus=0.0)

    def clock(self) -> int:
        return round(self.now_s * 1e9)

    def own_cpu_s(self) -> float:
        return self.own_s

    def cpus(self) -> tuple[int, ...]:
        return tuple(range(self.num_cpus))

    def text(self, path: str) -> str | None:
        if path == "proc/stat" and self.has_stat:
            busy, stolen = round(100 * (self.own_s + self.others_s)), round(100 * self.stolen_s)
            return f"cpu  1 2 3\ncpu0 {busy} 0 0 999 5 0 0 {stolen} 0 0\ncpu1 0 0 0 999 5 0 0 0 0 0\nintr 1"
        return self.files.get(path)

    def number(self, path: str) -> float | None:
        try:
            return float(self.files[path])
        except (KeyError, ValueError):
            return None

    def paths(self, pattern: str) -> list[str]:
        places = {"/".join(path.split("/")[: count + 1]) for path in self.files for count in range(path.count("/") + 1)}
        return sorted(path for path in places if path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern))

    def command(self, *words: str) -> str | None:
        return self.commands.get(" ".join(words))


@pytest.fixture
def machine() -> FakeMachine:
    """Two idle processors."""
    return FakeMachine()
