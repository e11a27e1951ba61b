"""The self-test passes where the answers are reproduced and fails where anything is not."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.manifest import Bundle, Variant, open_bundle
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.runner import Runner
from g2sd_export.edge.selftest import check_sample, run_selftest, run_selftests

Reseal = Callable[[Path, Callable[[dict[str, Any]], object]], Path]


def opened(folder: Path) -> tuple[Bundle, Variant, Runner]:
    bundle = open_bundle(folder)
    return bundle, bundle.variant(), bundle.runner(threads=1)


def test_an_untouched_bundle_passes(pristine_bundle: Path) -> None:
    result = run_selftest(pristine_bundle, threads=1)
    assert (result.verdict, result.reason, result.variant) == ("passed", "", "fp32-onnxruntime")
    assert result.agreement is not None and result.agreement.num_images == 16  # 8 images alone and in one batch
    assert result.device_agreement is not None and result.device_agreement.num_images == 16
    assert result.bundle == open_bundle(pristine_bundle).digest and result.runtime.startswith("onnxruntime ")


def test_a_variant_that_did_not_run_at_export_is_compared_with_the_reference_alone(pristine_bundle: Path) -> None:
    result = run_selftest(pristine_bundle, threads=1, variant="fp32-onnxruntime-float")
    assert result.verdict == "passed" and result.agreement is not None and result.device_agreement is None


def test_every_variant_is_run_and_one_that_cannot_be_says_why(pristine_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    results = run_selftests(pristine_bundle, threads=1)
    assert [(result.variant, result.verdict) for result in results] == [
        ("fp32-onnxruntime", "passed"),
        ("fp32-openvino", "not_run"),
        ("fp32-onnxruntime-float", "passed"),
    ]
    assert "pip install openvino; or take another variant: fp32-onnxruntime, fp32-onnxruntime-float" in results[1].reason


def test_one_flipped_byte_of_the_model_fails_before_it_is_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRunner, "__init__", lambda *_, **__: pytest.fail("a changed model was loaded"))
    content = bytearray((bundle / "models/pixels.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "models/pixels.onnx").write_bytes(content)
    result = run_selftest(bundle)
    assert result.verdict == "failed" and "pixels.onnx: was changed" in result.reason and result.agreement is None
    assert [item.verdict for item in run_selftests(bundle)] == ["failed"]


@pytest.mark.parametrize("of_variant", [True, False], ids=["variant", "bundle"])
def test_what_failed_at_export_fails_with_the_reason_recorded_and_is_not_run(
    of_variant: bool, bundle: Path, reseal: Reseal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRunner, "__init__", lambda *_, **__: pytest.fail("a model that failed was loaded"))
    change = {"verdict": "failed", "reason": "3 of 9 decisions flip"}
    reseal(bundle, lambda facts: (facts["variants"][0] if of_variant else facts).update(change))
    result = run_selftest(bundle, threads=1)
    assert result.verdict == "failed" and result.reason.endswith("failed its proof at export: 3 of 9 decisions flip")


def test_answers_that_moved_fail_with_the_numbers(pristine_bundle: Path) -> None:
    bundle, variant, runner = opened(pristine_bundle)
    sample = bundle.sample()
    moved = dataclasses.replace(sample, logits=sample.logits + np.float32(0.01))
    result = check_sample(bundle, moved, runner, variant)
    assert (result.verdict, result.reason) == ("failed", "a logit differs by 0.01, tolerated 0.001")


def test_a_device_that_answers_within_the_targets_tolerance_but_not_as_at_export_fails(pristine_bundle: Path) -> None:
    bundle, variant, runner = opened(pristine_bundle)
    wide = dataclasses.replace(variant, tolerance=ParityTolerance(max_abs_logit_diff=1.0, flipped_share=1.0))
    infer = runner.infer

    def drifted(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return infer(images) + np.float32(0.01)

    runner.infer = drifted  # type: ignore[method-assign]
    result = check_sample(bundle, bundle.sample(), runner, wide)
    assert result.verdict == "failed"
    assert result.reason == "other answers than this variant gave at export: a logit differs by 0.01, tolerated 0.0001"
    untold = dataclasses.replace(wide, device_tolerance=None)
    assert check_sample(bundle, bundle.sample(), runner, untold).verdict == "passed"


@pytest.mark.parametrize("broken_batch", [1, 8])
def test_a_runtime_that_is_wrong_at_one_batch_size_only_fails(broken_batch: int, pristine_bundle: Path) -> None:
    bundle, variant, runner = opened(pristine_bundle)
    infer = runner.infer

    def faulty(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return infer(images) * np.float32(1.5 if len(images) == broken_batch else 1.0)

    runner.infer = faulty  # type: ignore[method-assign]
    assert check_sample(bundle, bundle.sample(), runner, variant).verdict == "failed"


def test_a_machine_that_decodes_the_sample_image_otherwise_fails(pristine_bundle: Path) -> None:
    bundle, variant, runner = opened(pristine_bundle)
    sample = bundle.sample()
    shifted = dataclasses.replace(sample, decoded=np.roll(sample.decoded, 1, axis=0))
    result = check_sample(bundle, shifted, runner, variant)
    assert result.verdict == "failed" and "sample.png decodes to pixels that differ by up to" in result.reason
