"""Two bundles are compared by what they say, and every difference is named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.bundle import BuiltVariant, Variant
from g2sd_export.bundle.diffing import diff_bundles
from g2sd_export.edge.errors import IntegrityError
from g2sd_export.edge.preprocess import Preprocessing

CLASS_NAMES = ("T-shirt", "Trouser", "Pullover", "Kleid für Übermorgen", "Coat", "Sandal")


def found(left: Path, right: Path) -> dict[tuple[str, str], tuple[str, str]]:
    return {(one.section, one.what): (one.left, one.right) for one in diff_bundles(left, right)}


def test_a_copy_does_not_differ(pristine_bundle: Path, bundle: Path) -> None:
    assert diff_bundles(pristine_bundle, bundle) == []


def test_other_numbers_verdicts_and_variants_are_named_by_their_paths(
    pristine_bundle: Path, make_bundle: Callable[..., Path], make_variant: Callable[..., Variant], onnx_path: Path, tmp_path: Path
) -> None:
    hop: dict[str, Any] = {**make_variant().hops[0], "flipped": 2, "top1_candidate": 0.8}
    slower = make_variant(hops=(hop,), verdict="not_run", reason="no runtime", latency={"p50_ms": 3.5})
    more = make_variant("fp32-openvino", runtime="openvino", settings={"inference_precision": "f32"})
    variants = [BuiltVariant(slower, onnx_path), BuiltVariant(more, onnx_path)]
    differences = found(pristine_bundle, make_bundle(tmp_path / "b", variants=variants, verdict="not_run", reason="no runtime"))
    own = "variants.fp32-onnxruntime"
    assert differences["variants", f"{own}.verdict"] == ("passed", "not_run")
    assert differences["variants", f"{own}.hops.torch to fp32.flipped"] == ("0", "2")
    assert differences["variants", f"{own}.hops.torch to fp32.top1_candidate"] == ("0.81", "0.8")
    assert differences["variants", f"{own}.latency.p50_ms"] == ("(absent)", "3.5")
    assert differences["variants", "variants.fp32-openvino.runtime"] == ("(absent)", "openvino")
    assert differences["other", "verdict"] == ("passed", "not_run")
    assert {what for section, what in differences if section == "files"} == {"README.md", "sample.npz", "sbom.cdx.json"}
    assert ("variants", f"{own}.hops.torch to fp32.top1_reference") not in differences


def test_another_preparation_is_named(pristine_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    pre = Preprocessing(image_px=28, resize_px=28, num_channels=1, mean=(0.286,), std=(0.354,))
    differences = found(pristine_bundle, make_bundle(tmp_path / "b", preprocessing=pre))
    assert {what: values for (section, what), values in differences.items() if section == "preprocessing"} == {
        "preprocessing.std": ("[0.353]", "[0.354]")
    }


def test_classes_that_were_renamed_added_or_put_in_another_order_are_told_apart(
    pristine_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    renamed = (*CLASS_NAMES[:5], "Shoe")
    assert found(pristine_bundle, make_bundle(tmp_path / "b", class_names=renamed))["classes", "5"] == ("Sandal", "Shoe")
    swapped = (CLASS_NAMES[1], CLASS_NAMES[0], *CLASS_NAMES[2:])
    differences = found(pristine_bundle, make_bundle(tmp_path / "c", class_names=swapped))
    assert differences["classes", "order, 2 of 6 moved"] == ("T-shirt", "Trouser")


def test_files_are_named_with_size_and_digest(pristine_bundle: Path, make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    left, right = found(pristine_bundle, make_bundle(tmp_path / "b", name="other"))["files", "README.md"]
    assert left != right and " bytes, " in left
    assert found(pristine_bundle, tmp_path / "b")["other", "name"] == ("tiny", "other")


def test_an_order_that_changed_is_told_where_nothing_else_did(pristine_bundle: Path, bundle: Path, forge: Any) -> None:
    forge(bundle, lambda manifest: manifest.update(verdict=manifest.pop("verdict")))
    assert [what for _, what in found(pristine_bundle, bundle)] == ["order of the manifest's entries"]


def test_a_damaged_bundle_is_refused(pristine_bundle: Path, bundle: Path, tmp_path: Path) -> None:
    (bundle / "labels.txt").write_text("x\n")
    for left, right in ((pristine_bundle, bundle), (bundle, pristine_bundle)):
        with pytest.raises(IntegrityError, match=r"labels.txt: holds 2 bytes"):
            diff_bundles(left, right)
    shutil.rmtree(bundle)
    with pytest.raises(IntegrityError, match="so this is no bundle"):
        diff_bundles(pristine_bundle, bundle)
