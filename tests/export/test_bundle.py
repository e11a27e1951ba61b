"""A bundle is written whole, proven before it appears, and any change to it is seen."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import g2sd_export.edge
from g2sd_export.bundle import open_bundle
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.preprocess import Preprocessing, load_image

TOP_LEVEL = {"README.md", "edge", "labels.txt", "manifest.json", "manifest.sha256", "model.onnx", "sample.npz", "sample.png"}


def forge_manifest(folder: Path, **changes: object) -> None:
    """Change the manifest and its digest, as a faulty tool would."""
    content = json.dumps(json.loads((folder / "manifest.json").read_text()) | changes).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


def test_it_holds_the_promised_files_and_lists_every_one(pristine_bundle: Path) -> None:
    assert {path.name for path in pristine_bundle.iterdir()} == TOP_LEVEL
    manifest = json.loads((pristine_bundle / "manifest.json").read_text())
    present = {path.relative_to(pristine_bundle).as_posix() for path in pristine_bundle.rglob("*") if path.is_file()}
    assert present == set(manifest["files"]) | {"manifest.json", "manifest.sha256"}
    for name, record in manifest["files"].items():
        content = (pristine_bundle / name).read_bytes()
        assert record == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_edge_folder_is_the_package_unchanged(pristine_bundle: Path) -> None:
    source = Path(g2sd_export.edge.__file__).parent
    sources = {path.name: path.read_bytes() for path in source.glob("*.py")}
    assert {path.name: path.read_bytes() for path in (pristine_bundle / "edge").iterdir()} == sources
    assert "__main__.py" in sources


def test_the_manifest_states_input_output_and_provenance(pristine_bundle: Path, preprocessing: Preprocessing) -> None:
    manifest = json.loads((pristine_bundle / "manifest.json").read_text())
    assert (manifest["format"], manifest["name"], manifest["provenance"]) == (1, "tiny", {"recipe": "tiny"})
    assert manifest["input"] == {"name": "images", "dtype": "float32", "shape": ["batch", 1, 28, 28]}
    assert manifest["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 6]}
    assert manifest["preprocessing"] == preprocessing.to_dict()


def test_the_same_model_gives_the_same_bundle(pristine_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    assert open_bundle(make_bundle(tmp_path / "again")).digest == open_bundle(pristine_bundle).digest


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
    sample = bundle.sample()
    np.testing.assert_array_equal(sample.images, images)
    np.testing.assert_array_equal(sample.logits, logits)
    np.testing.assert_array_equal(load_image(pristine_bundle / "sample.png", bundle.preprocessing), images[0])
    assert bundle.digest == hashlib.sha256((pristine_bundle / "manifest.json").read_bytes()).hexdigest()


def test_one_flipped_byte_of_any_file_is_noticed_by_name(bundle: Path) -> None:
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if not content:
            continue
        path.write_bytes(
            content[:-1] + bytes([content[-1] ^ 1]) if path.name != "manifest.sha256" else bytes([content[0] ^ 1]) + content[1:]
        )
        with pytest.raises(IntegrityError, match=f"{path.name}.* (was changed|does not match)"):
            open_bundle(bundle)
        path.write_bytes(content)
    open_bundle(bundle)


def test_a_truncated_file_is_noticed_by_name(bundle: Path) -> None:
    model = bundle / "model.onnx"
    size = model.stat().st_size
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(IntegrityError, match=f"model.onnx: holds 1000 bytes, the manifest says {size}; copy or download the bundle again"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "sample.npz", "edge/runner.py", "manifest.json"])
def test_a_missing_file_is_noticed_by_name(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}: missing"):
        open_bundle(bundle)


def test_a_model_changed_after_the_check_is_not_loaded(bundle: Path) -> None:
    opened = open_bundle(bundle)
    (bundle / "model.onnx").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"model.onnx: holds 14 bytes"):
        opened.runner()


def test_a_manifest_that_points_outside_the_bundle_is_refused(bundle: Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    for name in ("../secret", "/etc/passwd", "a/../../b", "C:secret", "..\\secret"):
        forge_manifest(bundle, files=files | {name: {"sha256": "0" * 64, "bytes": 1}})
        with pytest.raises(IntegrityError, match="outside the bundle"):
            open_bundle(bundle)


def test_a_manifest_that_does_not_list_the_model_is_refused(bundle: Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    del files["model.onnx"]
    forge_manifest(bundle, files=files)
    with pytest.raises(IntegrityError, match=r"does not list model.onnx"):
        open_bundle(bundle)


def test_another_format_is_refused_with_advice(bundle: Path) -> None:
    forge_manifest(bundle, format=2)
    with pytest.raises(UserError, match="has format 2; this program reads format 1; use the edge folder that came with the bundle"):
        open_bundle(bundle)


def test_labels_that_do_not_fit_the_model_are_refused(bundle: Path) -> None:
    labels = b"one\ntwo\n"
    (bundle / "labels.txt").write_bytes(labels)
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    forge_manifest(bundle, files=files | {"labels.txt": {"sha256": hashlib.sha256(labels).hexdigest(), "bytes": len(labels)}})
    with pytest.raises(IntegrityError, match=r"model.onnx gives 6 logits and labels.txt names 2 classes"):
        open_bundle(bundle).runner()


def test_a_folder_in_use_is_not_overwritten(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="exists and is not empty; give the bundle a folder of its own"):
        make_bundle(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    open_bundle(make_bundle(tmp_path / "bundle"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_fails_its_own_selftest_is_not_written(
    make_bundle: Callable[..., Path], logits: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"fails its own self-test, so it is not written: a logit differs by 0.5"):
        make_bundle(tmp_path / "bundle", expected_logits=logits + np.float32(0.5))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_parity_writes_no_bundle(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="parity failed, so no bundle is written: 3 decisions flip"):
        make_bundle(tmp_path / "bundle", parity={"verdict": "failed", "reason": "3 decisions flip", "num_images": 9})


def test_a_parity_that_was_not_run_is_stated_in_the_readme(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", parity={"verdict": "not_run", "reason": "no test set", "num_images": 0})
    assert "| parity at export | not_run: no test set |" in (folder / "README.md").read_text()


@pytest.mark.parametrize("label", ["", " ", "two\nlines", "return\r"])
def test_a_class_name_that_does_not_fit_a_line_is_refused(label: str, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty or holds a line break"):
        make_bundle(tmp_path / "bundle", class_names=("a", "b", "c", "d", "e", label))


def test_a_sample_that_does_not_fit_the_classes_is_refused(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"8 images, logits of shape \[8, 6\] and 2 class names"):
        make_bundle(tmp_path / "bundle", class_names=("a", "b"))
