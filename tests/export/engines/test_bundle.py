"""Engines that are built on the device into a bundle, and the command line that does it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export import tensorrt_bundle
from g2sd_export.__main__ import main
from g2sd_export.bundle import BuiltVariant, Variant
from g2sd_export.bundle.writing import seal
from g2sd_export.edge.errors import IntegrityError, UserError
from g2sd_export.edge.manifest import open_bundle
from g2sd_export.tensorrt_bundle import build_into
from g2sd_export.tensorrt_settings import EngineSettings

Settings = Callable[..., EngineSettings]
RTX = {
    "name": "rtx-30",
    "description": "A card.",
    "candidates": [{"runtime": "tensorrt_rtx", "precision": "fp16"}],
    "batch": {"least": 1, "best": 1, "most": 2},
    "engine": {"compute_capability": "SM86"},
}


@pytest.fixture
def waiting(make_bundle: Callable[..., Path], make_variant: Callable[..., Variant], graphs: dict[str, Path], tmp_path: Path) -> Path:
    """A bundle for a card that was not there at export: its FP16 variant waits for an engine."""
    settings = {"source": "models/fp16.onnx", "source_sha256": sha256(graphs["fp16"])}
    entry = make_variant(
        "fp16-tensorrt_rtx",
        file="models/fp16.onnx",
        precision="fp16",
        runtime="tensorrt_rtx",
        settings=settings,
        verdict="not_run",
        reason="no GPU at export",
        device_tolerance=None,
    )
    variants = [BuiltVariant(make_variant(), graphs["fp32"]), BuiltVariant(entry, graphs["fp16"])]
    return make_bundle(tmp_path / "bundle", variants=variants, target=RTX)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_engine_takes_the_place_of_the_variant_that_waits_for_it(waiting: Path, rtx: Settings) -> None:
    (waiting / "manifest.sig").write_text("signed")
    (built,) = build_into(waiting, rtx(), default="fp16-tensorrt_rtx")
    bundle = open_bundle(waiting)
    variant = bundle.variant()
    assert (variant.name, variant.file, variant.verdict) == ("fp16-tensorrt_rtx", "models/fp16-tensorrt_rtx.engine", "not_run")
    assert "selftest --variant fp16-tensorrt_rtx" in variant.reason
    assert (bundle.verdict, bundle.reason) == ("not_run", f"fp16-tensorrt_rtx: {variant.reason}")  # no longer what was proven
    assert variant.settings["source_sha256"] == bundle.files["models/fp16.onnx"].sha256
    assert (variant.settings["compute_capability"], variant.settings["layers"]["ran"]) == ("SM86", {"fp16": 15})
    assert built.info.path == waiting / variant.file
    assert bundle.files[variant.file].sha256 == built.info.sha256 == sha256(built.info.path)
    layers = json.loads((waiting / f"{variant.file}.json").read_text())["layers"]
    assert len(layers) == built.info.layers.summary()["num_layers"] > 0
    assert not (waiting / "manifest.sig").exists()  # it signed another manifest
    assert [path.name for path in waiting.parent.iterdir()] == ["bundle"]


def test_a_bundle_with_its_engines_may_be_a_new_folder(waiting: Path, rtx: Settings, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in waiting.rglob("*") if path.is_file()}
    build_into(waiting, rtx(), out=tmp_path / "with engines")
    assert {path: path.read_bytes() for path in waiting.rglob("*") if path.is_file()} == before
    assert open_bundle(tmp_path / "with engines").variant("fp16-tensorrt_rtx").settings["version"]
    with pytest.raises(UserError, match="exists and is not empty"):
        build_into(waiting, rtx(), out=tmp_path / "with engines")


def test_any_variant_may_become_an_engine_and_be_built_again(bundle: Path, rtx: Settings) -> None:
    build_into(bundle, rtx(), variants=["fp32-onnxruntime"])
    assert [variant.name for variant in open_bundle(bundle).variants] == ["fp32-onnxruntime", "fp32-tensorrt_rtx"]
    build_into(bundle, rtx("SM120"))
    read = open_bundle(bundle)
    assert [variant.name for variant in read.variants] == ["fp32-onnxruntime", "fp32-tensorrt_rtx"]
    assert read.variant("fp32-tensorrt_rtx").settings["compute_capability"] == "SM120"
    assert (read.default, read.verdict) == ("fp32-onnxruntime", "passed")


def test_an_engine_of_another_name_is_replaced_and_removed(bundle: Path, rtx: Settings) -> None:
    build_into(bundle, rtx(), variants=["fp32-onnxruntime"])
    values = json.loads((bundle / "manifest.json").read_text())
    for end in ("", ".json"):
        (bundle / f"models/fp32-tensorrt_rtx.engine{end}").rename(bundle / f"models/old.engine{end}")
    values["variants"][1]["file"] = "models/old.engine"
    seal(bundle, values)
    build_into(bundle, rtx())
    assert sorted(path.name for path in (bundle / "models").iterdir()) == [
        "fp32-tensorrt_rtx.engine",
        "fp32-tensorrt_rtx.engine.json",
        "fp32.onnx",
    ]


def test_an_engine_of_another_student_is_stale(waiting: Path, rtx: Settings, graphs: dict[str, Path]) -> None:
    build_into(waiting, rtx())
    shutil.copyfile(graphs["int8"], waiting / "models/fp16.onnx")
    with pytest.raises(UserError, match="fp16-tensorrt_rtx: stale"):
        seal(waiting, json.loads((waiting / "manifest.json").read_text()))


def test_a_build_that_fails_leaves_the_bundle_as_it_was(waiting: Path, rtx: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in waiting.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="workspace"):
        build_into(waiting, rtx(workspace_mib=1))
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(39, "Directory not empty")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError, match="cannot be replaced"):
        build_into(waiting, rtx())
    assert {path: path.read_bytes() for path in waiting.parent.rglob("*") if path.is_file()} == before


def test_what_the_bundle_does_not_have_is_told(bundle: Path, rtx: Settings) -> None:
    with pytest.raises(UserError, match=r"no variant .* is meant for tensorrt_rtx; name one .*--variant: fp32-onnxruntime"):
        build_into(bundle, rtx())
    with pytest.raises(UserError, match=r"has no variant 'fp16'; it has fp32-onnxruntime"):
        build_into(bundle, rtx(), variants=["fp16"])
    with pytest.raises(UserError, match=r"names no ONNX file to build an engine from; it has models/one\.engine"):
        tensorrt_bundle.source_of({"name": "one", "file": "models/one.engine", "settings": {}})
    (bundle / "models/fp32.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"fp32\.onnx"):
        build_into(bundle, rtx(), variants=["fp32-onnxruntime"])


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    told = capsys.readouterr()
    return status, told.out, told.err


def test_a_bundle_is_built_by_its_own_target(waiting: Path, rtx: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    rtx()
    status, out, _ = run(capsys, "build", waiting, "--default", "fp16-tensorrt_rtx", "--layers", waiting.parent / "layers.json")
    assert status == 0
    assert "fp16-tensorrt_rtx, from models/fp16.onnx" in out
    assert "matrix products and convolutions: 15 in fp16 (by the " in out
    assert "python -m edge selftest --variant fp16-tensorrt_rtx" in out
    variant = open_bundle(waiting).variant()
    assert (variant.settings["batches"], variant.settings["compute_capability"]) == ([[1, 1, 2]], "SM86")
    assert "layers" in json.loads((waiting.parent / "layers.json").read_text())["fp16-tensorrt_rtx"]


def test_the_command_line_takes_the_place_of_the_target(
    waiting: Path, rtx: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rtx()
    (tmp_path / "target.json").write_text(json.dumps(RTX | {"engine": {"compute_capability": "SM120"}}))
    options = ["--target-json", tmp_path / "target.json", "--batch", 1, 2, 3, "--batch", 8, 8, 8, "--tf32", "--json"]
    status, out, _ = run(capsys, "build", waiting, *options)
    (engine,) = json.loads(out)["engines"]
    assert (status, engine["variant"], engine["source"]) == (0, "fp16-tensorrt_rtx", "models/fp16.onnx")
    assert (engine["batches"], engine["tf32"], engine["compute_capability"]) == ([[1, 2, 3], [8, 8, 8]], True, "SM120")
    status, out, _ = run(capsys, "build", waiting, "--compute-capability", "8.9", "--compute-capability", "sm86", "--json")
    assert json.loads(out)["engines"][0]["compute_capability"] == "SM89, SM86"


def test_layers_that_fell_back_are_named_to_the_user(
    graphs: dict[str, Path], rtx: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rtx()
    status, out, _ = run(capsys, "build", graphs["weights"], "--runtime", "tensorrt_rtx", "--out", tmp_path / "one")
    assert status == 0
    assert out.count("fell back: node_") == 10
    assert "(int8 asked, fp16 and int8 read)" in out
    assert "for      every architecture of the package, tensorrt_rtx" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build"], "the following arguments are required: BUNDLE_OR_ONNX"),
        (["build", "absent.onnx"], "absent.onnx is no bundle's folder; name the engine with --out"),
        (["build", "absent.onnx", "--out", "x", "--compute-capability", "volta"], "wanted one as 8.6 or SM86"),
        (["build", "absent.onnx", "--out", "x", "--batch", "4", "2", "1"], "ascending from 1"),
        (["build", "absent.onnx", "--out", "x", "--target-json", "absent.json"], "absent.json: cannot be read as JSON"),
        (["build", "."], "manifest.json: missing, so this is no bundle"),
        (["refit", "absent.engine", "absent.onnx", "--out", "x"], "absent.onnx: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("g2sd_export") and message in err


@pytest.mark.gpu
@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_an_engine_that_was_built_into_a_bundle_passes_its_selftest(
    package: Any, bundle: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], gpu: None
) -> None:
    from g2sd_export.edge.selftest import run_selftest

    pytest.importorskip(package, reason=f"{package} is not installed")
    build_into(bundle, EngineSettings(package), variants=["fp32-onnxruntime"], default=f"fp32-{package}")
    assert run_selftest(bundle).verdict == "passed"
    np.testing.assert_allclose(open_bundle(bundle).runner().infer(images), logits, atol=1e-3)
