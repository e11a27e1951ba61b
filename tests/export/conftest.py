"""A tiny ViT, its ONNX file and its bundle, made once per session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_export.bundle import BuiltVariant, Variant, write_bundle
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.preprocess import Preprocessing, normalise
from g2sd_export.onnx_file import OnnxInfo, export_onnx, model_metadata

CLASS_NAMES = ("T-shirt", "Trouser", "Pullover", "Kleid für Übermorgen", "Coat", "Sandal")

HOP = {
    "name": "fp32",
    "after": "torch",
    "verdict": "passed",
    "reason": "",
    "num_images": 100,
    "flipped": 0,
    "max_abs_logit_diff": 1e-6,
    "min_cosine": 1.0,
    "top1_reference": 0.81,
    "top1_candidate": 0.81,
}


class TinyViT(nn.Module):
    """Two class tokens expanded to the batch, as a distilled student has: where an exporter is tempted to fix the batch size."""

    def __init__(self, *, image_px: int = 28, num_channels: int = 1, num_classes: int = len(CLASS_NAMES), dim: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(num_channels, dim, 7, 7)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.distillation = nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, (image_px // 7) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*(Block(dim, 4, qkv_bias=True, drop_path=0.5, proj_drop=0.5) for _ in range(2)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(images.shape[0], -1, -1), tokens], dim=1) + self.position
        tokens = torch.cat([tokens, self.distillation.expand(images.shape[0], -1, -1)], dim=1)
        tokens = self.norm(self.blocks(tokens))
        logits: Tensor = (self.head(tokens[:, 0]) + self.head(tokens[:, -1])) / 2
        return logits


@pytest.fixture(scope="session")
def make_model() -> Callable[..., nn.Module]:
    """A TinyViT with fixed random weights, in evaluation mode."""

    def make(**settings: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return TinyViT(**settings).eval()

    return make


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return Preprocessing(image_px=28, resize_px=28, num_channels=1, mean=(0.286,), std=(0.353,))


@pytest.fixture(scope="session")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="session")
def logits(make_model: Callable[..., nn.Module], images: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """What torch answers for ``images``."""
    with torch.no_grad():
        answer: npt.NDArray[np.float32] = make_model()(torch.from_numpy(normalise(images, preprocessing))).numpy()
    return answer


@pytest.fixture(scope="session")
def metadata(preprocessing: Preprocessing) -> dict[str, str]:
    return model_metadata(preprocessing, CLASS_NAMES, weights_sha256="ab" * 32, recipe="tiny")


@pytest.fixture(scope="session")
def onnx_info(make_model: Callable[..., nn.Module], metadata: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> OnnxInfo:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return export_onnx(make_model(), image_px=28, num_channels=1, path=path, metadata=metadata)


@pytest.fixture(scope="session")
def onnx_path(onnx_info: OnnxInfo) -> Path:
    return onnx_info.path


@pytest.fixture(scope="session")
def make_variant() -> Callable[..., Variant]:
    """The entry of the tiny model's float file; any field can be replaced."""

    def make(name: str = "fp32-onnxruntime", **changes: object) -> Variant:
        fields: dict[str, object] = {
            "name": name,
            "file": "models/fp32.onnx",
            "precision": "fp32",
            "runtime": "onnxruntime",
            "settings": {"provider": "CPUExecutionProvider"},
            "input": {"name": "images", "dtype": "float32", "layout": "NCHW", "shape": ["batch", 1, 28, 28]},
            "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(CLASS_NAMES)]},
            "verdict": "passed",
            "reason": "",
            "hops": (HOP,),
            "tolerance": ParityTolerance(),
            "device_tolerance": ParityTolerance(),
        }
        return Variant(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_bundle(
    make_variant: Callable[..., Variant],
    onnx_path: Path,
    preprocessing: Preprocessing,
    images: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
) -> Callable[..., Path]:
    """Writes the tiny model's bundle; any argument of ``write_bundle`` can be replaced."""

    def make(folder: Path, **changes: object) -> Path:
        arguments: dict[str, object] = {
            "name": "tiny",
            "variants": [BuiltVariant(make_variant(), onnx_path, logits)],
            "default": "fp32-onnxruntime",
            "preprocessing": preprocessing,
            "class_names": CLASS_NAMES,
            "sample_images": images,
            "expected_logits": logits,
            "target": {"name": "cpu-x86", "description": "Any x86 processor."},
            "licences": {"model": "CC-BY-NC-4.0", "code": "Apache-2.0 AND MIT", "data": "MIT"},
            "provenance": {"recipe": "tiny", "evaluated_on": "fashion-mnist"},
            "verdict": "passed",
            "program_version": "1.2.3",
            "threads": 1,
        }
        return write_bundle(folder, **(arguments | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def pristine_bundle(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's bundle; not to be changed."""
    return make_bundle(tmp_path_factory.mktemp("pristine") / "bundle")


@pytest.fixture
def bundle(pristine_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return Path(shutil.copytree(pristine_bundle, tmp_path / "bundle"))
