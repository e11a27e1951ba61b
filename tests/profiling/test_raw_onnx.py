"""ONNX files that others wrote: any layout, any number of inputs and outputs, any kind of number."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import Case
from g2sd_deploy.profiling.raw_onnx import open_onnxruntime, open_openvino, parse_shapes, read_raw_onnx

CPU = "CPUExecutionProvider"
MakeOnnx = Callable[..., Path]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "inputs",
    [
        {"nhwc": (TensorProto.FLOAT, ["N", 8, 8, 3])},
        {"ids": (TensorProto.INT64, ["batch", 5]), "mask": (TensorProto.BOOL, ["batch", 5])},
        {"half": (TensorProto.FLOAT16, ["b", 4])},
        {"pixels": (TensorProto.UINT8, ["b", 4, 4, 3]), "threshold": (TensorProto.FLOAT, [1])},
        {"double": (TensorProto.DOUBLE, ["b"])},
    ],
    ids=lambda inputs: "+".join(inputs),
)
def test_any_inputs_and_outputs_run_on_both_runtimes(
    inputs: dict[str, tuple[int, list[int | str]]], batch: int, make_onnx: MakeOnnx
) -> None:
    raw = read_raw_onnx("foreign", make_onnx(inputs=inputs))
    feeds = raw.feeds(batch)
    assert {name: value.shape for name, value in feeds.items()} == {
        name: tuple(batch if isinstance(dim, str) else dim for dim in dims) for name, (_, dims) in inputs.items()
    }
    onnxruntime, openvino = open_onnxruntime(raw, CPU, Case(batch, 1)), open_openvino(raw, "f32", Case(batch, 1))
    wanted = [value for one in feeds.values() for value in (one.astype(np.float32),)]
    answers = onnxruntime.call()
    assert isinstance(answers, list) and len(answers) == 2 * len(inputs)
    for index, value in enumerate(wanted):
        np.testing.assert_allclose(answers[2 * index + 1], value**2, rtol=1e-3)
    others = openvino.call()
    for mine, other in zip(answers, others.values(), strict=True):  # type: ignore[attr-defined]
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)
    assert (onnxruntime.provider, openvino.provider, onnxruntime.phases, openvino.phases) == (CPU, "CPU f32", None, None)


def test_made_up_inputs_are_the_same_at_every_call(make_onnx: MakeOnnx) -> None:
    raw = read_raw_onnx("foreign", make_onnx())
    np.testing.assert_array_equal(raw.feeds(2)["x"], raw.feeds(2)["x"])
    assert raw.feeds(2)["x"].std() > 0.5


def test_a_size_that_is_open_is_asked_for_and_taken(make_onnx: MakeOnnx) -> None:
    path = make_onnx(inputs={"images": (TensorProto.FLOAT, ["batch", 3, "height", "width"])})
    with pytest.raises(UserError) as caught:
        read_raw_onnx("det.onnx", path)
    assert str(caught.value) == (
        "det.onnx: its input 'images' float32 [batch, 3, height, width] leaves sizes open; say them with --shape images=1x3xSIZExSIZE"
    )
    raw = read_raw_onnx("det.onnx", path, parse_shapes(["images=1x3x16x24"]))
    assert raw.feeds(2)["images"].shape == (2, 3, 16, 24)
    assert open_onnxruntime(raw, CPU, Case(2, 1)).version == open_onnxruntime(raw, CPU, Case(1, 1)).version


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("images=1x3x16", "--shape images=1x3x16 does not fit its input 'images' float32 [batch, 3, h, w]"),
        ("images=1x4x16x16", "--shape images=1x4x16x16 does not fit its input"),
        ("images=2x3x16x16", "--shape images=2x3x16x16 begins with 2; begin with 1, for --batch says how many there are"),
    ],
)
def test_a_size_that_contradicts_the_file_is_refused(shape: str, message: str, make_onnx: MakeOnnx) -> None:
    path = make_onnx(inputs={"images": (TensorProto.FLOAT, ["batch", 3, "h", "w"])})
    with pytest.raises(UserError) as caught:
        read_raw_onnx("det.onnx", path, parse_shapes([shape]))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["images", "images=", "=1x3", "images=1x-3", "images=0x3", "images=1,3", "images=\u0661x3"])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="wanted NAME=SIZExSIZE, for example images=1x3x224x224"):
        parse_shapes([text])


def test_a_name_of_an_input_may_hold_an_equals_sign() -> None:
    assert parse_shapes(["a=b=1x2"]) == {"a=b": (1, 2)}


def test_a_fixed_batch_is_met_or_refused(make_onnx: MakeOnnx) -> None:
    raw = read_raw_onnx("foreign", make_onnx(inputs={"x": (TensorProto.FLOAT, [4, 8]), "threshold": (TensorProto.FLOAT, [1])}))
    assert raw.fixed_batch == 4
    assert open_openvino(raw, "f32", Case(4, 1)).provider == "CPU f32"
    with pytest.raises(UserError, match="its batch is fixed at 4; time it with --batch 4, or export it with a free batch"):
        open_onnxruntime(raw, CPU, Case(1, 1))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"words": (TensorProto.STRING, ["b", 3])}, "its input 'words' holds string, and such values are not made up here"),
        ({"x": (TensorProto.BFLOAT16, ["b", 3])}, "its input 'x' holds bfloat16"),
    ],
)
def test_values_that_cannot_be_made_up_are_named(inputs: dict[str, tuple[int, list[int | str]]], message: str, make_onnx: MakeOnnx) -> None:
    with pytest.raises(UserError, match=message):
        read_raw_onnx("foreign", make_onnx(inputs=inputs))


def test_a_file_without_inputs_is_refused(tmp_path: Path) -> None:
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value=value)], "constant", [], [output])
    onnx.save(helper.make_model(graph), tmp_path / "constant.onnx")
    with pytest.raises(UserError, match="takes no inputs, so it always answers the same"):
        read_raw_onnx("constant.onnx", tmp_path / "constant.onnx")


def test_what_is_no_onnx_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    for content in (b"\xff\xfe no protobuf", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^half.onnx: is no whole ONNX file \(.*\); fetch or export it again$"):
            read_raw_onnx("half.onnx", path)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_raw_onnx("folder.onnx", tmp_path)


def test_what_a_runtime_cannot_compute_is_told_in_one_line(make_onnx: MakeOnnx) -> None:
    path = make_onnx()
    proto = onnx.load(path)
    proto.graph.node[0].op_type = "NobodyKnowsThis"
    onnx.save(proto, path)
    raw = read_raw_onnx("foreign", path)
    for open_ in (lambda: open_onnxruntime(raw, CPU, Case(1, 1)), lambda: open_openvino(raw, "f32", Case(1, 1))):
        with pytest.raises(UserError, match="cannot load it") as caught:
            open_()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weight", "operator", "wanted"),
    [
        (np.zeros((4, 4), np.float32), "Mul", "fp32"),
        (np.zeros((4, 4), np.float16), "Mul", "fp16"),
        (np.zeros((4, 4), np.int8), "QuantizeLinear", "int8"),
    ],
)
def test_the_precision_is_read_off_weights_and_operators(weight: object, operator: str, wanted: str, make_onnx: MakeOnnx) -> None:
    path = make_onnx(weight=weight)
    if operator == "QuantizeLinear":
        proto = onnx.load(path)
        proto.graph.node.append(helper.make_node("QuantizeLinear", ["x_square", "scale"], ["q"]))
        onnx.save(proto, path)
    assert read_raw_onnx("foreign", path).precision == wanted
