"""A 16-bit file is strongly typed, keeps its outside, and what it would lose on a device is seen on a CPU."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.half import HalfPrecision, bf16_from_float32, float32_from_bf16, half_onnx
from g2sd_export.half_choice import choose_kept, overflowing, parts_of
from g2sd_export.half_emulation import emulated_onnx, run_float32
from g2sd_export.onnx_file import export_onnx

FLOAT, HALF = onnx.TensorProto.FLOAT, {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def deployable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with fixed random weights that takes pixels."""
    folder = tmp_path_factory.mktemp("half")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(EncoderSpec(16, 4, 3, 32, 2, 4), 6, pooling="mean", token="deit").eval()
        nn.init.normal_(model.head.weight)
    export_onnx(model, image_px=16, num_channels=3, path=folder / "float.onnx", metadata={"precision": "fp32", "recipe": "tiny"})
    pre = Preprocessing(image_px=16, resize_px=16, num_channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return deployable_onnx(folder / "float.onnx", pre, path=folder / "deployable.onnx").path


def write(body: str, path: Path, **constants: npt.NDArray[np.generic]) -> Path:
    """A graph by hand, from float32 [batch, 8] to logits [batch, 8], its nodes named by what they make."""
    header = '<ir_version: 10, opset_import: ["": 20]> hand (float[batch, 8] images) => (float[batch, 8] logits) '
    model = onnx.parser.parse_model(header + body)
    for node in model.graph.node:
        node.name = node.output[0]
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def emulated(path: Path, images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    twin = emulated_onnx(path, path=path.with_suffix(".emulated")).path
    return run_float32(onnx.load_model_from_string(twin.read_bytes()), images)[0]


def types_of(path: Path) -> dict[str, int]:
    """What ONNX infers of every tensor from the inputs and constants alone."""
    model = onnx.load(path)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.value_info, *graph.output)}
    return found | {item.name: item.data_type for item in graph.initializer}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_everything_inside_is_in_16_bits_and_the_outside_keeps_its_types(
    deployable: Path, precision: HalfPrecision, tmp_path: Path
) -> None:
    info = half_onnx(deployable, precision=precision, path=tmp_path / "half.onnx")
    model, types = onnx.load(info.path), types_of(info.path)
    assert (types["images"], types["logits"]) == (onnx.TensorProto.UINT8, FLOAT)
    assert {name for name, kind in types.items() if kind == FLOAT} == {"logits"}
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 2
    assert info.bytes < 0.65 * deployable.stat().st_size
    metadata = {item.key: item.value for item in model.metadata_props}
    assert metadata["source_sha256"] == hashlib.sha256(deployable.read_bytes()).hexdigest()
    assert (metadata["precision"], metadata["float_precision"], metadata["kept_fp32"]) == (precision, precision, "")
    assert (metadata["recipe"], metadata["input"]) == ("tiny", "uint8 NHWC, raw pixels")


