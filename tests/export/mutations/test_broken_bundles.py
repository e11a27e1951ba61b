"""Bundles damaged on the way, or sealed with the wrong parts: opening or the self-test says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.bundle import seal
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.manifest import LABELS, MANIFEST, MANIFEST_DIGEST, open_bundle
from g2sd_export.edge.openvino_runner import OpenVINORunner
from g2sd_export.edge.selftest import run_selftest

MODEL = "models/fp32.onnx"
Mutate = Callable[[str, Path, Path], Path]


def resealed(folder: Path, **changes: Any) -> Path:
    """Digests of whatever lies in the folder: as a program with a fault, or no good intentions, would have written it."""
    facts = json.loads((folder / MANIFEST).read_bytes()) | changes
    contents = {name: (folder / name).read_bytes() for name in facts["files"]}
    facts["files"] = {name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in contents.items()}
    content = json.dumps(facts).encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / MANIFEST_DIGEST).write_text(f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n", encoding="utf-8")
    return folder


def variants_of(folder: Path) -> list[dict[str, Any]]:
    variants: list[dict[str, Any]] = json.loads((folder / MANIFEST).read_bytes())["variants"]
    return variants


def without_engine(folder: Path, **changes: Any) -> Path:
    """Sealed with the first variant alone, changed; the engine's file stays."""
    variant = variants_of(folder)[0]
    return resealed(folder, variants=[variant | changes])


def failure(folder: Path) -> str:
    result = run_selftest(folder, threads=1)
    assert result.verdict == "failed" and result.reason
    return result.reason


def test_the_bundle_passes_before_anything_is_broken(sealed: Path) -> None:
    result = run_selftest(sealed, threads=1)
    assert (result.verdict, result.reason) == ("passed", "")


def test_truncated_weights_are_named_before_they_run(bundle: Path) -> None:
    content = (bundle / MODEL).read_bytes()
    (bundle / MODEL).write_bytes(content[:-4])
    with pytest.raises(IntegrityError, match=rf"fp32.onnx: holds {len(content) - 4} bytes, the manifest says {len(content)}"):
        open_bundle(bundle)
    assert "fp32.onnx: holds " in failure(bundle)


def test_a_changed_bit_of_the_weights_is_named(bundle: Path) -> None:
    content = bytearray((bundle / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / MODEL).write_bytes(content)
    with pytest.raises(IntegrityError, match=r"fp32.onnx: was changed \(sha256 "):
        open_bundle(bundle)


def test_class_names_in_another_order_are_named(bundle: Path) -> None:
    lines = (bundle / LABELS).read_text(encoding="utf-8").splitlines(keepends=True)
    (bundle / LABELS).write_text("".join(sorted(lines)), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"labels.txt: was changed \(sha256 "):
        open_bundle(bundle)


@pytest.mark.parametrize("change", [{"mean": [0.5, 0.5, 0.5]}, {"resize_px": 28}], ids=str)
def test_a_preprocessing_changed_by_hand_is_named(bundle: Path, change: dict[str, Any]) -> None:
    facts = json.loads((bundle / MANIFEST).read_bytes())
    facts["preprocessing"] |= change
    (bundle / MANIFEST).write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"does not match manifest\.sha256"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("permute_classes", "a logit differs by "),
        ("swap_channels", "a logit differs by "),
        ("transpose_images", "a logit differs by "),
        ("zero_a_layer", "a logit differs by "),
        ("fix_the_batch", "a logit differs by "),
        ("spoil_a_weight", "the candidate's logits are NaN or infinite for 16 of 16 images"),
    ],
)
def test_a_bundle_sealed_with_a_wrong_model_fails_its_selftest(bundle: Path, mutate: Mutate, name: str, reason: str) -> None:
    mutate(name, bundle / MODEL, bundle / MODEL)
    assert failure(without_engine(bundle)).startswith(reason)


@pytest.mark.parametrize(
    "change",
    [{"interpolation": "bilinear"}, {"resize_px": 28}, {"resize_px": 36}, {"mean": [0.5, 0.5, 0.5]}, {"std": [0.2, 0.3, 0.3]}],
    ids=["another filter", "another crop", "another size", "another mean", "another std"],
)
def test_a_bundle_sealed_with_a_wrong_preprocessing_fails_its_selftest(bundle: Path, change: dict[str, Any]) -> None:
    resealed(bundle, preprocessing=json.loads((bundle / MANIFEST).read_bytes())["preprocessing"] | change)
    assert failure(bundle) == "models/fp32.onnx was made with other preprocessing than the bundle has; export the model again"


def test_a_bundle_sealed_with_permuted_class_names_fails_its_selftest(bundle: Path) -> None:
    first, second, *others = (bundle / LABELS).read_text(encoding="utf-8").splitlines(keepends=True)
    (bundle / LABELS).write_text("".join([second, first, *others]), encoding="utf-8")
    assert failure(resealed(bundle)) == "models/fp32.onnx was made with other class names than the bundle has; export the model again"


def test_an_engine_of_another_model_is_stale(bundle: Path, mutate: Mutate) -> None:
    mutate("zero_a_bias", bundle / MODEL, bundle / MODEL)  # a new student of the same shape, beside the engine of the old one
    with pytest.raises(UserError, match=r"fp32-tensorrt_rtx: stale: .*; build the engine again"):
        seal(bundle, json.loads((bundle / MANIFEST).read_bytes()))
    with pytest.raises(IntegrityError, match=r"fp32.plan: stale: was built from a models/fp32.onnx of sha256 .*; build the engine again"):
        open_bundle(resealed(bundle))
    assert "stale" in failure(bundle)


def test_an_engine_whose_source_is_not_in_the_bundle_is_refused(bundle: Path) -> None:
    variants = variants_of(bundle)
    variants[1]["settings"]["source"] = "models/gone.onnx"
    with pytest.raises(IntegrityError, match=r"was built from 'models/gone.onnx', which the bundle does not hold"):
        open_bundle(resealed(bundle, variants=variants))


def test_a_device_that_silently_computes_in_bfloat16_fails_the_selftest(
    bundle: Path, silent_bfloat16: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within what the target tolerates against the trained model, and yet not what this file answered when it was proven."""
    without_engine(bundle, tolerance={"max_abs_logit_diff": 9.0, "flipped_share": 1.0})
    monkeypatch.setattr("g2sd_export.edge.opening.open_variant", lambda *_: silent_bfloat16)
    assert failure(bundle).startswith("other answers than this variant gave at export: a logit differs by ")


def test_openvino_that_reports_another_precision_than_asked_is_refused(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.CompiledModel, "get_property", lambda *_: openvino.Type.bf16)
    with pytest.raises(UserError, match=r"asked for f32 and OpenVINO .* chose bf16; it cannot be trusted here"):
        OpenVINORunner(case.pixel_onnx, case.pre, threads=1).infer(case.images[:1])
