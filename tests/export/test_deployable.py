"""A deployable file takes the pixels themselves and answers as the float file does to normalised images."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable
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

from g2sd_deploy.models.vit import Classifier, EncoderSpec, Pooling, Token
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.onnx_file import export_onnx

IMAGE_PX = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


JOINED = "logits = ReduceMean <keepdims = 0> (rows, middle) }"
CUT = "cut = Reshape(images, grid) turned = Transpose <perm = [0, 2, 4, 1, 3, 5]> (cut) "
FORMS = {
    "matmul": CUT + "patches = Reshape(turned, join) product = MatMul(patches, weight) rows = Add(product, bias)" + JOINED,
    "matmul, bias first": CUT + "patches = Reshape(turned, join) product = MatMul(patches, weight) rows = Add(bias, product)" + JOINED,
    "matmul without bias": CUT + "patches = Reshape(turned, join) rows = MatMul(patches, weight)" + JOINED,
    "matmul and positions": CUT + "patches = Reshape(turned, join) product = MatMul(patches, weight) rows = Add(product, table)" + JOINED,
    "gemm": CUT + "patches = Reshape(turned, flat) some = Gemm(patches, weight, bias) rows = Reshape(some, tokens)" + JOINED,
    "gemm without bias": CUT
    + "patches = Reshape(turned, flat) some = Gemm <transB = 1> (patches, turned_weight) rows = Reshape(some, tokens)"
    + JOINED,
    # as einsum("nchpwq->nhwpqc") of the MAE authors cuts
    "pixels last": "cut = Reshape(images, grid) turned = Transpose <perm = [0, 2, 4, 3, 5, 1]> (cut) patches = Reshape(turned, join) "
    "product = MatMul(patches, weight) rows = Add(product, bias)" + JOINED,
    "conv": "map = Conv <strides = [8, 8]> (images, kernel, bias) some = Reshape(map, columns) rows = Transpose <perm = [0, 2, 1]> (some)"
    + JOINED,
    "conv without bias": "map = Conv <strides = [8, 8], pads = [0, 0, 0, 0]> (images, kernel) some = Reshape(map, columns) "
    "rows = Transpose <perm = [0, 2, 1]> (some)" + JOINED,
    "padded conv": "map = Conv <strides = [8, 8], pads = [4, 4, 4, 4]> (images, kernel) some = Reshape(map, columns) "
    "rows = Transpose <perm = [0, 2, 1]> (some)" + JOINED,
    "relu first": "bright = Relu(images) cut = Reshape(bright, join) rows = MatMul(cut, weight)" + JOINED,
    "relu inside": CUT + "patches = Reshape(turned, join) bright = Relu(patches) rows = MatMul(bright, weight)" + JOINED,
    "two readers": CUT
    + "other = Reshape(images, join) patches = Reshape(turned, join) added = Add(patches, other) rows = MatMul(added, weight)"
    + JOINED,
}
REFUSED = {"padded conv", "relu first", "relu inside", "two readers"}
WEIGHT = np.random.default_rng(1).normal(size=(192, 6)).astype(np.float32)
BIAS = np.random.default_rng(2).normal(size=6).astype(np.float32)
TABLE = np.random.default_rng(3).normal(size=(1, 16, 6)).astype(np.float32)


def write_form(form: str, path: Path) -> None:
    """A graph by hand: patches of 8 x 8 pixels through one projection, averaged to 6 logits."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> form (float[batch, 3, 32, 32] images) => (float[batch, 6] logits) {' + FORMS[form]
    )
    constants = {
        "grid": np.array([-1, 3, 4, 8, 4, 8]),
        "join": np.array([-1, 16, 192]),
        "flat": np.array([-1, 192]),
        "tokens": np.array([-1, 16, 6]),
        "columns": np.array([0, 6, 16 if "padded" not in form else 25]),
        "middle": np.array([1]),
        "weight": WEIGHT,
        "turned_weight": WEIGHT.T,
        "kernel": WEIGHT.T.reshape(6, 3, 8, 8),
        "bias": BIAS,
        "table": TABLE,
    }
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    model.metadata_props.add(key="recipe", value="tiny")
    model.metadata_props.add(key="input", value="float")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def answer_of(form: str, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The form in float64, patch by patch."""
    unit = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    weight, total = WEIGHT.astype(np.float64), np.zeros((len(images), 6))
    for row in range(4):
        for column in range(4):
            patch = unit[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]  # [B, P, Q, C]
            numbers = patch if form == "pixels last" else patch.transpose(0, 3, 1, 2)
            total += numbers.reshape(len(images), -1) @ weight
            if "without" not in form:
                total += TABLE[0, 4 * row + column] if "positions" in form else BIAS
    return total / 16


def preprocessing(channels: int = 3, image_px: int = IMAGE_PX) -> Preprocessing:
    return Preprocessing(image_px=image_px, resize_px=image_px, num_channels=channels, mean=MEAN[:channels], std=STD[:channels])


def pixels(channels: int = 3, num: int = 3) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, IMAGE_PX, IMAGE_PX, channels), dtype=np.uint8)


def reference(model: nn.Module, images: npt.NDArray[np.uint8], channels: int = 3) -> npt.NDArray[np.float64]:
    """The model in float64 on images that were normalised in float64."""
    unit = (images / 255.0 - np.array(MEAN[:channels])) / np.array(STD[:channels])
    with torch.no_grad():
        answer: npt.NDArray[np.float64] = model.double()(torch.from_numpy(unit.transpose(0, 3, 1, 2).copy())).numpy()
    model.float()
    return answer


def run(path: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answer,) = session.run(["logits"], {"images": images})
    return np.asarray(answer)


@pytest.fixture
def convert(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a form by hand and makes its file deployable."""

    def make(form: str) -> Path:
        write_form(form, tmp_path / "float.onnx")
        return deployable_onnx(tmp_path / "float.onnx", preprocessing(), path=tmp_path / "deployable.onnx").path

    return make


def classifier(channels: int, pooling: Pooling, token: Token) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(EncoderSpec(IMAGE_PX, 8, channels, 32, 2, 4), 6, pooling=pooling, token=token)
        nn.init.normal_(model.head.weight)  # a fresh head is nearly zero and would hide errors
        if token != "none":
            nn.init.normal_(model.encoder.patch_embed.proj.bias)  # type: ignore[arg-type]  # else equal to every norm's, and stored once
    return model.eval()


@pytest.mark.parametrize(("channels", "pooling", "token"), [(3, "cls", "g2sd"), (1, "mean", "none")])
def test_a_student_answers_to_pixels_as_in_float64_and_nothing_but_a_cast_is_added(
    channels: int, pooling: Pooling, token: Token, tmp_path: Path
) -> None:
    model, source = classifier(channels, pooling, token), tmp_path / "float.onnx"
    export_onnx(model, image_px=IMAGE_PX, num_channels=channels, path=source)
    path = deployable_onnx(source, preprocessing(channels), path=tmp_path / "deployable.onnx").path
    images = pixels(channels)
    for batch in (1, 3):
        np.testing.assert_allclose(run(path, images[:batch]), reference(model, images[:batch], channels), atol=2e-5)
    before, after = (onnx.load(file).graph for file in (source, path))
    counts = [collections.Counter(node.op_type for node in graph.node) for graph in (before, after)]
    assert counts[1] - counts[0] == {"Cast": 1} and not counts[0] - counts[1]
    settings = [{node.output[0]: node.attribute for node in graph.node} for graph in (before, after)]
    assert [name for name in settings[0] if settings[0][name] != settings[1][name]] == ["permute"]
    assert [node.op_type for node in after.node if "images" in node.input] == ["Cast"]


@pytest.mark.parametrize("form", sorted(FORMS.keys() - REFUSED))
def test_every_form_of_a_patch_projection_is_folded(convert: Callable[[str], Path], form: str) -> None:
    images = pixels()
    np.testing.assert_allclose(run(convert(form), images), answer_of(form, images), atol=2e-5)


def test_the_new_weights_are_the_float64_values_rounded_once(convert: Callable[[str], Path]) -> None:
    weight = WEIGHT.astype(np.float64).reshape(3, 8, 8, 6)
    std, mean = (np.float32(values).astype(np.float64)[:, None, None, None] for values in (STD, MEAN))
    wanted = (weight / (255 * std)).transpose(1, 2, 0, 3).reshape(192, 6)
    bias = BIAS.astype(np.float64) - (weight * mean / std).sum(axis=(0, 1, 2))
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(convert("matmul")).graph.initializer}
    assert np.abs(stored["patch_weight_pixels"] / wanted - 1).max() < 2**-23.99
    np.testing.assert_allclose(stored["patch_bias_pixels"], bias, rtol=2**-23.99)