def test_an_fp16_file_answers_as_the_float_file_in_onnx_runtime(deployable: Path, tmp_path: Path) -> None:
    path = half_onnx(deployable, precision="fp16", path=tmp_path / "half.onnx").path
    wanted, got = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"images": IMAGES})[0]
        for file in (deployable, path)
    )
    assert 0 < np.abs(got - wanted).max() < 0.004 * np.abs(wanted).max()


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 0.004), ("bf16", 0.04)])
def test_openvino_reads_it_and_answers_as_the_float_file(deployable: Path, precision: HalfPrecision, limit: float, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    path = half_onnx(deployable, precision=precision, path=tmp_path / "half.onnx").path
    wanted, got = (
        openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(IMAGES)[0] for file in (str(deployable), str(path))
    )
    assert np.abs(got - wanted).max() < limit * np.abs(wanted).max()


def test_what_is_kept_computes_in_float32_between_casts(deployable: Path, tmp_path: Path) -> None:
    kept = parts_of(onnx.load(deployable))["head"]
    path = half_onnx(deployable, precision="fp16", path=tmp_path / "half.onnx", keep=["LayerNormalization", *kept]).path
    types = types_of(path)
    for node in onnx.load(path).graph.node:
        wide = {types[name] == FLOAT for name in (*node.input, *node.output) if types[name] in (FLOAT, onnx.TensorProto.FLOAT16)}
        if node.op_type != "Cast":
            assert wide <= {node.op_type == "LayerNormalization" or node.name in kept}, node.name
    assert emulated(path, IMAGES).shape == (4, 6)


def test_parts_name_every_norm_and_the_head_once(deployable: Path) -> None:
    proto = onnx.load(deployable)
    parts, kinds = parts_of(proto), {node.name: node.op_type for node in proto.graph.node}
    assert [kinds[name] for name in parts["layer_norm"]] == ["LayerNormalization"] * 4
    assert [kinds[name] for name in parts["softmax"]] == ["Softmax"] * 2
    assert [kinds[name] for name in parts["gelu"]] == ["Gelu"] * 2
    assert [kinds[name] for name in parts["residual"]] == ["Add"] * 4
    assert [kinds[name] for name in parts["attention"]] == ["MatMul"] * 4
    assert sorted(kinds[name] for name in parts["head"]) == sorted(
        ["Div", "Add", "Gemm", "Gemm", "LayerNormalization", "LayerNormalization", "ReduceMean", "Slice", "Gather"]
    )
    assert [kinds[name] for name in parts["patch_projection"]] == ["Cast", "Reshape", "Transpose", "Reshape", "MatMul", "Add", "Add"]


def test_a_softmax_is_emulated_step_by_step_as_in_half_precision_arithmetic(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images, weight = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=(8, 8)).astype(np.float32)
    source = write("{ scores = MatMul(images, weight) logits = Softmax(scores) }", tmp_path / "float.onnx", weight=weight)
    got = emulated(half_onnx(source, precision="fp16", path=tmp_path / "half.onnx").path, images)
    scores = (images.astype(np.float16).astype(np.float64) @ weight.astype(np.float16).astype(np.float64)).astype(np.float16)
    powers = np.exp((scores - scores.max(axis=1, keepdims=True)).astype(np.float64)).astype(np.float16)
    total = powers.astype(np.float64).sum(axis=1, keepdims=True).astype(np.float16)
    wanted = (powers.astype(np.float64) / total.astype(np.float64)).astype(np.float16)
    assert np.abs(got - wanted).max() <= 2**-11 * np.abs(wanted).max()  # a sum may fall on the other side of one rounding
    assert (got == wanted).mean() > 0.8 and (got == got.astype(np.float16)).all()


@pytest.mark.parametrize(
    ("body", "constants"),
    [
        ("{ logits = LayerNormalization <epsilon = 1e-5> (images, scale, bias) }", {"scale": 1.5, "bias": 0.25}),
        ("{ logits = Gelu(images) }", {}),
        ("{ logits = Softmax(images) }", {}),
    ],
)
def test_the_steps_of_an_operator_are_the_operator(body: str, constants: dict[str, float], tmp_path: Path) -> None:
    images = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32)
    source = write(body, tmp_path / "float.onnx", **{name: np.full(8, value, np.float32) for name, value in constants.items()})
    path = half_onnx(source, precision="fp16", path=tmp_path / "half.onnx").path
    wanted = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]
    assert 0 < np.abs(emulated(path, images) - wanted).max() < 0.004 * np.abs(wanted).max()


def test_bf16_is_rounded_to_the_nearest_and_to_even_as_torch_does() -> None:
    ties = np.array([0x3F808000, 0x3F818000, 0x3F80C000, 0x3F807FFF, 0xBF808001, 0x00000001, 0x7F7F7FFF], dtype=np.uint32).view(np.float32)
    values = np.concatenate([ties, np.random.default_rng(3).normal(size=1000).astype(np.float32)]).reshape(19, -1)
    wanted = torch.from_numpy(values).to(torch.bfloat16)
    np.testing.assert_array_equal(bf16_from_float32(values), wanted.view(torch.int16).numpy().view(np.uint16))
    np.testing.assert_array_equal(float32_from_bf16(bf16_from_float32(values)), wanted.float().numpy())


BIG = "{ big = MatMul(images, weight) small = Mul(big, shrink) logits = Add(small, bias) }"


def big(path: Path) -> Path:
    """Activations of about 600,000 inside, logits of about 6."""
    weight = np.random.default_rng(4).normal(scale=2e5, size=(8, 8)).clip(-6e4, 6e4).astype(np.float32)
    return write(BIG, path, weight=weight, shrink=np.array(1e-5, np.float32), bias=np.ones(8, np.float32))


def test_an_activation_that_fp16_cannot_hold_is_seen_kept_and_survives(tmp_path: Path) -> None:
    source, images = big(tmp_path / "float.onnx"), np.random.default_rng(5).normal(size=(4, 8)).astype(np.float32)
    careless = half_onnx(source, precision="fp16", path=tmp_path / "careless.onnx").path
    assert not np.isfinite(emulated(careless, images)).all()
    kept = choose_kept(source, "fp16", images)
    assert kept.groups[0] == "overflow" and set(kept.overflow) == {"big", "small"} and set(kept.nodes) >= {"big", "small"}
    reference = run_float32(onnx.load(source), images)[0]
    peak = np.abs(images @ numpy_helper.to_array(onnx.load(source).graph.initializer[0])).max()
    assert kept.overflow["big"] == pytest.approx(peak, rel=1e-5)
    got = emulated(half_onnx(source, precision="fp16", path=tmp_path / "half.onnx", keep=kept.nodes).path, images)
    assert np.abs(got - reference).max() < 0.01 * np.abs(reference).max()
    assert json.dumps(kept.to_dict()) and overflowing(onnx.load(source), "bf16", images) == {}


def test_squares_inside_a_layer_norm_count_as_its_own_overflow(tmp_path: Path) -> None:
    body = "{ wide = Mul(images, thousand) logits = LayerNormalization(wide, one) }"
    source = write(body, tmp_path / "float.onnx", thousand=np.array(1000, np.float32), one=np.ones(8, np.float32))
    images = np.random.default_rng(6).normal(size=(4, 8)).astype(np.float32)
    assert set(overflowing(onnx.load(source), "fp16", images)) == {"logits"}
    assert choose_kept(source, "fp16", images).nodes == ("logits",)


