"""Eight-bit floats: what the file holds, and that TensorRT takes it."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.int8.fp8 import fp8_onnx
from g2sd_export.int8.quantise import Quantised, Source
from g2sd_export.int8.sensitivity import logits_of


@pytest.fixture(scope="module")
def file(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    return fp8_onnx(source, source.images, path=tmp_path_factory.mktemp("fp8") / "fp8.onnx")


def test_weights_are_the_nearest_e4m3_numbers(file: Quantised, source: Source) -> None:
    model = onnx.load_model(file.path)
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    floats = {item.name: numpy_helper.to_array(item).astype(np.float64) for item in source.model.graph.initializer}
    codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
    numbers = codes[np.isfinite(codes)]
    weights = [product.weight[1] for product in source.products if product.weight]
    assert len(weights) == 10 == file.num_quantised
    for name in weights[1:4]:
        stored, scale = values[f"{name}.q"].astype(np.float64), values[f"{name}.scale"].astype(np.float64)
        np.testing.assert_allclose(scale, np.abs(floats[name]).max(axis=0) / 448, rtol=1e-6)
        wanted = floats[name] / scale
        nearest = np.abs(wanted[..., None] - numbers).min(axis=-1)
        np.testing.assert_allclose(np.abs(stored - wanted), nearest, atol=448 * 2e-6)


def test_its_answers_stay_near_those_of_float(file: Quantised, source: Source) -> None:
    wanted, got = logits_of(source.model, source.images), logits_of(onnx.load_model(file.path), source.images)
    assert 0.98 < np.corrcoef(wanted.ravel(), got.ravel())[0, 1] < 1


def test_the_file_says_that_it_is_fp8(file: Quantised) -> None:
    told = {item.key: item.value for item in onnx.load_model(file.path).metadata_props}
    assert told["precision"] == "fp8" and file.scheme == "tensorrt"


def test_tensorrt_parses_it(file: Quantised) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    log = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(file.path.read_bytes()), [parser.get_error(at).desc() for at in range(parser.num_errors)]


def test_a_file_of_an_old_opset_and_an_unknown_layer_are_refused(
    damaged: Callable[[Callable[[onnx.ModelProto], None]], Path], source: Source, tmp_path: Path
) -> None:
    def age(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 18

    with pytest.raises(UserError, match="FP8 needs opset 19 or later and the float file has 18"):
        fp8_onnx(damaged(age), source.images, path=tmp_path / "old.onnx")
    with pytest.raises(UserError, match="no layer 'x' to keep"):
        fp8_onnx(source, source.images, path=tmp_path / "x.onnx", keep=["x"])
