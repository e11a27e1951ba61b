"""From names to what can be timed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.profiling.candidate import ON_CPU, RUNTIMES, Candidate, Case
from g2sd_deploy.profiling.subjects import Wanted, candidates_of, reference_candidate
from g2sd_deploy.settings.profile import RuntimeName
from g2sd_export.bundle import open_bundle

CASE = Case(2, 1)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def wanted(scratch: Path, *runtimes: RuntimeName) -> Wanted:
    return Wanted(runtimes, {}, scratch)


def told(candidates: list[Candidate]) -> list[tuple[str, str, str]]:
    return [(one.variant, one.runtime, one.precision) for one in candidates]


def test_weights_are_timed_on_every_runtime(classifier: Path, tmp_path: Path) -> None:
    found = candidates_of(str(classifier), wanted(tmp_path))
    assert [one.runtime for one in found if one.precision != "bf16"] == [
        "torch",
        "torch-compile",
        "torch-cuda",
        "torch-compile-cuda",
        "onnxruntime",
        "openvino",
        "onnxruntime-cuda",
        "onnxruntime-tensorrt",
        "tensorrt",
        "tensorrt-rtx",
    ]
    assert {one.runtime for one in found} == set(RUNTIMES)
    assert {(one.model, one.digest, one.file_bytes) for one in found} == {
        (str(classifier), sha256_of(classifier), classifier.stat().st_size)
    }
    assert list(tmp_path.iterdir()) == [], "nothing is exported before it is needed"


def test_torch_and_the_exported_file_are_the_same_network(classifier: Path, model: Classifier, tmp_path: Path) -> None:
    torch_one, onnx_one, *openvino = candidates_of(str(classifier), wanted(tmp_path, "torch", "onnxruntime", "openvino"))
    assert torch_one.open(CASE).call().shape == (2, 3)  # type: ignore[attr-defined]
    assert np.asarray(onnx_one.open(CASE).call()).shape == (1, 2, 3)
    images = torch.randn(2, 1, 28, 28)
    (file,) = tmp_path.glob("*.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], model(images).numpy(), atol=1e-4)
    assert told(openvino) == [("", "openvino", "fp32"), ("", "openvino", "bf16")]


@no_gpu
def test_what_needs_a_gpu_says_so_where_there_is_none(classifier: Path, tmp_path: Path) -> None:
    found = candidates_of(str(classifier), wanted(tmp_path))
    assert all(one.refusal for one in found if one.on_gpu)
    reasons = {one.runtime: one.refusal for one in found}
    assert "no usable GPU" in reasons["torch-cuda"] and "CUDAExecutionProvider" in reasons["onnxruntime-cuda"]
    assert {one.runtime for one in found if not one.on_gpu} == set(ON_CPU)


def test_a_bundle_gives_its_variants_and_its_verdicts_are_respected(bundle: Path, tmp_path: Path) -> None:
    runs, failed, on_gpu = candidates_of(str(bundle), wanted(tmp_path))
    assert told([runs, failed, on_gpu]) == [
        ("fp32-onnxruntime", "onnxruntime", "fp32"),
        ("int8-onnxruntime", "onnxruntime", "fp32"),
        ("fp32-onnxruntime-cuda", "onnxruntime-cuda", "fp32"),
    ]
    assert runs.refusal == "" and failed.refusal == "variant int8-onnxruntime failed its proof at export: 3 of 100 decisions changed"
    assert runs.digest == open_bundle(bundle).digest and runs.file_bytes == (bundle / "models" / "fp32.onnx").stat().st_size
    opened = runs.open(CASE)
    assert np.asarray(opened.call()).shape == (2, 3)
    assert (opened.version, opened.provider) == (onnxruntime.__version__, "CPUExecutionProvider")


def test_a_runtime_that_a_bundle_has_no_variant_for_is_told(bundle: Path, tmp_path: Path) -> None:
    (one,) = candidates_of(str(bundle), wanted(tmp_path, "openvino"))
    assert (one.runtime, one.refusal) == (
        "openvino",
        "the bundle has no variant for it; it has fp32-onnxruntime, int8-onnxruntime, fp32-onnxruntime-cuda",
    )


def test_a_foreign_file_runs_on_the_runtimes_that_read_it(make_onnx: Callable[..., Path], tmp_path: Path) -> None:
    path = make_onnx(weight=np.zeros((4, 4), np.float16))
    found = candidates_of(str(path), wanted(tmp_path, "onnxruntime", "openvino", "torch"))
    assert told(found) == [("", "onnxruntime", "fp16"), ("", "openvino", "fp32"), ("", "openvino", "bf16"), ("", "torch", "fp16")]
    assert "torch runs weights" in found[-1].refusal
    assert {(one.digest, one.file_bytes) for one in found[:-1]} == {(sha256_of(path), path.stat().st_size)}
    assert all(one.open(CASE).version for one in found[:2])


def test_layers_are_asked_of_the_runtimes_that_tell_them(classifier: Path, bundle: Path, tmp_path: Path) -> None:
    of_weights = candidates_of(str(classifier), wanted(tmp_path, "torch", "onnxruntime", "openvino"))
    subjects = [one.layers() for one in of_weights if one.layers is not None]
    assert [(one.runtime, dict(one.settings)) for one in subjects] == [
        ("onnxruntime", {"provider": "CPUExecutionProvider"}),
        ("openvino", {"inference_precision": "f32"}),
        ("openvino", {"inference_precision": "bf16"}),
    ]
    of_bundle = candidates_of(str(bundle), wanted(tmp_path))[0]
    assert of_bundle.layers is not None and of_bundle.layers().variant == "fp32-onnxruntime"


def test_an_engine_is_opened_when_its_turn_comes(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"no engine")
    (one,) = candidates_of(str(tmp_path / "model.engine"), wanted(tmp_path))
    assert (one.runtime, one.on_gpu, one.file_bytes) == ("tensorrt", True, 9)
    with pytest.raises(UserError, match=r"model\.engine: "):
        one.open(CASE)


def test_the_reference_is_a_candidate_like_others() -> None:
    one = reference_candidate()
    assert (one.model, one.label, one.on_gpu, len(one.digest)) == ("reference", "reference onnxruntime fp32", False, 64)
    assert np.asarray(one.open(CASE).call()).shape == (1, 2, 1000)
