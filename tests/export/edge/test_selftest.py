"""The self-test passes where the answers are reproduced and fails where anything is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge.manifest import open_bundle
from g2sd_export.edge.runner import OnnxRunner
from g2sd_export.edge.selftest import check_sample, run_selftest


def test_an_untouched_bundle_passes(pristine_bundle: Path) -> None:
    result = run_selftest(pristine_bundle, threads=1)
    assert (result.verdict, result.reason) == ("passed", "")
    assert result.agreement is not None and result.agreement.num_images == 16  # 8 images alone and in one batch
    assert result.bundle == open_bundle(pristine_bundle).digest and result.runtime.startswith("onnxruntime ")


def test_one_flipped_byte_of_the_model_fails_before_it_is_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRunner, "__init__", lambda *_, **__: pytest.fail("a changed model was loaded"))
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    result = run_selftest(bundle)
    assert result.verdict == "failed" and "model.onnx: was changed" in result.reason and result.agreement is None


def test_answers_that_moved_fail_with_the_numbers(pristine_bundle: Path) -> None:
    bundle = open_bundle(pristine_bundle)
    sample = bundle.sample()
    moved = dataclasses.replace(sample, logits=sample.logits + np.float32(0.01))
    result = check_sample(bundle, moved, bundle.runner(threads=1))
    assert (result.verdict, result.reason) == ("failed", "a logit differs by 0.01, tolerated 0.001")


@pytest.mark.parametrize("broken_batch", [1, 8])
def test_a_runtime_that_is_wrong_at_one_batch_size_only_fails(broken_batch: int, pristine_bundle: Path) -> None:
    bundle = open_bundle(pristine_bundle)
    runner = bundle.runner(threads=1)
    infer = runner.infer

    def faulty(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return infer(images) * np.float32(1.5 if len(images) == broken_batch else 1.0)

    runner.infer = faulty  # type: ignore[method-assign]
    assert check_sample(bundle, bundle.sample(), runner).verdict == "failed"


def test_a_machine_that_decodes_the_sample_image_otherwise_fails(pristine_bundle: Path) -> None:
    bundle = open_bundle(pristine_bundle)
    sample = bundle.sample()
    shifted = dataclasses.replace(sample, decoded=np.roll(sample.decoded, 1, axis=0))
    result = check_sample(bundle, shifted, bundle.runner(threads=1))
    assert result.verdict == "failed" and "sample.png decodes to pixels that differ by up to" in result.reason
