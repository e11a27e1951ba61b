"""Every file that is changed, missing or not listed is named, whichever it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.bundle.verifying import verify
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.manifest import open_bundle

Forge = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def problems(folder: Path) -> set[tuple[str, str]]:
    return {(deviation.file, deviation.problem) for deviation in verify(folder).deviations}


def test_an_untouched_bundle_has_no_deviation(pristine_bundle: Path, manifest: dict[str, Any]) -> None:
    verified = verify(pristine_bundle)
    assert verified.deviations == () and verified.num_files == len(manifest["files"]) and not verified.signed
    assert verified.digest == open_bundle(pristine_bundle).digest


def test_one_flipped_bit_anywhere_is_noticed_by_name(bundle: Path) -> None:
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        content, name = path.read_bytes(), path.relative_to(bundle).as_posix()
        for place in (0, len(content) // 2, len(content) - 1) if content else ():
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            found = verify(bundle).deviations
            wanted = "manifest.json" if name == "manifest.sha256" else name  # which of the two was changed is not known
            assert found and (found[0].file, found[0].problem) == (wanted, "changed"), (name, place)
            if not name.startswith("manifest."):
                assert len(found) == 1, (name, place)
            if name != "manifest.sha256":  # of which a device reads the digest alone
                with pytest.raises(UserError):
                    open_bundle(bundle)
        path.write_bytes(content)
    assert verify(bundle).deviations == ()


def test_several_faults_are_all_named(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("other\n")
    (bundle / "models" / "fp32.onnx").write_bytes(b"")
    (bundle / "edge" / "runner.py").unlink()
    (bundle / "edge" / "numpy.py").write_text("import os")
    (bundle / "notes").mkdir()
    (bundle / "notes" / "mine.txt").write_text("hello")
    assert problems(bundle) == {
        ("labels.txt", "changed"),
        ("models/fp32.onnx", "changed"),
        ("edge/runner.py", "missing"),
        ("edge/numpy.py", "extra"),
        ("notes/mine.txt", "extra"),
    }


def test_a_changed_manifest_is_named_first_and_its_word_is_doubted(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"labels.txt": {\n      "sha256": "', '"labels.txt": {\n      "sha256": "0'))
    first, second = verify(bundle).deviations
    assert (first.file, first.problem) == ("manifest.json", "changed")
    assert second.file == "labels.txt" and second.detail.endswith("so says a manifest that is not the one that was written")


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_missing_half_of_the_manifest_is_named(name: str, bundle: Path) -> None:
    (bundle / name).unlink()
    assert (name, "missing") in problems(bundle)


def test_a_manifest_that_contradicts_itself_is_wrong_though_its_digest_fits(bundle: Path, forge: Forge) -> None:
    forge(bundle, lambda manifest: manifest.update(default="int8-openvino"))
    (deviation,) = verify(bundle).deviations
    assert (deviation.file, deviation.problem) == ("manifest.json", "wrong")
    assert deviation.detail == "default is 'int8-openvino'; wanted one of fp32-onnxruntime"


def test_a_manifest_without_files_or_that_is_no_json_is_wrong(bundle: Path, forge: Forge) -> None:
    forge(bundle, lambda manifest: manifest.update(files=[]))
    assert problems(bundle) == {("manifest.json", "wrong")}
    forge(bundle, lambda manifest: manifest.pop("files"))
    assert problems(bundle) == {("manifest.json", "wrong")}


def test_a_listed_file_outside_the_bundle_is_wrong(bundle: Path, forge: Forge) -> None:
    forge(bundle, lambda manifest: manifest["files"].update({"../secret": {"sha256": "0" * 64, "bytes": 1}}))
    assert ("../secret", "wrong") in problems(bundle)


def test_byte_code_of_python_is_reported_and_not_judged(bundle: Path) -> None:
    (bundle / "edge" / "__pycache__").mkdir()
    (bundle / "edge" / "__pycache__" / "runner.cpython-312.pyc").write_bytes(b"code")
    verified = verify(bundle)
    assert verified.deviations == () and verified.unchecked == ("edge/__pycache__/runner.cpython-312.pyc",)


def test_what_is_no_bundle_and_another_format_are_refused(bundle: Path, forge: Forge, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds neither manifest.json nor manifest.sha256, so it is no bundle"):
        verify(tmp_path / "nothing")
    forge(bundle, lambda manifest: manifest.update(format=1))
    with pytest.raises(UserError, match="has format 1; this program reads format 2") as refused:
        verify(bundle)
    assert not isinstance(refused.value, IntegrityError)
