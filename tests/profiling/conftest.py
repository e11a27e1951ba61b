"""A tiny classifier, its bundle, ONNX files that others might write, and the command line in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_export.bundle import BuiltVariant, Variant, write_bundle
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.preprocess import Preprocessing, normalise
from g2sd_export.onnx_file import export_onnx, model_metadata

PRE = Preprocessing(image_px=28, resize_px=28, num_channels=1, mean=(0.286,), std=(0.353,))
NAMES = ("a", "b", "c")
Dims = Sequence[int | str]


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status, and what it wrote where."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def g2sd() -> Callable[..., Answer]:
    """Run `g2sd ARGUMENTS` in this process; an exception that reaches the user fails the test."""

    def run(*arguments: object) -> Answer:
        from g2sd_deploy.cli import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def model() -> Classifier:
    torch.manual_seed(0)
    return Classifier(EncoderSpec(28, 7, 1, width=16, depth=2, heads=2), len(NAMES), pooling="mean").eval()


@pytest.fixture(scope="session")
def classifier(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "tiny.safetensors"
    save_classifier(path, ClassifierFile(model, PRE, NAMES))
    return path


@pytest.fixture(scope="session")
def bundle(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three variants of one file: one that runs, one that failed its proof, one that needs a GPU."""
    folder = tmp_path_factory.mktemp("bundled")
    file = export_onnx(
        model,
        image_px=28,
        num_channels=1,
        path=folder / "model.onnx",
        metadata=model_metadata(PRE, NAMES, weights_sha256="ab" * 32, recipe="tiny"),
    ).path
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    with torch.no_grad():
        logits = model(torch.from_numpy(normalise(images, PRE))).numpy()
    return write_bundle(
        folder / "bundle",
        name="tiny",
        variants=[BuiltVariant(variant, file, logits) for variant in _variants()],
        default="fp32-onnxruntime",
        preprocessing=PRE,
        class_names=NAMES,
        sample_images=images,
        expected_logits=logits,
        target={"name": "cpu-x86", "description": "Any x86 processor."},
        licences={"model": "MIT", "code": "Apache-2.0 AND MIT", "data": "MIT"},
        provenance={"recipe": "tiny"},
        verdict="passed",
        program_version="1.2.3",
        threads=1,
    )


def _variants() -> list[Variant]:
    fields: dict[str, Any] = {
        "file": "models/fp32.onnx",
        "precision": "fp32",
        "runtime": "onnxruntime",
        "input": {"name": "images", "dtype": "float32", "layout": "NCHW", "shape": ["batch", 1, 28, 28]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", len(NAMES)]},
        "hops": (),
        "tolerance": ParityTolerance(),
        "device_tolerance": ParityTolerance(),
    }
    on_cpu, on_gpu = {"provider": "CPUExecutionProvider"}, {"provider": "CUDAExecutionProvider"}
    return [
        Variant(name="fp32-onnxruntime", settings=on_cpu, verdict="passed", reason="", **fields),
        Variant(name="int8-onnxruntime", settings=on_cpu, verdict="failed", reason="3 of 100 decisions changed", **fields),
        Variant(name="fp32-onnxruntime-cuda", settings=on_gpu, verdict="not_run", reason="no GPU at export", **fields),
    ]


@pytest.fixture
def make_onnx(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX file that turns each input into two outputs of different shapes: a sum over all but the batch, and its square."""

    def make(name: str = "foreign.onnx", *, inputs: dict[str, tuple[int, Dims]] | None = None, weight: Any = None) -> Path:
        nodes, outputs, stored = [], [], []
        for key, (_, dims) in (inputs or {"x": (TensorProto.FLOAT, ["N", 8, 8, 3])}).items():
            nodes += [helper.make_node("Cast", [key], [f"{key}_float"], to=TensorProto.FLOAT)]
            axes = list(range(1, len(dims)))
            stored.append(numpy_helper.from_array(np.array(axes, np.int64), f"{key}_axes"))
            nodes += [helper.make_node("ReduceSum", [f"{key}_float", f"{key}_axes"], [f"{key}_sum"], keepdims=0)]
            nodes += [helper.make_node("Mul", [f"{key}_float", f"{key}_float"], [f"{key}_square"])]
            outputs += [helper.make_tensor_value_info(f"{key}_sum", TensorProto.FLOAT, [dims[0]] if dims else [])]
            outputs += [helper.make_tensor_value_info(f"{key}_square", TensorProto.FLOAT, list(dims))]
        if weight is not None:
            stored.append(numpy_helper.from_array(weight, "weight"))
        declared = [helper.make_tensor_value_info(key, kind, list(dims)) for key, (kind, dims) in _inputs(inputs).items()]
        graph = helper.make_graph(nodes, "foreign", declared, outputs, stored)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(proto, tmp_path / name)
        return tmp_path / name

    return make


def _inputs(inputs: dict[str, tuple[int, Dims]] | None) -> dict[str, tuple[int, Dims]]:
    return inputs or {"x": (TensorProto.FLOAT, ["N", 8, 8, 3])}