def test_it_declares_pixels_keeps_the_metadata_and_names_its_source(convert: Callable[[str], Path], tmp_path: Path) -> None:
    model = onnx.load(convert("matmul"))
    kind = model.graph.input[0].type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    assert (kind.elem_type, shape) == (onnx.TensorProto.UINT8, ["batch", IMAGE_PX, IMAGE_PX, 3])
    assert {item.key: item.value for item in model.metadata_props} == {
        "recipe": "tiny",
        "input": "uint8 NHWC, raw pixels",
        "source_sha256": hashlib.sha256((tmp_path / "float.onnx").read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ("relu first", "its images go first into Relu"),
        ("two readers", "its images go first into Reshape, Reshape"),
        ("relu inside", "its patches go into Relu"),
        ("padded conv", "its first operator Conv has padding"),
    ],
)
def test_a_graph_in_which_something_else_meets_the_images_is_refused(convert: Callable[[str], Path], form: str, found: str) -> None:
    with pytest.raises(UserError, match=rf"float.onnx: {found}.*; ship the float file of this model instead"):
        convert(form)


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    write_form("matmul", tmp_path / "float.onnx")
    with pytest.raises(UserError, match=r"its input is images float \[batch, 3, 32, 32\]; wanted .* \[batch, 3, 16, 16\]"):
        deployable_onnx(tmp_path / "float.onnx", preprocessing(image_px=16), path=tmp_path / "deployable.onnx")


def test_a_deployable_file_and_rubbish_are_refused(convert: Callable[[str], Path], tmp_path: Path) -> None:
    path = convert("matmul")
    with pytest.raises(UserError, match=r"its input is images uint8 \[batch, 32, 32, 3\]"):
        deployable_onnx(path, preprocessing(), path=tmp_path / "again.onnx")
    path.write_bytes(b"no graph at all")
    with pytest.raises(UserError, match=r"deployable.onnx: cannot be read as an ONNX file"):
        deployable_onnx(path, preprocessing(), path=tmp_path / "again.onnx")
    assert not (tmp_path / "again.onnx").exists()
