"""Every method's file runs where it should, takes what the float file takes, and says how it was made."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor, nn

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.openvino_runner import shared_core
from g2sd_export.int8 import nncf_method
from g2sd_export.int8.packing import Scheme
from g2sd_export.int8.quantise import Method, Quantised, Source, candidates
from g2sd_export.int8.sensitivity import logits_of
from g2sd_export.onnx_file import export_onnx

CPU: tuple[Method, ...] = ("nncf", "nncf-smooth", "ort-minmax", "ort-entropy", "ort-percentile", "ort-smooth")


@pytest.fixture(scope="module")
def files(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Quantised]]:
    made: dict[str, list[Quantised]] = {}
    for scheme in ("cpu", "tensorrt"):
        folder = tmp_path_factory.mktemp(scheme)
        made[scheme] = candidates(source, source.images, scheme=scheme, methods=CPU, folder=folder)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("at", range(len(CPU)), ids=CPU)
def test_onnx_runtime_and_openvino_give_the_float_models_answers(files: dict[str, list[Quantised]], source: Source, at: int) -> None:
    pytest.importorskip("openvino")
    file = files["cpu"][at]
    wanted = logits_of(source.model, source.images)
    got = logits_of(onnx.load_model(file.path), source.images)
    compiled = shared_core().compile_model(str(file.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    other = np.asarray(compiled([source.images])[0])
    for answers in (got, other):
        assert 0.95 < np.corrcoef(wanted.ravel(), answers.ravel())[0, 1] < 1


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_a_file_takes_pixels_if_the_float_file_does_and_is_small(files: dict[str, list[Quantised]], pixel_path: Path, scheme: str) -> None:
    for file in files[scheme]:
        model = onnx.load_model(file.path)
        assert model.graph.input[0].SerializeToString() == onnx.load_model(pixel_path).graph.input[0].SerializeToString()
        matrices = [item for item in model.graph.initializer if len(item.dims) == 2 and item.data_type == onnx.TensorProto.FLOAT]
        assert matrices == [] and file.num_quantised == 10 and file.num_float == 4
        assert file.info and file.info.bytes < pixel_path.stat().st_size / 2


@pytest.mark.parametrize("scheme", ["cpu", "tensorrt"])
def test_model_optimizers_file_answers_as_the_float_model_does(source: Source, tmp_path: Path, scheme: Scheme) -> None:
    pytest.importorskip("modelopt")
    pytest.importorskip("onnx_graphsurgeon", reason="nvidia-modelopt is here without what it needs for ONNX")
    (file,) = candidates(source, source.images, scheme=scheme, methods=["modelopt"], folder=tmp_path)
    assert file.info, file.why_not
    model = onnx.load_model(file.path)
    wanted, got = logits_of(source.model, source.images), logits_of(model, source.images)
    assert 0.95 < np.corrcoef(wanted.ravel(), got.ravel())[0, 1] < 1
    told = {item.key: item.value for item in model.metadata_props}
    assert told["quantiser"].startswith("modelopt (nvidia-modelopt ") and file.num_quantised >= 8


def test_symmetric_files_have_no_zero_point(files: dict[str, list[Quantised]]) -> None:
    for file in files["tensorrt"]:
        model = onnx.load_model(file.path)
        eight = {item.name: item for item in model.graph.initializer if item.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)}
        zeros = {node.input[2] for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
        assert all(item.data_type == onnx.TensorProto.INT8 for item in eight.values())
        assert not any(onnx.numpy_helper.to_array(eight[name]).any() for name in zeros)


@pytest.mark.parametrize("method", ["ort-minmax", "nncf"])
def test_tensorrt_parses_the_symmetric_file_and_no_other(files: dict[str, list[Quantised]], method: Method) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    for scheme, wanted in (("tensorrt", True), ("cpu", False)):
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        parsed = parser.parse(files[scheme][CPU.index(method)].path.read_bytes())
        assert parsed == wanted, [parser.get_error(at).desc() for at in range(parser.num_errors)]


def test_the_file_says_how_it_was_made(files: dict[str, list[Quantised]], source: Source, pixel_path: Path) -> None:
    from hashlib import sha256

    told = {item.key: item.value for item in onnx.load_model(files["cpu"][0].path).metadata_props}
    assert told["precision"] == "int8" and told["source_sha256"] == sha256(pixel_path.read_bytes()).hexdigest()
    assert told["quantiser"].startswith("nncf (nncf ") and told["calibration_images"] == "12"
    assert json.loads(told["class_names"]) == list("abcdef")


@pytest.mark.parametrize("method", ["ort-entropy", "nncf-smooth"])
def test_the_same_images_give_the_same_file(
    files: dict[str, list[Quantised]], pixel_path: Path, photos: npt.NDArray[np.uint8], tmp_path: Path, method: Method
) -> None:
    (again,) = candidates(pixel_path, photos, scheme="cpu", methods=[method], folder=tmp_path)
    before = files["cpu"][CPU.index(method)].info
    assert again.info and before and again.info.sha256 == before.sha256


def test_a_group_that_is_kept_stays_float(source: Source, tmp_path: Path) -> None:
    for file in candidates(source, source.images, scheme="cpu", methods=["nncf", "ort-minmax"], folder=tmp_path, keep=[source.groups[-1]]):
        matrices = [
            list(item.dims)
            for item in onnx.load_model(file.path).graph.initializer
            if len(item.dims) == 2 and item.data_type == onnx.TensorProto.FLOAT
        ]
        assert matrices == [[6, 32]] and file.num_quantised == 9 and file.kept == (source.groups[-1],)


def test_a_float_input_stays_a_float_input(float_path: Path, photos: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    (file,) = candidates(float_path, photos, scheme="cpu", methods=["ort-minmax"], folder=tmp_path)
    model = onnx.load_model(file.path)
    wanted, got = (logits_of(each, photos) for each in (onnx.load_model(float_path), model))
    assert np.corrcoef(wanted.ravel(), got.ravel())[0, 1] > 0.95


def test_half_range_weights_leave_room_for_the_sum_of_two(source: Source, tmp_path: Path) -> None:
    (file,) = candidates(source, source.images, scheme="cpu", methods=["ort-minmax"], folder=tmp_path, half_range_weights=True)
    stored = [
        item for item in onnx.load_model(file.path).graph.initializer if item.data_type == onnx.TensorProto.INT8 and len(item.dims) == 2
    ]
    assert {int(np.abs(onnx.numpy_helper.to_array(item)).max()) for item in stored} == {63}


def test_a_method_without_its_package_says_so_and_the_others_go_on(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'nncf'")

    monkeypatch.setattr(nncf_method, "_nncf", missing)
    seen: list[tuple[int, int, str]] = []
    one, other = candidates(
        source, source.images, scheme="cpu", methods=["nncf", "ort-minmax"], folder=tmp_path, tick=lambda *told: seen.append(told)
    )
    assert one.info is None and "No module named 'nncf'" in one.why_not and other.info
    assert seen == [(0, 2, "nncf"), (1, 2, "ort-minmax"), (2, 2, "")]
    with pytest.raises(UserError, match="no INT8 file by nncf: its package is not installed"):
        _ = one.path


def test_nothing_is_printed(source: Source, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    candidates(source, source.images, scheme="cpu", methods=["nncf", "ort-entropy"], folder=tmp_path)
    assert capfd.readouterr() == ("", "")


def test_wrong_requests_are_refused(source: Source, pixel_path: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no layer 'block9' to keep in float; the file has "):
        candidates(source, source.images, scheme="cpu", methods=["ort-minmax"], folder=tmp_path, keep=["block9"])
    with pytest.raises(UserError, match="no calibration images"):
        candidates(pixel_path, source.images[:0], scheme="cpu", methods=["ort-minmax"], folder=tmp_path)


class TwoQueries(nn.Module):
    """An attention that asks for the first and the last token only, as the last block of a distilled student does."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Linear(48, 16), nn.LayerNorm(16)
        self.query, self.key_value, self.head = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(16, 6)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.patch(images.reshape(images.shape[0], -1, 48)))
        query = self.query(torch.cat([tokens[:, :1], tokens[:, -1:]], dim=1))
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        answer: Tensor = self.head((torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value).mean(dim=1))
        return answer


@pytest.mark.parametrize("method", ["ort-minmax", "nncf"])
def test_openvino_takes_a_product_of_joined_tokens(photos: npt.NDArray[np.uint8], float_path: Path, tmp_path: Path, method: Method) -> None:
    pytest.importorskip("openvino")
    told = {item.key: item.value for item in onnx.load_model(float_path).metadata_props}
    export_onnx(TwoQueries(), image_px=32, num_channels=3, path=tmp_path / "two.onnx", metadata=told)
    (file,) = candidates(tmp_path / "two.onnx", photos, scheme="cpu", methods=[method], folder=tmp_path)
    assert file.num_quantised == 3 and file.num_float == 3
    shared_core().compile_model(str(file.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
