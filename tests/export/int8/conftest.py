"""A tiny transformer for every test of quantisation: its float file, the one that takes pixels, and images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.int8.quantise import Source
from g2sd_export.onnx_file import export_onnx, model_metadata

PRE = Preprocessing(image_px=32, resize_px=32, num_channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


Answers = Callable[..., list[npt.NDArray[Any]]]


@pytest.fixture(scope="session")
def answers() -> Answers:
    """Runs a graph by the reference evaluator of the onnx package, which fuses and reorders nothing."""

    def run(model: onnx.ModelProto, feed: dict[str, npt.NDArray[Any]], *names: str) -> list[npt.NDArray[Any]]:
        from onnx.reference import ReferenceEvaluator

        found: list[npt.NDArray[Any]] = ReferenceEvaluator(model).run(list(names) or None, feed)
        return found

    return run


@pytest.fixture(scope="session")
def normalisation() -> Preprocessing:
    """Mean and standard deviation of the float file."""
    return PRE


@pytest.fixture(scope="session")
def photos() -> npt.NDArray[np.uint8]:
    """Smooth random images: unlike noise, they give different answers."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (12, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(coarse + rng.integers(-20, 20, coarse.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def float_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32 [B, 3, 32, 32]; one channel of the first norm is an outlier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VisionTransformer(
            img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=6, global_pool="avg", weight_init="skip"
        )
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                nn.init.normal_(parameter, std=0.2)
        model.blocks[0].norm1.weight.data[3] = 40.0
    path = tmp_path_factory.mktemp("int8") / "float.onnx"
    told = model_metadata(PRE, list("abcdef"), weights_sha256="ab" * 32, recipe="tiny")
    export_onnx(model.eval(), image_px=32, num_channels=3, path=path, metadata=told)
    return path


@pytest.fixture(scope="session")
def pixel_path(float_path: Path) -> Path:
    """uint8 [B, 32, 32, 3]."""
    path = float_path.with_name("pixels.onnx")
    deployable_onnx(float_path, PRE, path=path)
    return path


@pytest.fixture(scope="session")
def source(pixel_path: Path, photos: npt.NDArray[np.uint8]) -> Source:
    return Source(pixel_path, photos)


@pytest.fixture
def damaged(float_path: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], None]], Path]:
    """The float file after a change."""

    def damage(change: Callable[[onnx.ModelProto], None]) -> Path:
        model = onnx.load_model(float_path)
        change(model)
        path = tmp_path / "damaged.onnx"
        onnx.save_model(model, path)
        return path

    return damage