def test_the_part_that_is_kept_is_the_one_whose_files_err_least(deployable: Path, tmp_path: Path) -> None:
    kept = choose_kept(deployable, "bf16", IMAGES, target_error=0, max_groups=1)
    (errors,) = kept.rounds
    assert kept.error_of_all > kept.error == min(errors.values()) and errors[kept.groups[0]] == kept.error
    wanted = run_float32(onnx.load(deployable), IMAGES)[0].astype(np.float64)
    parts = parts_of(onnx.load(deployable))
    for keep, error in ((kept.nodes, kept.error), ((), kept.error_of_all), (parts["softmax"], errors["softmax"])):
        got = emulated(half_onnx(deployable, precision="bf16", path=tmp_path / "half.onnx", keep=keep).path, IMAGES)
        relative = np.sqrt(((got - wanted) ** 2).mean() / ((wanted - wanted.mean(axis=1, keepdims=True)) ** 2).mean())
        assert error == pytest.approx(relative, rel=1e-5)


def test_where_16_bits_suffice_nothing_is_kept(deployable: Path) -> None:
    kept = choose_kept(deployable, "fp16", IMAGES, target_error=0.05)
    assert kept.nodes == kept.groups == kept.rounds == () and kept.error == kept.error_of_all < 0.05


def test_an_int8_file_keeps_its_int8_and_computes_the_rest_in_16_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    body = (
        "{ q = QuantizeLinear(images, scale, zero) x = DequantizeLinear(q, scale, zero) "
        "w = DequantizeLinear <axis = 1> (weight, scales) product = MatMul(x, w) logits = Add(product, bias) }"
    )
    source = write(
        body,
        tmp_path / "int8.onnx",
        scale=np.array(0.03, np.float32),
        zero=np.array(0, np.int8),
        weight=rng.integers(-127, 128, (8, 8), dtype=np.int8),
        scales=rng.uniform(0.01, 0.02, 8).astype(np.float32),
        bias=np.ones(8, np.float32),
    )
    model = onnx.load(source)
    model.metadata_props.add(key="precision", value="int8")
    onnx.save(model, source)
    path = half_onnx(source, precision="fp16", path=tmp_path / "half.onnx").path
    types, images = types_of(path), rng.normal(size=(4, 8)).astype(np.float32)
    assert sum(node.op_type == "Cast" for node in onnx.load(path).graph.node) == 2
    assert types["weight"] == types["q"] == onnx.TensorProto.INT8 and types["product"] == onnx.TensorProto.FLOAT16
    wanted, got = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0] for file in (source, path)
    )
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()  # a rounded scale moves a few inputs by one of 255 steps
    assert {item.key: item.value for item in onnx.load(path).metadata_props}["precision"] == "int8"


def test_a_name_that_is_not_in_the_graph_is_refused(deployable: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"deployable.onnx: nothing in it is called LayerNorm; keep takes names of operator types and of"):
        half_onnx(deployable, precision="fp16", path=tmp_path / "half.onnx", keep=["LayerNorm", "Softmax"])


def test_constants_that_do_not_fit_are_refused_by_the_node_that_reads_them(tmp_path: Path) -> None:
    masked = write("{ logits = Add(images, mask) }", tmp_path / "mask.onnx", mask=np.full(8, -1e5, np.float32))
    with pytest.raises(UserError, match=r"mask.onnx: Add logits: a constant of it reaches 1e\+05, above fp16's 65504; keep the node"):
        half_onnx(masked, precision="fp16", path=tmp_path / "half.onnx")
    divided = write("{ safe = Add(images, eps) logits = Div(images, safe) }", tmp_path / "eps.onnx", eps=np.array(1e-12, np.float32))
    with pytest.raises(UserError, match=r"eps.onnx: Add safe: its constant 1e-12 is 0 in fp16; keep the node in float32"):
        half_onnx(divided, precision="fp16", path=tmp_path / "half.onnx")
    assert half_onnx(divided, precision="fp16", path=tmp_path / "half.onnx", keep=["safe"]).num_classes == 8
    assert half_onnx(masked, precision="bf16", path=tmp_path / "half.onnx").num_classes == 8


def test_a_file_that_is_in_16_bits_already_or_answers_nan_is_refused(deployable: Path, tmp_path: Path) -> None:
    broken = write("{ logits = Div(images, zero) }", tmp_path / "nan.onnx", zero=np.zeros(8, np.float32))
    with pytest.raises(UserError, match=r"nan.onnx: its float32 logits are not finite on these images"):
        choose_kept(broken, "fp16", np.zeros((1, 8), np.float32))
    model = onnx.load(broken)
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, broken)
    with pytest.raises(UserError, match=r"nan.onnx: its logits are float16; wanted a file with float32 weights and logits"):
        half_onnx(broken, precision="fp16", path=tmp_path / "half.onnx")
