"""A bundle is written whole, the same from the same parts, and what failed in it is told."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import g2sd_export.edge
from g2sd_export.bundle import BuiltVariant, Variant, open_bundle, seal
from g2sd_export.bundle.writing import npz_bytes
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing, load_image
from g2sd_export.edge.selftest import run_selftest

TOP_LEVEL = {
    *("README.md", "edge", "labels.txt", "manifest.json", "manifest.sha256"),
    *("models", "sample.npz", "sample.png", "sbom.cdx.json"),
}

Make = Callable[..., Path]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_holds_the_promised_files_and_lists_every_one(pristine_bundle: Path, manifest: dict[str, Any]) -> None:
    assert {path.name for path in pristine_bundle.iterdir()} == TOP_LEVEL
    held = contents(pristine_bundle)
    assert set(held) == set(manifest["files"]) | {"manifest.json", "manifest.sha256"}
    for name, record in manifest["files"].items():
        assert record == {"sha256": hashlib.sha256(held[name]).hexdigest(), "bytes": len(held[name])}
    assert held["manifest.sha256"].decode() == f"{hashlib.sha256(held['manifest.json']).hexdigest()}  manifest.json\n"


def test_the_edge_folder_is_the_package_unchanged(pristine_bundle: Path) -> None:
    source = Path(g2sd_export.edge.__file__).parent
    sources = {path.relative_to(source): path.read_bytes() for path in source.rglob("*.py")}
    copied = (path for path in (pristine_bundle / "edge").rglob("*") if path.is_file())
    assert {path.relative_to(pristine_bundle / "edge"): path.read_bytes() for path in copied} == sources
    assert Path("__main__.py") in sources and Path("dense/task.py") in sources


def test_the_manifest_says_what_it_was_given(manifest: dict[str, Any], preprocessing: Preprocessing, make_variant: Any) -> None:
    assert (manifest["format"], manifest["name"], manifest["version"], manifest["default"]) == (2, "tiny", "1.2.3", "fp32-onnxruntime")
    assert (manifest["verdict"], manifest["reason"]) == ("passed", "")
    assert manifest["preprocessing"] == preprocessing.to_dict()
    assert manifest["variants"] == [json.loads(json.dumps(make_variant().to_dict()))]
    assert manifest["licences"] == {"model": "CC-BY-NC-4.0", "code": "Apache-2.0 AND MIT", "teacher": "unknown", "data": "MIT"}
    assert manifest["target"]["name"] == "cpu-x86" and manifest["provenance"]["recipe"] == "tiny"


def test_the_same_parts_give_the_same_bytes_wherever_they_are_written(pristine_bundle: Path, make_bundle: Make, tmp_path: Path) -> None:
    again = make_bundle(tmp_path / "elsewhere" / "under another name")
    assert contents(again) == contents(pristine_bundle)


def test_no_path_of_the_machine_that_made_it_is_in_it(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    texts = {name: held for name, held in contents(bundle).items() if not name.startswith("edge/")}
    assert [name for name, held in texts.items() if str(tmp_path).encode() in held or str(Path.home()).encode() + b"/" in held] == []


def test_the_sample_is_read_by_numpy_and_holds_the_golden_logits_of_each_variant(
    pristine_bundle: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    with np.load(pristine_bundle / "sample.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"images", "logits", "decoded", "logits.fp32-onnxruntime"}
        np.testing.assert_array_equal(arrays["images"], images)
        np.testing.assert_array_equal(arrays["logits"], logits)
        assert arrays["logits.fp32-onnxruntime"].dtype == np.float32
        assert arrays["decoded"].shape == images[0].shape
        np.testing.assert_array_equal(
            arrays["decoded"], load_image(pristine_bundle / "sample.png", open_bundle(pristine_bundle).preprocessing)
        )


def test_arrays_are_stored_without_clock_and_system() -> None:
    arrays: Mapping[str, Any] = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3).T, "b": np.float32([1.5])}
    content = npz_bytes(arrays)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        facts = {(info.date_time, info.create_system, info.compress_type) for info in archive.infolist()}
    assert facts == {((1980, 1, 1, 0, 0, 0), 3, zipfile.ZIP_STORED)}
    with np.load(io.BytesIO(content)) as read:
        np.testing.assert_array_equal(read["a"], [[0, 3], [1, 4], [2, 5]])
        np.testing.assert_array_equal(read["b"], [1.5])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="this system has no sha256sum")
def test_coreutils_can_check_the_manifest(pristine_bundle: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=pristine_bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_opened_bundle_answers_as_the_reference(
    pristine_bundle: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    bundle = open_bundle(pristine_bundle)
    assert bundle.class_names[3] == "Kleid für Übermorgen" and len(bundle.class_names) == 6
    np.testing.assert_allclose(bundle.runner(threads=1).infer(images), logits, atol=1e-5)
    with Image.open(pristine_bundle / "sample.png") as picture:
        assert min(picture.size) > bundle.preprocessing.image_px, "a device with another filter would not be seen"
    golden = bundle.golden(bundle.variant())
    assert golden is not None and golden.shape == logits.shape
    assert bundle.digest == hashlib.sha256((pristine_bundle / "manifest.json").read_bytes()).hexdigest()


def test_variants_may_share_a_file(make_bundle: Make, make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path) -> None:
    openvino = make_variant("fp32-openvino", runtime="openvino", settings={"inference_precision": "f32"})
    variants = [BuiltVariant(make_variant(), onnx_path), BuiltVariant(openvino, onnx_path)]
    bundle = open_bundle(make_bundle(tmp_path / "bundle", variants=variants))
    assert [variant.name for variant in bundle.variants] == ["fp32-onnxruntime", "fp32-openvino"]
    assert [name for name in bundle.files if name.startswith("models/")] == ["models/fp32.onnx"]


def test_two_files_of_one_name_are_refused(
    make_bundle: Make, make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(b"another")
    variants = [BuiltVariant(make_variant(), onnx_path), BuiltVariant(make_variant("int8-onnxruntime"), other)]
    with pytest.raises(UserError, match=r"models/fp32.onnx: two variants mean different files by it"):
        make_bundle(tmp_path / "bundle", variants=variants)
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


@pytest.mark.parametrize("file", ["../model.onnx", "/tmp/model.onnx", "models/../../model.onnx"])
def test_a_model_that_would_lie_outside_is_refused(
    file: str, make_bundle: Make, make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="lies outside the bundle"):
        make_bundle(tmp_path / "bundle", variants=[BuiltVariant(make_variant(file=file), onnx_path)])


def test_a_failed_proof_is_written_and_fails_its_selftest_with_the_reason(make_bundle: Make, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", verdict="failed", reason="3 decisions flip")
    bundle, result = open_bundle(folder), run_selftest(folder, threads=1)
    assert (bundle.verdict, bundle.reason) == ("failed", "3 decisions flip")
    assert result.verdict == "failed" and "3 decisions flip" in result.reason
    assert "PROOF FAILED: do not use this bundle.** 3 decisions flip" in (folder / "README.md").read_text()


def test_a_failed_proof_without_a_reason_is_refused(make_bundle: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="verdict is failed and gives no reason"):
        make_bundle(tmp_path / "bundle", verdict="failed")


def test_a_passed_bundle_whose_default_did_not_pass_is_refused(
    make_bundle: Make, make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path
) -> None:
    unproven = make_variant(verdict="not_run", reason="there is no GPU")
    with pytest.raises(UserError, match="verdict is passed and that of its default fp32-onnxruntime is not_run"):
        make_bundle(tmp_path / "bundle", variants=[BuiltVariant(unproven, onnx_path)])


def test_a_bundle_that_fails_its_own_selftest_is_written_as_failed(
    make_bundle: Make, logits: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "bundle", expected_logits=logits + np.float32(0.5)))
    assert bundle.verdict == bundle.variant().verdict == "failed"
    assert bundle.variant().reason.startswith("fails its own self-test: a logit differs by 0.5")
    assert bundle.reason == f"fp32-onnxruntime {bundle.variant().reason}"


def test_another_variant_that_fails_its_selftest_fails_alone(
    make_bundle: Make, make_variant: Callable[..., Variant], onnx_path: Path, logits: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    wrong = BuiltVariant(make_variant("fp32-b"), onnx_path, logits - np.float32(0.5))  # its own golden logits are not those it gives
    bundle = open_bundle(make_bundle(tmp_path / "bundle", variants=[BuiltVariant(make_variant(), onnx_path, logits), wrong]))
    assert [(variant.name, variant.verdict) for variant in bundle.variants] == [("fp32-onnxruntime", "passed"), ("fp32-b", "failed")]
    assert "other answers than this variant gave at export" in bundle.variant("fp32-b").reason
    assert bundle.verdict == "passed"


def test_a_variant_that_its_runtime_refuses_is_written_as_failed(
    make_bundle: Make, make_variant: Callable[..., Variant], logits: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    bundle = open_bundle(make_bundle(tmp_path / "bundle", variants=[BuiltVariant(make_variant(), broken, logits)]))
    assert bundle.verdict == "failed" and "cannot load it" in bundle.reason
    assert str(tmp_path) not in bundle.reason


def test_sealing_again_takes_in_a_new_variant_and_removes_the_signature(
    bundle: Path, make_variant: Callable[..., Variant], manifest: dict[str, Any]
) -> None:
    (bundle / "manifest.sig").write_text("of what was there before")
    (bundle / "models" / "engine.bin").write_bytes(b"engine")
    settings = {"source": "models/fp32.onnx", "source_sha256": manifest["files"]["models/fp32.onnx"]["sha256"]}
    engine = make_variant(
        "fp32-tensorrt", file="models/engine.bin", runtime="tensorrt", settings=settings, verdict="not_run", reason="not run yet"
    )
    digest = seal(bundle, {**manifest, "variants": [*manifest["variants"], engine.to_dict()]})
    opened = open_bundle(bundle)
    assert opened.digest == digest and opened.variant("fp32-tensorrt").verdict == "not_run"
    assert not (bundle / "manifest.sig").exists() and "`fp32-tensorrt`" in (bundle / "README.md").read_text()
    assert "models/engine.bin" in (bundle / "sbom.cdx.json").read_text()


def test_a_stale_engine_is_not_sealed(bundle: Path, make_variant: Callable[..., Variant], manifest: dict[str, Any]) -> None:
    (bundle / "models" / "engine.bin").write_bytes(b"engine")
    settings = {"source": "models/fp32.onnx", "source_sha256": "0" * 64}
    engine = make_variant("fp32-tensorrt", file="models/engine.bin", runtime="tensorrt", settings=settings, verdict="not_run", reason="new")
    with pytest.raises(UserError, match=r"variant fp32-tensorrt: stale: was built from another models/fp32.onnx"):
        seal(bundle, {**manifest, "variants": [*manifest["variants"], engine.to_dict()]})


def test_a_folder_in_use_is_not_overwritten(make_bundle: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="exists and is not empty; give the bundle a folder of its own"):
        make_bundle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(make_bundle: Make, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    open_bundle(make_bundle(tmp_path / "bundle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_nothing_is_left_where_writing_stops_half_way(make_bundle: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("g2sd_export.bundle.writing._move_into_place", stop)
    with pytest.raises(OSError, match="the disk is full"):
        make_bundle(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", ["", " ", "two\nlines", "return\r"])
def test_a_class_name_that_does_not_fit_a_line_is_refused(label: str, make_bundle: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty or holds a line break"):
        make_bundle(tmp_path / "bundle", class_names=("a", "b", "c", "d", "e", label))


def test_a_sample_that_does_not_fit_the_classes_is_refused(make_bundle: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8 images, logits of shape \[8, 6\] and 2 class names"):
        make_bundle(tmp_path / "bundle", class_names=("a", "b"))


def test_golden_logits_that_do_not_fit_and_a_missing_file_are_refused(
    make_bundle: Make, make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"fp32-onnxruntime: its golden logits have shape \[2, 6\]; wanted \[8, 6\]"):
        make_bundle(tmp_path / "bundle", variants=[BuiltVariant(make_variant(), onnx_path, np.zeros((2, 6), np.float32))])
    with pytest.raises(UserError, match=r"absent.onnx: no such model file, for variant fp32-onnxruntime"):
        make_bundle(tmp_path / "bundle", variants=[BuiltVariant(make_variant(), tmp_path / "absent.onnx")])


def test_provenance_that_is_no_json_is_refused(make_bundle: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the bundle's facts are no JSON"):
        make_bundle(tmp_path / "bundle", provenance={"loss": float("nan")})


def test_writing_needs_neither_torch_nor_what_an_edge_device_lacks() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "pydantic", "jaxtyping", "rich"}
    code = f"import sys, g2sd_export.bundle; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
