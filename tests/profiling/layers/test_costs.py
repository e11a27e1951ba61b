"""Arithmetic by shapes, against formulas written by hand and against torch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.profiling.layers.costs import flops_of, observed_shapes, shapes_of, unknown_operands
from g2sd_deploy.profiling.layers.graph import Network
from g2sd_export.onnx_file import export_onnx

Feeds = Callable[[str, int], dict[str, np.ndarray]]


def counted(model: onnx.ModelProto, inputs: dict[str, tuple[int, ...]]) -> list[float | None]:
    return flops_of(Network(model.graph), shapes_of(model, inputs))


@pytest.mark.parametrize("file", ["float", "pixels", "int8"])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_products_of_a_student_are_those_of_the_formula(
    file: str, batch: int, student: Any, feeds: Feeds, product_flops: Callable[[int], float]
) -> None:
    found = counted(student.onnx(file), {"images": feeds(file, batch)["images"].shape})
    assert None not in found
    assert sum(found) == product_flops(batch)  # type: ignore[arg-type]


def test_torch_counts_the_same_for_a_student_whose_last_block_reads_two_tokens(make_student: Callable[..., Any], feeds: Feeds) -> None:
    student = make_student("cls", "g2sd")
    images = torch.from_numpy(feeds("float", 2)["images"])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        student.model(images)
    found = counted(student.onnx("float"), {"images": tuple(images.shape)})
    assert sum(found) == counter.get_total_flops()  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "heads", "published"), [(192, 3, 1.26), (384, 6, 4.61)])
def test_vit_tiny_and_small_take_the_multiplications_that_are_published(width: int, heads: int, published: float, tmp_path: Path) -> None:
    """timm's results tables, in 10^9 multiplications at 224 px with 1000 classes."""
    model = Classifier(EncoderSpec(224, 16, 3, width, 12, heads), 1000, pooling="mean")
    path = export_onnx(model, image_px=224, num_channels=3, path=tmp_path / "vit.onnx").path
    found = counted(onnx.load(path), {"images": (1, 3, 224, 224)})
    assert sum(found) / 2e9 == pytest.approx(published, abs=0.02)  # type: ignore[arg-type]


def test_torch_counts_the_same_for_groups_strides_and_convolutions_turned_round(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.Conv2d(16, 16, 3, padding=1, groups=4),
        nn.ConvTranspose2d(16, 8, 2, 2),
        nn.Flatten(),
        nn.Linear(8192, 5),
    )
    images = torch.zeros(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    path = export_onnx(model, image_px=32, num_channels=3, path=tmp_path / "cnn.onnx").path
    assert sum(counted(onnx.load(path), {"images": tuple(images.shape)})) == counter.get_total_flops()  # type: ignore[arg-type]


def graph_of(nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], opset: int = 20) -> onnx.ModelProto:
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "one", told, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def test_a_gemm_may_turn_its_operands() -> None:
    node = helper.make_node("Gemm", ["a", "b"], ["y"], transA=1, transB=1)
    assert counted(graph_of([node], {"a": [7, 2], "b": [5, 7]}), {}) == [2 * 2 * 5 * 7]


def test_attention_as_one_operator_is_two_products() -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    tokens = {name: [2, 3, rows, 8] for name, rows in (("q", 4), ("k", 5), ("v", 5))}
    assert counted(graph_of([node], tokens, 23), {}) == [2 * (2 * 3 * 4 * 5 * 8) * 2]


def test_sizes_that_are_computed_on_the_way_are_observed_in_a_run() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["found"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["found"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["turned", "found"], ["y"]),
    ]
    model = graph_of(nodes, {"x": ["rows", 4]})
    network, fed = Network(model.graph), {"x": np.eye(3, 4, dtype=np.float32)}
    shapes = shapes_of(model, {"x": (3, 4)})
    assert flops_of(network, shapes)[-1] is None
    assert set(unknown_operands(network, shapes)) == {"turned", "found", "y"}
    shapes |= observed_shapes(model, fed, unknown_operands(network, shapes))
    assert flops_of(network, shapes) == [0, 0, 0, 2 * 3 * 2 * 3]  # three places of two numbers each
    assert observed_shapes(model, {"x": np.zeros(3, np.float32)}, ["y"]) == {}  # refused by the runtime
