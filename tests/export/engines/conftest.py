"""Tiny ViTs in the precisions that TensorRT takes, and stand-ins for what a machine without a GPU lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from g2sd_export.onnx_file import export_onnx
from g2sd_export.tensorrt_settings import BatchRange, EngineSettings

SMALL = (BatchRange(1, 1, 4),)


class _Half(nn.Module):
    """A model that computes in FP16 between float32 images and float32 logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.half()).float()
        return logits


def quantised(source: Path, path: Path, *, weights_alone: bool = False, zero_point: int = 0, fp8: bool = False) -> Path:
    """The file with symmetric Q/DQ around every MatMul and Gemm that has weights; scales are guesses, for nothing here runs."""
    model = onnx.load(source)
    graph, stored = model.graph, {item.name: item for item in model.graph.initializer}
    kind, top = (onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.FLOAT8E4M3FN), 448) if fp8 else (np.dtype(np.int8), 127)
    nodes = []
    for number, node in enumerate(graph.node):
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in stored:
            weight = numpy_helper.to_array(stored[node.input[1]])
            transposed = any(item.name == "transB" and item.i for item in node.attribute)
            axis = 0 if transposed else 1
            scale = np.maximum(np.abs(weight.astype(np.float32)).max(1 - axis, keepdims=True) / top, 1e-4)
            values = {
                "weight": (weight / scale if fp8 else np.round(weight / scale)).astype(kind),
                "scales": scale.reshape(-1).astype(weight.dtype),
                "zeros": np.zeros(scale.size, kind),
                "scale": np.asarray(0.05, weight.dtype),
                "zero": np.asarray(zero_point).astype(kind),
            }
            name = {key: f"q{number}.{key}" for key in (*values, "quantised", "images", "dense")}
            graph.initializer.extend(numpy_helper.from_array(value, name[key]) for key, value in values.items())
            nodes.append(helper.make_node("DequantizeLinear", [name["weight"], name["scales"], name["zeros"]], [name["dense"]], axis=axis))
            if not weights_alone:
                about = [name["scale"], name["zero"]]
                nodes.append(helper.make_node("QuantizeLinear", [node.input[0], *about], [name["quantised"]], name=f"{node.name}_Q"))
                nodes.append(helper.make_node("DequantizeLinear", [name["quantised"], *about], [name["images"]]))
                node.input[0] = name["images"]
            node.input[1] = name["dense"]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def graphs(make_model: Callable[..., nn.Module], onnx_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ONNX files by precision: fp32, fp16, int8 (the rest in FP16) and fp8."""
    folder = tmp_path_factory.mktemp("graphs")
    half = export_onnx(_Half(make_model()), image_px=28, num_channels=1, path=folder / "fp16.onnx").path
    return {
        "fp32": onnx_path,
        "fp16": half,
        "int8": quantised(half, folder / "int8.onnx"),
        "fp8": quantised(half, folder / "fp8.onnx", fp8=True),
        "weights": quantised(half, folder / "weights.onnx", weights_alone=True),
        "asymmetric": quantised(half, folder / "asymmetric.onnx", zero_point=7),
    }


@pytest.fixture
def rtx() -> Callable[..., EngineSettings]:
    """Settings of an engine that TensorRT for RTX builds without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")

    def make(name: str = "SM86", **changes: Any) -> EngineSettings:
        return EngineSettings("tensorrt_rtx", **{"batches": SMALL, "compute_capabilities": (name,), **changes})

    return make


@pytest.fixture
def gpu() -> None:
    """Skip where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
