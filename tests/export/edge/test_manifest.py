"""A bundle is opened only if it is whole, unchanged and does not contradict itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.files import FileRecord, problems_of
from g2sd_export.edge.manifest import Variant, open_bundle, record_of

Change = Callable[[dict[str, Any]], object]
Reseal = Callable[[Path, Change], Path]


def test_a_bundle_says_what_was_written(pristine_bundle: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]) -> None:
    bundle = open_bundle(pristine_bundle)
    assert (bundle.name, bundle.verdict, bundle.default) == ("tiny", "passed", "fp32-onnxruntime")
    assert [variant.name for variant in bundle.variants] == ["fp32-onnxruntime", "fp32-openvino", "fp32-onnxruntime-float"]
    assert bundle.variant() is bundle.variants[0] and bundle.variant("fp32-openvino").settings == {"inference_precision": "f32"}
    assert bundle.class_names[3] == "Kleid für Übermorgen" and bundle.target["name"] == "cpu"
    sample = bundle.sample()
    np.testing.assert_array_equal(sample.images, images)
    np.testing.assert_array_equal(sample.logits, logits)
    assert bundle.golden(bundle.variants[1]) is not None and bundle.golden(bundle.variants[2]) is None


def test_a_variant_survives_json(pristine_bundle: Path) -> None:
    for entry in json.loads((pristine_bundle / "manifest.json").read_bytes())["variants"]:
        variant = Variant.from_dict(entry)
        again = Variant.from_dict(json.loads(json.dumps(variant.to_dict())))
        assert again == variant and isinstance(variant.tolerance, ParityTolerance)


def test_an_unknown_variant_is_refused_and_the_known_ones_are_named(pristine_bundle: Path) -> None:
    with pytest.raises(UserError, match="has no variant 'int8'; it has fp32-onnxruntime, fp32-openvino, fp32-onnxruntime-float"):
        open_bundle(pristine_bundle).variant("int8")


@pytest.mark.parametrize("name", ["models/pixels.onnx", "labels.txt", "sample.npz", "edge/runner.py", "README.md", "manifest.json"])
def test_one_changed_byte_anywhere_is_named(name: str, bundle: Path) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=Path(name).name):
        open_bundle(bundle)


def test_a_missing_a_longer_and_an_added_file_are_named_and_counted(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()
    with pytest.raises(IntegrityError, match=r"labels.txt: missing; copy"):
        open_bundle(bundle)
    (bundle / "README.md").write_text("longer than it was")
    (bundle / "models/other.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"\(and 2 more: labels.txt, models/other.onnx\)|\(and 2 more: README.md, models/other.onnx\)"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["edge/onnxruntime.py", "numpy.py", "models/x.onnx", ".hidden", "models/manifest.json"])
def test_a_file_that_nobody_tested_is_refused(name: str, bundle: Path) -> None:
    (bundle / name).write_text("x = 1\n")
    with pytest.raises(IntegrityError, match=rf"{name}: is not listed in the manifest, so nobody tested it; remove it"):
        open_bundle(bundle)


def test_a_link_to_a_folder_is_a_file_that_nobody_tested(bundle: Path, tmp_path: Path) -> None:
    (bundle / "more").symlink_to(tmp_path)
    with pytest.raises(IntegrityError, match="more: is not listed"):
        open_bundle(bundle)


def test_a_signature_and_pythons_caches_may_lie_there(bundle: Path) -> None:
    (bundle / "manifest.sig").write_text("signed")
    (bundle / "edge/__pycache__").mkdir()
    (bundle / "edge/__pycache__/runner.cpython-312.pyc").write_bytes(b"cache")
    open_bundle(bundle)


def test_all_problems_are_told_at_once(bundle: Path) -> None:
    files = {name: record_of(bundle / name) for name in ("labels.txt", "README.md", "sample.png")}
    (bundle / "labels.txt").unlink()
    (bundle / "README.md").write_bytes(b"X" + (bundle / "README.md").read_bytes()[1:])
    found = problems_of(bundle, {**files, "../out": FileRecord("0" * 64, 1)}, beside=frozenset({"manifest.json"}))
    assert found["labels.txt"] == "missing" and "was changed" in found["README.md"] and "outside" in found["../out"]
    assert "sample.png" not in found and "manifest.json" not in found and "not listed" in found["sample.npz"]


def without(key: str) -> Change:
    return lambda facts: facts.pop(key)


def in_variant(**changes: object) -> Change:
    return lambda facts: facts["variants"][0].update(changes)


def double(facts: dict[str, Any]) -> None:
    facts["variants"][1]["name"] = facts["variants"][0]["name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("licences"), "lacks licences"),
        (without("sbom"), "lacks sbom"),
        (lambda facts: facts.update(labels="names.txt"), "labels is 'names.txt', not 'labels.txt'"),
        (lambda facts: facts.update(verdict="fine"), "verdict is 'fine'"),
        (lambda facts: facts.update(default="int8-openvino"), "the default is 'int8-openvino'"),
        (lambda facts: facts.update(variants=[]), "its variants are none"),
        (double, "its variants are fp32-onnxruntime, fp32-onnxruntime, "),
        (in_variant(file="models/other.onnx"), "does not list models/other.onnx of variant fp32-onnxruntime"),
        (in_variant(precision="fp64"), "precision is 'fp64'; it must be one of fp32, bf16"),
        (in_variant(runtime="tflite"), "runtime is 'tflite'; it must be one of onnxruntime, openvino"),
        (in_variant(verdict="failed"), "its verdict is 'failed' and gives no reason"),
        (in_variant(name="FP32 fast"), "variant 'FP32 fast': its name must be"),
        (in_variant(speed=1), "missing or unknown keys speed"),
        (in_variant(tolerance={"flipped_share": 0}), "tolerance: it holds"),
        (lambda facts: facts["preprocessing"].update(image_px="28"), "image_px is '28'"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused_though_every_digest_fits(
    change: Change, message: str, bundle: Path, reseal: Reseal
) -> None:
    with pytest.raises(IntegrityError, match=message):
        open_bundle(reseal(bundle, change))


def test_a_bundle_of_another_format_asks_for_its_own_edge(bundle: Path, reseal: Reseal) -> None:
    with pytest.raises(UserError, match="has format 1; this program reads format 2; use the edge folder that came with the bundle"):
        open_bundle(reseal(bundle, lambda facts: facts.update(format=1)))


def engine(source_sha256: str | None) -> Change:
    def change(facts: dict[str, Any]) -> None:
        entry = facts["variants"][1]
        entry.update(name="fp32-tensorrt_rtx", runtime="tensorrt_rtx", file="models/tiny.engine")
        entry["settings"] = {"source": "models/float.onnx", "source_sha256": source_sha256}

    return change


def test_an_engine_that_was_built_from_another_model_is_stale(bundle: Path, reseal: Reseal) -> None:
    (bundle / "models/tiny.engine").write_bytes(b"engine")
    built_from = record_of(bundle / "models/float.onnx").sha256
    assert open_bundle(reseal(bundle, engine(built_from))).variants[1].runtime == "tensorrt_rtx"
    with pytest.raises(IntegrityError, match=r"tiny.engine: stale: .* models/float.onnx of sha256 0{12}.*build the engine again"):
        open_bundle(reseal(bundle, engine("0" * 64)))
    with pytest.raises(IntegrityError, match="stale"):
        open_bundle(reseal(bundle, engine(None)))
    (bundle / "models/float.onnx").rename(bundle / "models/gone.onnx")
    with pytest.raises(IntegrityError, match=r"built from 'models/float.onnx', which the bundle does not hold"):
        open_bundle(reseal(bundle, lambda facts: (engine(built_from)(facts), facts["variants"].pop())))


def test_a_file_that_changes_after_the_bundle_was_opened_is_not_used(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (bundle / "models/pixels.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"pixels.onnx: holds 5 bytes"):
        opened.runner(threads=1)
