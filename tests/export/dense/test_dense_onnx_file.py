"""One ONNX file of a segmenter or a detector: any batch, raw pixels, and what it says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from g2sd_export.dense.half import kept_by_rule
from g2sd_export.dense.onnx_file import dense_metadata, export_dense_onnx
from g2sd_export.dense.questions import questions_of
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.dense.network import onnx_network, openvino_network
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.errors import UserError
from g2sd_export.half import half_onnx
from g2sd_export.onnx_graph import fold_constants

from .conftest import CLASS_NAMES, DETECTION, PX, SEGMENTATION, SLIDING, Made, TorchNet, make_images, make_module

NUM = len(CLASS_NAMES)


class Classes(nn.Module):
    """The tiny segmenter with the choice of the class inside."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_module("segmentation")

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.interpolate(self.model(images), size=(PX, PX), mode="bilinear").argmax(1).to(torch.uint8)


@pytest.mark.parametrize("task", [SEGMENTATION, DETECTION], ids=lambda task: task.kind)
@pytest.mark.parametrize("open_network", [onnx_network, openvino_network])
def test_the_file_for_pixels_answers_as_torch_does_for_any_batch(task: DenseTask, open_network: object, shipped: object) -> None:
    made: Made = shipped(task)  # type: ignore[operator]
    path = made.float_onnx.parent / "models" / "fp32.onnx"
    network = open_network(path, task, NUM, threads=1)  # type: ignore[operator]
    assert (network.image_input.dtype, network.image_input.layout, network.image_input.batch) == ("uint8", "NHWC", None)
    windows, torch_net = made.questions.windows, TorchNet(made.module, task)
    for batch in (1, 2, 5):
        for found, wanted in zip(network.infer(windows[:batch]), torch_net.infer(windows[:batch]), strict=True):
            np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_a_map_of_classes_leaves_the_choice_to_the_graph(tmp_path: Path) -> None:
    metadata = dense_metadata(SEGMENTATION, CLASS_NAMES, weights_sha256="ab" * 32, recipe="tiny")
    path = tmp_path / "float.onnx"
    export_dense_onnx(Classes().eval(), SEGMENTATION, num_classes=NUM, path=path, output="classes", metadata=metadata)
    pixels = deployable_onnx(path, SEGMENTATION.preprocessing(), path=tmp_path / "pixels.onnx").path
    windows = questions_of(make_images(), SEGMENTATION).windows
    (found,) = onnx_network(pixels, SEGMENTATION, NUM, threads=1).infer(windows)
    (wanted,) = TorchNet(Classes().eval(), SEGMENTATION).infer(windows)
    assert found.dtype == np.uint8 and (found == wanted).mean() > 0.999
    half = half_onnx(pixels, precision="fp16", path=tmp_path / "half.onnx", keep=kept_by_rule(pixels, "fp16", None).nodes).path
    (short,) = onnx_network(half, SEGMENTATION, NUM, threads=1).infer(windows)
    assert (short == wanted).mean() > 0.97


def test_the_file_says_what_it_does_and_of_which_classes(shipped: object) -> None:
    made: Made = shipped(DETECTION)  # type: ignore[operator]
    for path in (made.float_onnx, made.float_onnx.parent / "models" / "fp32.onnx"):
        told = {item.key: item.value for item in onnx.load(path).metadata_props}
        assert json.loads(told["task"]) == DETECTION.to_dict() and json.loads(told["class_names"]) == list(CLASS_NAMES)
        assert json.loads(told["preprocessing"]) == DETECTION.preprocessing().to_dict()


def test_non_maximum_suppression_is_inside_and_stays_in_float32_when_the_rest_is_halved(shipped: object, tmp_path: Path) -> None:
    made: Made = shipped(DETECTION)  # type: ignore[operator]
    pixels = made.float_onnx.parent / "models" / "fp32.onnx"
    nodes = onnx.load(pixels).graph.node
    (suppression,) = [node for node in nodes if node.op_type == "NonMaxSuppression"]
    kept = kept_by_rule(pixels, "fp16", None)
    half = {node.name for node in nodes} - set(kept.nodes)
    assert suppression.name in kept.nodes and kept.num_half == len(half)
    assert {node.op_type for node in nodes if node.op_type in ("Conv", "MatMul", "Gemm")} <= {n.op_type for n in nodes if n.name in half}
    assert not {"TopK", "Sigmoid", "Clip"} & {node.op_type for node in nodes if node.name in half}
    short = half_onnx(pixels, precision="fp16", path=tmp_path / "half.onnx", keep=kept.nodes).path
    found = onnx_network(short, DETECTION, NUM, threads=1).infer(made.questions.windows)
    wanted = TorchNet(made.module, DETECTION).infer(made.questions.windows)
    np.testing.assert_allclose(found[1], wanted[1], atol=0.02)


class Fixed(nn.Module):
    """A segmenter that knows how many images it was traced with."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_module("segmentation")

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.reshape(2, 3, PX, PX))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")
def test_what_fixes_the_batch_or_gives_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.onnx"
    with pytest.raises((UserError, RuntimeError), match="batch"):
        export_dense_onnx(Fixed().eval(), SEGMENTATION, num_classes=NUM, path=path)
    with pytest.raises(UserError, match="nothing free but the batch"):
        export_dense_onnx(make_module("segmentation"), SEGMENTATION, num_classes=NUM + 1, path=path)
    with pytest.raises(UserError, match="windows that slide are averaged as logits"):
        export_dense_onnx(Classes(), SLIDING, num_classes=NUM, path=path, output="classes")
    assert not path.exists()


@pytest.mark.parametrize(("num", "left"), [(1000, False), (600_000, True)])
def test_a_constant_that_would_swell_the_file_is_left_to_the_runtime(num: int, left: bool) -> None:
    shape = numpy_helper.from_array(np.array([num], np.int64), "shape")
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [helper.make_node("Expand", ["one", "shape"], ["many"], "e"), helper.make_node("Add", ["x", "many"], ["y"], "a")]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [num]) for name in "xy"]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", values[:1], values[1:], [one, shape]), opset_imports=[helper.make_opsetid("", 20)]
    )
    fold_constants(proto)
    assert ("Expand" in [node.op_type for node in proto.graph.node]) == left and (proto.ByteSize() > 4 * 1000) == (not left)


def test_two_exports_give_the_same_bytes(tmp_path: Path, shipped: object) -> None:
    made: Made = shipped(replace(SLIDING))  # type: ignore[operator]
    metadata = dense_metadata(SLIDING, CLASS_NAMES, weights_sha256="ab" * 32, recipe="tiny")
    again = export_dense_onnx(make_module("segmentation"), SLIDING, num_classes=NUM, path=tmp_path / "float.onnx", metadata=metadata)
    assert again.path.read_bytes() == made.float_onnx.read_bytes()
