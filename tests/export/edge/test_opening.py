"""A variant opens on the runtime and with the settings that its proof was made with, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge import tensorrt_runner
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.manifest import open_bundle, record_of
from g2sd_export.edge.onnx_runner import OnnxRunner

Reseal = Callable[[Path, Callable[[dict[str, Any]], object]], Path]


def test_each_variant_answers_as_the_model_that_was_trained(
    pristine_bundle: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    pytest.importorskip("openvino")
    bundle = open_bundle(pristine_bundle)
    for variant in bundle.variants:
        runner = bundle.runner(threads=1, variant=variant.name)
        assert runner.name == variant.runtime
        assert runner.prepare(images).dtype == np.dtype(variant.input["dtype"])
        np.testing.assert_allclose(runner.infer(images), logits, atol=1e-5)


def test_the_settings_of_the_manifest_reach_the_runtime(bundle: Path, reseal: Reseal) -> None:
    pytest.importorskip("openvino")
    assert getattr(open_bundle(bundle).runner(threads=1, variant="fp32-openvino"), "inference_precision") == "f32"  # noqa: B009
    reseal(bundle, lambda facts: facts["variants"][1].update(settings={"inference_precision": "f8"}))
    with pytest.raises(UserError, match="variant fp32-openvino: inference_precision is 'f8'"):
        open_bundle(bundle).runner(variant="fp32-openvino")


@pytest.mark.parametrize(
    ("settings", "found"), [({}, "none"), ({"provider": "CPUExecutionProvider", "level": 3}, "provider, level"), ({"cores": 1}, "cores")]
)
def test_settings_that_would_be_guessed_or_ignored_are_refused(settings: dict[str, Any], found: str, bundle: Path, reseal: Reseal) -> None:
    reseal(bundle, lambda facts: facts["variants"][0].update(settings=settings))
    with pytest.raises(UserError, match=f"variant fp32-onnxruntime: its settings are {found}; wanted provider; or take another variant"):
        open_bundle(bundle).runner(threads=1)


def test_a_file_that_takes_something_else_than_the_manifest_says_is_refused(bundle: Path, reseal: Reseal) -> None:
    reseal(bundle, lambda facts: facts["variants"][0].update(file="models/float.onnx"))
    with pytest.raises(IntegrityError, match=r"float.onnx takes float32 NCHW, and the manifest says uint8 NHWC"):
        open_bundle(bundle).runner(threads=1)


def test_a_model_of_other_classes_than_are_named_is_refused(bundle: Path, reseal: Reseal) -> None:
    (bundle / "labels.txt").write_text("one\ntwo\n")
    reseal(bundle, lambda facts: None)
    with pytest.raises(IntegrityError, match="gives 6 logits and 2 classes are named"):
        open_bundle(bundle).runner(threads=1)


@pytest.mark.parametrize("variant", ["fp32-onnxruntime", "fp32-openvino"])
@pytest.mark.parametrize("wrong", ["class names", "preprocessing"])
def test_what_the_file_says_of_itself_has_to_be_what_the_bundle_says(variant: str, wrong: str, bundle: Path, reseal: Reseal) -> None:
    if "openvino" in variant:
        pytest.importorskip("openvino")
    if wrong == "class names":
        names = (bundle / "labels.txt").read_text().splitlines()
        (bundle / "labels.txt").write_text("".join(f"{name}\n" for name in [names[1], names[0], *names[2:]]))
        reseal(bundle, lambda facts: None)
    else:
        reseal(bundle, lambda facts: facts["preprocessing"].update(mean=[0.4]))
    with pytest.raises(IntegrityError, match=f"was made with other {wrong} than the bundle has; export the model again"):
        open_bundle(bundle).runner(threads=1, variant=variant)


def test_an_engine_is_opened_from_the_bytes_that_were_verified(bundle: Path, reseal: Reseal, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / "models/tiny.engine").write_bytes(b"the engine")
    sha256 = record_of(bundle / "models/float.onnx").sha256
    settings = {"source": "models/float.onnx", "source_sha256": sha256, "version": "10.3"}
    entry = {"name": "fp16-tensorrt", "runtime": "tensorrt", "precision": "fp16", "file": "models/tiny.engine", "settings": settings}
    reseal(bundle, lambda facts: facts["variants"][1].update(entry))
    seen: list[bytes] = []

    class FakeEngine:
        name = "tensorrt"

        def __init__(self, path: Path, *, content: bytes) -> None:
            seen.append(content)

        def runner(self, preprocessing: Any) -> Any:
            return OnnxRunner(bundle / "models/pixels.onnx", preprocessing, threads=1)

    monkeypatch.setattr(tensorrt_runner, "Engine", FakeEngine)
    opened = open_bundle(bundle)
    opened.runner(variant="fp16-tensorrt")
    assert seen == [b"the engine"]
    FakeEngine.name = "tensorrt_rtx"
    with pytest.raises(UserError, match="was built for tensorrt, and tensorrt_rtx opened it; or take another variant: fp32-onnxruntime"):
        opened.runner(variant="fp16-tensorrt")
