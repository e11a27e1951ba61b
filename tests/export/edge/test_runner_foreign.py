"""ONNX files of others: any input name, either layout, fixed batches, several outputs, probabilities."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.image_input import choose_output, in_parts, read_image_input
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.openvino_runner import OpenVINORunner
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Choices

PRE = Preprocessing(6, 6, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))

RUNTIMES = [OnnxRunner, pytest.param(OpenVINORunner, marks=pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO"))]
either_runtime = pytest.mark.parametrize("runner_of", RUNTIMES, ids=["onnxruntime", "openvino"])
WEIGHT = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def foreign(
    *,
    shape: list[Any] | None = None,
    output: list[Any] | None = None,
    last: str = "Identity",
    extra: bool = False,
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """Mean of each channel times a matrix, as somebody else might have exported it."""
    shape = shape or ["n", 3, 6, 6]
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    nodes = [
        helper.make_node("ReduceMean", ["pixels:0", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "weight"], ["raw"]),
        helper.make_node(last, ["raw"], ["scores"]),
    ]
    outputs = [helper.make_tensor_value_info("scores", kind, output or [shape[0], 4])]
    if extra:
        outputs.insert(0, helper.make_tensor_value_info("pooled", kind, [shape[0], 3]))
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("pixels:0", kind, shape)],
        outputs,
        [numpy_helper.from_array(np.array(axes, np.int64), "axes"), numpy_helper.from_array(WEIGHT, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def images(num: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, 6, 6, 3), dtype=np.uint8)


def expected(num: int) -> npt.NDArray[np.float64]:
    unit = (images(num).astype(np.float64) / 255 - PRE.mean) / PRE.std
    return np.asarray(unit.mean((1, 2)) @ WEIGHT.astype(np.float64))


@pytest.mark.parametrize("shape", [["n", 3, 6, 6], ["n", 6, 6, 3], ["n", 3, "h", "w"], ["n", "c", 6, 6], [None, 6, 6, 3]], ids=str)
@either_runtime
def test_either_layout_and_free_sizes_give_the_same_logits(runner_of: Any, shape: list[Any]) -> None:
    runner = runner_of(foreign(shape=shape), PRE, threads=1)
    np.testing.assert_allclose(runner.infer(images(5)), expected(5), rtol=1e-5, atol=1e-5)
    assert runner.num_classes == 4


@pytest.mark.parametrize("batch", [1, 3, 8])
@either_runtime
def test_a_fixed_batch_is_met_by_parts_whose_padding_is_cut_off(runner_of: Any, batch: int) -> None:
    runner = runner_of(foreign(shape=[batch, 3, 6, 6]), PRE, threads=1)
    np.testing.assert_allclose(runner.infer(images(7)), expected(7), rtol=1e-5, atol=1e-5)


@either_runtime
def test_classes_that_the_graph_does_not_count_are_counted_by_running_it(runner_of: Any) -> None:
    assert runner_of(foreign(output=["n", "classes"]), PRE, threads=1).num_classes == 4


@either_runtime
def test_of_several_outputs_the_one_asked_for_is_taken_and_else_all_are_named(runner_of: Any) -> None:
    content = foreign(extra=True)
    with pytest.raises(UserError, match=r"several outputs that may be logits; it gives pooled \[(n|free), 3\], scores \[(n|free), 4\]"):
        runner_of(content, PRE, threads=1)
    with pytest.raises(UserError, match="no output 'logits'"):
        runner_of(content, PRE, threads=1, choices=Choices(output="logits"))
    np.testing.assert_allclose(
        runner_of(content, PRE, threads=1, choices=Choices(output="scores")).infer(images(2)), expected(2), rtol=1e-5
    )
    assert choose_output({"features": ["n", 8, 8, 8], "scores": ["n", 4]}) == "scores"
    with pytest.raises(UserError, match="no output of logits"):
        choose_output({"features": ["n", 8, 8, 8]})


@either_runtime
def test_probabilities_become_logits_whose_softmax_they_are(runner_of: Any) -> None:
    logits = runner_of(foreign(last="Softmax"), PRE, threads=1, choices=Choices(probabilities=True)).infer(images(5)).astype(np.float64)
    wanted = np.exp(expected(5)) / np.exp(expected(5)).sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(logits), wanted, rtol=1e-5)


def test_an_input_of_another_kind_or_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"'pixels:0' is tensor\(double\); wanted float32 or float16"):
        OnnxRunner(double(), PRE, threads=1)
    with pytest.raises(UserError, match=r"takes images of 3 channels and 8 px; the preprocessing makes 3 channels and 6 px"):
        OnnxRunner(foreign(shape=["n", 8, 8, 3]), PRE, threads=1)


def double() -> bytes:
    """The foreign model on float64."""
    model = onnx.load_model_from_string(foreign(kind=TensorProto.DOUBLE))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(WEIGHT.astype(np.float64), "weight"))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["n", 3, 6, 8], "wanted .* square images"),
        (["n", 4, 6, 6], "square images of 1 or 3 channels"),
        (["n", 3, 6], "square images"),
        (["n", "c", "h", "w"], "leaves open where the channels are; say NCHW or NHWC"),
        (["n", 3, 3, 3], "leaves open where the channels are"),
    ],
)
def test_a_shape_that_is_no_square_image_or_leaves_the_channels_open_is_refused(shape: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_image_input("pixels", shape)


def test_a_layout_that_is_said_decides_an_open_shape() -> None:
    nchw, nhwc = read_image_input("pixels", [-1, 3, 3, 3], "NCHW"), read_image_input("pixels", [8, 0, 0, 0], "NHWC")
    assert (nchw.layout, nchw.batch, nchw.num_channels, nchw.image_px) == ("NCHW", None, 3, 3)
    assert (nhwc.layout, nhwc.batch, nhwc.num_channels, nhwc.image_px) == ("NHWC", 8, None, None)


def test_parts_come_back_in_order() -> None:
    sizes: list[int] = []

    def run(part: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        sizes.append(len(part))
        return part * 2

    values = np.arange(7, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(in_parts(values, 3, run), values * 2)
    assert sizes == [3, 3, 1]


@pytest.mark.parametrize("shape", [["n", 3, 6, 6], [2, 6, 6, 3]], ids=str)
@either_runtime
def test_four_threads_at_once_get_the_bits_that_one_gets(runner_of: Any, shape: list[Any]) -> None:
    runner = runner_of(foreign(shape=shape), PRE, threads=1)
    parts = [images(40)[start : start + 5] for start in range(0, 40, 5)] * 4
    wanted = [runner.infer(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(runner.infer, parts), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
