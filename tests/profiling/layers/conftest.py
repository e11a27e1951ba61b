"""Small students as the exporter writes them, made once per session: float, for raw pixels, and INT8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from g2sd_deploy.models.deploy import merged_heads
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.int8.graph import prepared, products
from g2sd_export.int8.qdq import with_qdq
from g2sd_export.onnx_file import export_onnx

PX, PATCH, WIDTH, DEPTH, HEADS, CLASSES = 64, 8, 96, 2, 3, 6
PRE = Preprocessing(PX, PX, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@dataclass(frozen=True)
class Student:
    """Files of one student, by what they take and how they multiply.

    Attributes:
        model: The torch module that was exported.
        files: ``float`` (normalised images), ``pixels`` (uint8 images) and ``int8`` (uint8 images).
    """

    model: torch.nn.Module
    files: dict[str, Path]

    def onnx(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.files[name])


@pytest.fixture(scope="session")
def feeds() -> Callable[[str, int], dict[str, npt.NDArray[np.generic]]]:
    """Made-up images for a file of a student, by its name and the batch."""

    def made_up(name: str, batch: int) -> dict[str, npt.NDArray[np.generic]]:
        draw = np.random.default_rng(0)
        if name == "float":
            return {"images": draw.standard_normal((batch, 3, PX, PX)).astype(np.float32)}
        return {"images": draw.integers(0, 256, (batch, PX, PX, 3), dtype=np.uint8)}

    return made_up


def _quantised(source: Path, path: Path) -> Path:
    """Q/DQ as the exporter writes it; the attention's own products stay float, as they do where that is better."""
    model = prepared(source)
    ranges = {name: (-3.0, 3.0) for product in products(model.graph) for name in product.activations.values()}
    keep = [product.group for product in products(model.graph) if product.weight is None]
    onnx.save(with_qdq(model, ranges, activations="uint8", keep=keep), path)
    return path


@pytest.fixture(scope="session")
def make_student(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Student]:
    """A student with fixed random weights."""
    made: dict[tuple[str, str], Student] = {}

    def make(pooling: str = "mean", token: str = "none") -> Student:
        if (pooling, token) not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                spec = EncoderSpec(PX, PATCH, 3, WIDTH, DEPTH, HEADS)
                model = merged_heads(Classifier(spec, CLASSES, pooling=pooling, token=token)).eval()  # type: ignore[arg-type]
                for name, parameter in model.named_parameters():
                    if "norm" in name:  # untrained norms are all alike and vanish from a graph
                        torch.nn.init.uniform_(parameter, 0.5, 1.5)
            folder = tmp_path_factory.mktemp("student")
            whole = export_onnx(model, image_px=PX, num_channels=3, path=folder / "float.onnx").path
            pixels = deployable_onnx(whole, PRE, path=folder / "pixels.onnx").path
            files = {"float": whole, "pixels": pixels, "int8": _quantised(pixels, folder / "int8.onnx")}
            made[pooling, token] = Student(model, files)
        return made[pooling, token]

    return make


@pytest.fixture(scope="session")
def student(make_student: Callable[..., Student]) -> Student:
    """Mean pooling, one head."""
    return make_student()


@pytest.fixture(scope="session")
def product_flops() -> Callable[[int], float]:
    """Two operations for each multiplication of the student with mean pooling, by hand, for a batch.

    A block multiplies T tokens by 12 D^2 weights (3 + 1 of attention, 4 + 4 of the MLP), and makes and uses T^2 scores of width D.
    """
    patches = (PX // PATCH) ** 2
    tokens = patches + 1
    block = 12 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH
    return lambda batch: 2.0 * batch * (patches * 3 * PATCH**2 * WIDTH + DEPTH * block + WIDTH * CLASSES)


@pytest.fixture(scope="session")
def foreign_cnn() -> onnx.ModelProto:
    """A convolution, an activation, pooling and a classifier, whose nodes have no names."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weights = {"kernel": (8, 3, 3, 3), "dense": (8, 5)}
    stored = [numpy_helper.from_array(draw.standard_normal(shape).astype(np.float32), name) for name, shape in weights.items()]
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "dense"], ["l"]),
        helper.make_node("Softmax", ["l"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])]
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 5])]
    graph = helper.make_graph(nodes, "cnn", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
