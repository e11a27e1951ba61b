"""OpenVINO as a runner: the same answers as torch, in the arithmetic that was asked for, from several threads at once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge.errors import UserError
from g2sd_export.edge.openvino_runner import OpenVINORunner, shared_core
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Runner, describe

openvino = pytest.importorskip("openvino")

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]


def offered() -> list[str]:
    return list(shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.mark.parametrize("takes", ["float32", "uint8"])
def test_it_answers_as_torch_at_every_batch_size(
    takes: str, onnx_path: Path, pixels_onnx: bytes, preprocessing: Preprocessing, images: Images, logits: Logits
) -> None:
    runner: Runner = OpenVINORunner(onnx_path if takes == "float32" else pixels_onnx, preprocessing, threads=1)
    assert runner.prepare(images).dtype == np.dtype(takes)
    for batch in (1, 3, 8, 5, 1, 2):  # two sizes are compiled for themselves, the others share the free one
        got = runner.infer(images[:batch])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, logits[:batch], atol=1e-5)


def test_the_arithmetic_is_said_and_is_the_one_that_runs(onnx_path: Path, preprocessing: Preprocessing, images: Images) -> None:
    runner = OpenVINORunner(onnx_path, preprocessing, threads=1)
    runner.infer(images[:1])
    runner.infer(images)
    runner.infer(images[:3])
    assert set(runner._compiled) == {1, 8, None}
    for compiled in runner._compiled.values():
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 1 and compiled.get_property("NUM_STREAMS") == 1
    assert describe(runner).endswith(" CPU f32") and runner.num_classes == 6


def test_an_arithmetic_that_was_replaced_in_silence_is_refused(
    onnx_path: Path, preprocessing: Preprocessing, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model = openvino.Core.compile_model

    def forgetful(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        return compile_model(core, model, device, {**settings, "INFERENCE_PRECISION_HINT": "f16" if "FP16" in offered() else "f32"})

    if "FP16" not in offered():
        pytest.skip("this processor computes in f32 only, so nothing can be replaced")
    monkeypatch.setattr(openvino.Core, "compile_model", forgetful)
    with pytest.raises(UserError, match=r"asked for f32 and OpenVINO .* chose f16"):
        OpenVINORunner(onnx_path, preprocessing, threads=1).infer(images)


def test_bfloat16_answers_otherwise_than_float32_but_alike(
    onnx_path: Path, preprocessing: Preprocessing, images: Images, logits: Logits
) -> None:
    if "BF16" not in offered():
        pytest.skip("this processor does not compute in BF16")
    runner = OpenVINORunner(onnx_path, preprocessing, threads=1, inference_precision="bf16")
    worst = float(np.abs(runner.infer(images) - logits).max())
    assert 1e-4 < worst < 0.1
    assert describe(runner).endswith(" CPU bf16")


def test_bfloat16_is_refused_where_the_processor_lacks_it(
    onnx_path: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"], "FULL_DEVICE_NAME": "Old CPU"}
    monkeypatch.setattr(openvino.Core, "get_property", lambda _, device, key: values[key])
    with pytest.raises(UserError, match=r"this processor \(Old CPU\) does not compute in BF16, only in FP32, INT8; take a variant"):
        OpenVINORunner(onnx_path, preprocessing, inference_precision="bf16")


def test_another_precision_is_refused(onnx_path: Path, preprocessing: Preprocessing) -> None:
    with pytest.raises(UserError, match="inference_precision is 'f64'; it must be one of f32, bf16"):
        OpenVINORunner(onnx_path, preprocessing, inference_precision="f64")  # type: ignore[arg-type]


def test_four_threads_at_once_get_the_bits_that_one_gets(onnx_path: Path, preprocessing: Preprocessing, images: Images) -> None:
    runner = OpenVINORunner(onnx_path, preprocessing, threads=1)
    parts = [images[: 1 + i % 4] for i in range(32)]
    wanted = [runner.infer(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(runner.infer, parts), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_answers_outlive_the_next_call(onnx_path: Path, preprocessing: Preprocessing, images: Images) -> None:
    runner = OpenVINORunner(onnx_path, preprocessing, threads=1)
    first = runner.infer(images[:1])
    kept = first.copy()
    runner.infer(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_what_is_no_model_of_these_images_is_refused_in_one_line(tmp_path: Path, onnx_path: Path, preprocessing: Preprocessing) -> None:
    with pytest.raises(UserError, match=r"absent.onnx: no such ONNX file"):
        OpenVINORunner(tmp_path / "absent.onnx", preprocessing)
    (tmp_path / "noise.onnx").write_bytes(b"\x00noise")
    with pytest.raises(UserError, match=r"noise.onnx: OpenVINO .* cannot load it") as refused:
        OpenVINORunner(tmp_path / "noise.onnx", preprocessing)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="takes images of 1 channels and 28 px; the preprocessing makes 3 channels and 28 px"):
        OpenVINORunner(onnx_path, Preprocessing(28, 28, 3, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(UserError, match="threads is 0; it must be at least 1"):
        OpenVINORunner(onnx_path, preprocessing, threads=0)


def test_without_openvino_it_says_what_to_install(onnx_path: Path, preprocessing: Preprocessing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match="pip install openvino"):
        OpenVINORunner(onnx_path, preprocessing)


def test_runners_that_come_and_go_leave_signals_in_order(onnx_path: Path, preprocessing: Preprocessing) -> None:
    """OpenVINO moves the stack of signals: with a core for each runner, a child that ended would end this process, too."""
    code = f"""
import gc, signal, subprocess, sys
from pathlib import Path
from g2sd_export.edge.openvino_runner import OpenVINORunner
from g2sd_export.edge.preprocess import Preprocessing
PRE = Preprocessing.from_dict({preprocessing.to_dict()!r})
first, second = (OpenVINORunner(Path({str(onnx_path)!r}), PRE, threads=1) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGCHLD, lambda number, frame: None)
for _ in range(3):
    subprocess.run([sys.executable, "-c", "pass"], check=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done
