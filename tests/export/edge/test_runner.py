"""ONNX Runtime as a runner: the same answers as torch, and clear refusals."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from torch import nn

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.onnx_runner import OnnxRunner, refuse_work_on_the_cpu
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Runner, describe
from g2sd_export.onnx_file import export_onnx


def test_it_answers_as_torch_at_every_batch_size(
    onnx_path: Path, preprocessing: Preprocessing, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    runner: Runner = OnnxRunner(onnx_path, preprocessing, threads=1)
    for batch in (1, 3, 8):
        got = runner.infer(images[:batch])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, logits[:batch], atol=1e-5)


def test_a_file_that_takes_pixels_answers_as_torch(
    pixels_onnx: bytes, preprocessing: Preprocessing, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    runner = OnnxRunner(pixels_onnx, preprocessing, threads=1)
    np.testing.assert_array_equal(runner.prepare(images), images)
    np.testing.assert_allclose(runner.infer(images), logits, atol=1e-5)


def test_a_path_and_its_bytes_are_the_same_model(onnx_path: Path, preprocessing: Preprocessing, images: npt.NDArray[np.uint8]) -> None:
    from_path, from_bytes = (OnnxRunner(model, preprocessing, threads=1) for model in (onnx_path, onnx_path.read_bytes()))
    np.testing.assert_array_equal(from_path.infer(images), from_bytes.infer(images))


def test_it_names_runtime_version_and_provider(onnx_path: Path, preprocessing: Preprocessing) -> None:
    runner = OnnxRunner(onnx_path, preprocessing)
    assert (runner.name, runner.version, runner.num_classes) == ("onnxruntime", onnxruntime.__version__, 6)
    assert runner.threads >= 1
    assert describe(runner) == f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"


def test_a_provider_this_machine_lacks_is_refused_and_not_replaced(
    onnx_path: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="has no CUDAExecutionProvider on this machine; it offers CPUExecutionProvider"):
        OnnxRunner(onnx_path, preprocessing, provider="CUDAExecutionProvider")


def test_a_provider_that_silently_falls_back_is_refused(
    onnx_path: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["AzureExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(UserError, match="asked for CPUExecutionProvider and ONNX Runtime chose AzureExecutionProvider"):
        OnnxRunner(onnx_path, preprocessing)


def test_a_provider_that_is_replaced_during_a_run_is_refused(
    onnx_path: Path, preprocessing: Preprocessing, images: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = OnnxRunner(onnx_path, preprocessing, threads=1)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["AzureExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(UserError, match="asked for CPUExecutionProvider and ONNX Runtime ran on AzureExecutionProvider"):
        runner.infer(images)


def test_work_that_another_provider_left_to_the_cpu_is_found_in_a_real_profile(
    onnx_path: Path, preprocessing: Preprocessing, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(onnx_path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"images": np.zeros((1, 1, 28, 28), np.float32)})
    profile = json.loads(Path(session.end_profiling()).read_bytes())
    with pytest.raises(UserError, match=r"asked for CUDAExecutionProvider and ONNX Runtime left .*MatMul.* to CPUExecutionProvider"):
        refuse_work_on_the_cpu(profile, "CUDAExecutionProvider")


def node(operator: str, provider: str) -> dict[str, object]:
    return {"cat": "Node", "args": {"op_name": operator, "provider": provider}}


def test_shapes_may_be_computed_on_the_cpu_and_work_may_not() -> None:
    session = {"cat": "Session", "args": {}}
    shapes = [session, node("Shape", "CPUExecutionProvider"), node("MatMul", "CUDAExecutionProvider")]
    refuse_work_on_the_cpu(shapes, "CUDAExecutionProvider")
    with pytest.raises(UserError, match="left FusedMatMul to CPUExecutionProvider"):
        refuse_work_on_the_cpu([*shapes, node("FusedMatMul", "CPUExecutionProvider")], "CUDAExecutionProvider")
    with pytest.raises(UserError, match="ran nothing on it"):
        refuse_work_on_the_cpu([session], "TensorrtExecutionProvider")


def test_without_onnx_runtime_it_says_what_to_install(
    onnx_path: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        OnnxRunner(onnx_path, preprocessing)


def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path, preprocessing: Preprocessing) -> None:
    with pytest.raises(UserError, match=r"absent.onnx: no such ONNX file"):
        OnnxRunner(tmp_path / "absent.onnx", preprocessing)
    (tmp_path / "noise.onnx").write_bytes(b"\x00noise")
    with pytest.raises(UserError, match=r"noise.onnx: ONNX Runtime .* cannot load it"):
        OnnxRunner(tmp_path / "noise.onnx", preprocessing)


def test_a_model_of_another_input_size_is_refused(onnx_path: Path, preprocessing: Preprocessing) -> None:
    other = dataclasses.replace(preprocessing, image_px=14)
    with pytest.raises(UserError, match="takes images of 1 channels and 28 px; the preprocessing makes 1 channels and 14 px"):
        OnnxRunner(onnx_path, other)


def test_no_threads_is_refused(onnx_path: Path, preprocessing: Preprocessing) -> None:
    with pytest.raises(UserError, match="threads is 0; it must be at least 1"):
        OnnxRunner(onnx_path, preprocessing, threads=0)


def test_a_colour_model_runs(make_model: Callable[..., nn.Module], tmp_path: Path) -> None:
    path = export_onnx(make_model(image_px=21, num_channels=3), image_px=21, num_channels=3, path=tmp_path / "colour.onnx").path
    pre = Preprocessing(image_px=21, resize_px=24, num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert OnnxRunner(path, pre, threads=1).infer(np.zeros((5, 21, 21, 3), np.uint8)).shape == (5, 6)
