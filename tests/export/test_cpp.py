"""The C++ runner: built here, and compared with the Python package on the same bundles."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from g2sd_export.bundle import BuiltVariant
from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.bench import BenchSettings, run_bench
from g2sd_export.edge.manifest import Variant, open_bundle
from g2sd_export.edge.measuring import MeasureSettings
from g2sd_export.edge.predict import predict_image
from g2sd_export.edge.preprocess import Preprocessing, load_image
from g2sd_export.edge.selftest import run_selftest

SOURCE = Path(__file__).parents[2] / "export" / "cpp"
SIDE = 8
SCALE = 64  # of the pixels' logits: a softmax of 0 to 255 would leave nothing of the small ones

Program = Callable[..., "subprocess.CompletedProcess[str]"]
Pixels = npt.NDArray[np.uint8]


def _missing() -> str:
    """What a build needs and this machine lacks."""
    if importlib.util.find_spec("openvino") is None:
        return "the Python package openvino, whose headers and libraries are used, is not installed"
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    found = subprocess.run(["g++", "-E", "-x", "c++", "-"], input="#include <zlib.h>", capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else "the header zlib.h is not installed"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Builds the runner once, warnings being errors, and runs it."""
    if reason := _missing():
        pytest.skip(reason)
    build = tmp_path_factory.mktemp("cpp")
    for command in (
        ["-S", f"{SOURCE}", "-B", f"{build}", f"-DPython3_EXECUTABLE={sys.executable}"],
        ["--build", f"{build}", "--parallel", "2"],
    ):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([build / "g2sd-runner", *map(str, words)], capture_output=True, encoding="utf-8", check=False, timeout=120)

    return run


@pytest.fixture(scope="session")
def openvino_bundle(
    make_bundle: Callable[..., Path],
    make_variant: Callable[..., Variant],
    onnx_path: Path,
    preprocessing: Preprocessing,
    logits: npt.NDArray[np.float32],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model: raw pixels (the default) and float images on OpenVINO, raw pixels on ONNX Runtime; not to be changed."""
    folder = tmp_path_factory.mktemp("openvino")
    pixels = deployable_onnx(onnx_path, preprocessing, path=folder / "pixels.onnx").path
    raw = {"file": "models/pixels.onnx", "input": {"name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", 28, 28, 1]}}
    openvino = {"runtime": "openvino", "settings": {"inference_precision": "f32"}}
    variants = [
        BuiltVariant(make_variant("fp32-openvino", **raw, **openvino), pixels, logits),
        BuiltVariant(make_variant("fp32-openvino-float", **openvino), onnx_path, logits),
        BuiltVariant(make_variant("fp32-onnxruntime", **raw), pixels, logits),
    ]
    return make_bundle(folder / "bundle", variants=variants, default="fp32-openvino")


@pytest.fixture
def damaged(openvino_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that the test may change."""
    return Path(shutil.copytree(openvino_bundle, tmp_path / "bundle"))


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, as somebody would who also corrects its digest."""
    facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(facts)
    write_manifest(folder, json.dumps(facts))


def write_manifest(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


@pytest.mark.parametrize("variant", ["fp32-openvino", "fp32-openvino-float"])
def test_the_selftest_says_what_pythons_says(program: Program, openvino_bundle: Path, variant: str) -> None:
    done = program("selftest", openvino_bundle, "--variant", variant, "--threads", 1, "--json")
    mine, wanted = json.loads(done.stdout), run_selftest(openvino_bundle, threads=1, variant=variant).to_dict()
    assert done.returncode == 0 and mine["verdict"] == wanted["verdict"] == "passed"
    for key in ("agreement", "device_agreement"):
        assert mine.pop(key) == pytest.approx(wanted.pop(key), abs=1e-6)
    assert mine == wanted


def test_numbers_of_disagreement_are_pythons(program: Program, damaged: Path) -> None:
    arrays = dict(np.load(damaged / "sample.npz"))
    arrays["logits"] = arrays["logits"][:, ::-1].copy()  # the classes in another order: flips, a wide KL, small cosines
    np.savez_compressed(damaged / "sample.npz", **arrays)
    content = (damaged / "sample.npz").read_bytes()

    def change(facts: dict[str, Any]) -> None:
        facts["files"]["sample.npz"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        facts["variants"][0]["tolerance"] = {"max_abs_logit_diff": 0.01, "flipped_share": 0, "min_cosine": 0.999, "max_mean_kl": 1e-4}

    reseal(damaged, change)
    done = program("selftest", damaged, "--json")
    mine, wanted = json.loads(done.stdout), run_selftest(damaged, threads=1).to_dict()
    assert done.returncode == 1 and mine["verdict"] == "failed"
    assert mine["agreement"] == pytest.approx(wanted["agreement"], rel=1e-4)
    assert mine["reason"] == wanted["reason"] and mine["reason"].count(";") == 3


def test_bench_names_its_figures_as_pythons_does(program: Program, openvino_bundle: Path) -> None:
    done = program("bench", openvino_bundle, "--threads", 1, "--batch", 3, "--warmup", 1, "--repeats", 7, "--json")
    mine = json.loads(done.stdout)
    bundle = open_bundle(openvino_bundle)
    settings = BenchSettings(batches=(3,), threads=(1,), measuring=MeasureSettings(percentile=50, seconds=0.1))
    row = run_bench(bundle, settings, variants=[bundle.variants[0].name])["rows"][0]
    assert mine["bundle"] == row["digest"] and [item["variant"] for item in mine["results"]] == [item.name for item in bundle.variants]
    timed, other = mine["results"][0], mine["results"][2]
    assert set(timed) <= set(row) and timed["num_samples"] == 7 and timed["batch"] == row["batch"] == 3
    assert timed["min_ms"] <= timed["p50_ms"] <= timed["p90_ms"] <= timed["p99_ms"]
    assert timed["images_per_s"] == pytest.approx(3000 / timed["mean_ms"])
    assert "runs on onnxruntime, and this program was built for openvino" in other["reason"]


def test_predictions_are_pythons(program: Program, openvino_bundle: Path) -> None:
    image = openvino_bundle / "sample.png"
    done = program("predict", openvino_bundle, image, "--top-k", 3, "--json")
    wanted = [item.to_dict() for item in predict_image(openvino_bundle, image, top_k=3, threads=1)]
    found = json.loads(done.stdout)
    assert found["image"] == str(image)
    columns = [[item[key] for item in answer] for key in ("name", "probability") for answer in (found["predictions"], wanted)]
    assert columns[0] == columns[1] and columns[2] == pytest.approx(columns[3], abs=1e-6)


def test_an_image_that_cannot_be_read_does_not_stop_the_others(program: Program, openvino_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    done = program("predict", openvino_bundle, tmp_path / "text.png", openvino_bundle / "sample.png")
    assert done.returncode == 1 and "text.png: is no PNG, PGM or PPM" in done.stderr
    assert "Kleid für Übermorgen" in done.stdout


def _changed(folder: Path) -> str:
    path = folder / "models" / "pixels.onnx"
    path.write_bytes(path.read_bytes().replace(b"\0", b"\1", 1))
    return "models/pixels.onnx: was changed"


def _truncated(folder: Path) -> str:
    path = folder / "models" / "fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    return "models/fp32.onnx: holds"


def _replaced(folder: Path) -> str:
    (folder / "edge" / "files.py").rename(folder / "edge" / "a.py")
    return "edge/a.py: is not listed in the manifest, so nobody tested it; remove it (and 1 more: edge/files.py)"


def _manifest(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    return "does not match manifest.sha256"


@pytest.mark.parametrize("damage", [_changed, _truncated, _replaced, _manifest])
def test_a_damaged_bundle_fails_and_the_file_is_named(program: Program, damaged: Path, damage: Callable[[Path], str]) -> None:
    wanted = damage(damaged)
    done = program("selftest", damaged, "--json")
    assert done.returncode == 1 and wanted in json.loads(done.stdout)["reason"]
    assert run_selftest(damaged, threads=1).verdict == "failed"
    refused = program("predict", damaged, damaged / "sample.png")
    assert refused.returncode == 2 and wanted in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (lambda facts: facts.update(format=1), 2, "has format 1; this program reads format 2"),
        (lambda facts: facts.pop("default"), 1, "it lacks default"),
        (
            lambda facts: facts["variants"][0].update(verdict="failed", reason="0.9 points lost"),
            1,
            "failed its proof at export: 0.9 points lost",
        ),
        (lambda facts: facts.update(verdict="failed", reason="nothing passed"), 1, "the bundle failed its proof at export: nothing passed"),
        (lambda facts: facts["variants"][0].update(settings={"inference_precision": "f16"}), 2, "must be f32 or bf16"),
        (lambda facts: facts["variants"][0].update(settings={}), 2, "wanted inference_precision"),
        (lambda facts: facts["variants"][0]["input"].update(dtype="float32"), 1, "input is not the one that the manifest describes"),
        (lambda facts: facts["variants"][0]["tolerance"].update(max_abs_logit_dif=9), 1, "unknown key max_abs_logit_dif"),
        (lambda facts: facts["variants"][0]["settings"].update(source="models/fp32.onnx", source_sha256="0" * 64), 1, "stale"),
        (lambda facts: facts["variants"].append(facts["variants"][0]), 1, "two variants are called fp32-openvino"),
        (lambda facts: facts["files"].update({"../other": {"sha256": "0" * 64, "bytes": 1}}), 1, "lies outside the bundle"),
    ],
)
def test_a_manifest_that_cannot_be_trusted_is_refused(
    program: Program, damaged: Path, change: Callable[[dict[str, Any]], object], status: int, reason: str
) -> None:
    reseal(damaged, change)
    done = program("selftest", damaged)
    assert (done.returncode, reason in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"format": 2', '"format": 2, "format": 2', "format comes twice"),
        ('"format": 2', '"format": 02', "wanted"),
        ('"format": 2', '"format": NaN', "wanted"),
        ('"name": "tiny"', '"name": "\\ud800"', "surrogate"),
        ('"name": "tiny"', '"name": "tiny",', "wanted"),
        ('"name": "tiny"', '"name": ' + "[" * 5000, "fewer values inside each other"),
    ],
)
def test_a_manifest_that_is_no_strict_json_is_refused(program: Program, damaged: Path, old: str, new: str, reason: str) -> None:
    text = (damaged / "manifest.json").read_text(encoding="utf-8")
    assert old in text
    write_manifest(damaged, text.replace(old, new, 1))
    done = program("selftest", damaged)
    assert done.returncode == 1 and "no JSON at byte" in done.stdout and reason in done.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("fly",), "no such command"),
        (("selftest",), "which bundle?"),
        (("selftest", ".", "--fast"), "--fast: no such option"),
        (("bench", ".", "--threads", "0"), "--threads is 0"),
        (("bench", ".", "--batch"), "lacks its value"),
        (("predict", ".", "x.raw", "--size", "640"), "WIDTHxHEIGHT"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_and_status_2(program: Program, words: tuple[str, ...], reason: str) -> None:
    done = program(*words)
    assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1


def _pixel_model(path: Path, channels: int) -> Path:
    """Logits that are the pixels, divided by SCALE, after one that is 0: what the network would see comes out."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], axis=1),
        helper.make_node("Div", ["flat", "scale"], ["scaled"]),
        helper.make_node("Pad", ["scaled", "pads"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.array(SCALE, np.float32), "scale"), numpy_helper.from_array(np.array([0, 1, 0, 0]), "pads")]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, channels])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1 + SIDE * SIDE * channels])
    graph = helper.make_graph(nodes, "pixels", [image], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def see(
    program: Program, make_bundle: Callable[..., Path], make_variant: Callable[..., Variant], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Pixels, Pixels]]:
    """What the C++ runner and the Python package make of an image file: the pixels that the network gets."""
    bundles: dict[Preprocessing, Path] = {}

    def bundle_for(pre: Preprocessing) -> Path:
        if pre not in bundles:
            folder = tmp_path_factory.mktemp("pixels")
            count = 1 + SIDE * SIDE * pre.num_channels
            images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, pre.num_channels), dtype=np.uint8)
            logits = np.pad((images.reshape(2, -1) / SCALE).astype(np.float32), ((0, 0), (1, 0)))
            variant = make_variant(
                "fp32-openvino",
                runtime="openvino",
                settings={"inference_precision": "f32"},
                input={"name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", SIDE, SIDE, pre.num_channels]},
                output={"name": "logits", "dtype": "float32", "shape": ["batch", count]},
            )
            bundles[pre] = make_bundle(
                folder / "bundle",
                variants=[BuiltVariant(variant, _pixel_model(folder / "pixels.onnx", pre.num_channels), logits)],
                default="fp32-openvino",
                preprocessing=pre,
                class_names=[f"p{index}" for index in range(count)],
                sample_images=images,
                expected_logits=logits,
            )
        return bundles[pre]

    def look(path: Path, *words: object, channels: int = 3, resize_px: int = SIDE, interpolation: str = "bicubic") -> tuple[Pixels, Pixels]:
        values = {"mean": [0.5] * channels, "std": [0.5] * channels, "num_channels": channels, "image_px": SIDE}
        pre = Preprocessing.from_dict({**values, "resize_px": resize_px, "interpolation": interpolation})
        done = program("predict", bundle_for(pre), path, "--top-k", 10_000, "--json", *words)
        assert done.returncode == 0, done.stderr + done.stdout
        logs = {item["index"]: math.log(item["probability"]) for item in json.loads(done.stdout)["predictions"]}
        pixels = np.array([SCALE * (logs[index] - logs[0]) for index in range(1, len(logs))])
        assert np.abs(pixels - np.rint(pixels)).max() < 0.01
        shape = (SIDE, SIDE, channels)
        return np.rint(pixels).astype(np.uint8).reshape(shape), load_image(path, pre) if not words else np.zeros(shape, np.uint8)

    return look


def _photo(width: int, height: int, channels: int = 4) -> Pixels:
    """Noise on a gradient: sharp edges make the filter overshoot, which must be clipped."""
    rng = np.random.default_rng(width * 1000 + height)
    ramp = np.linspace(0, 255, width)[None, :, None] + np.zeros((height, 1, channels))
    return (ramp * 0.5 + rng.integers(0, 2, (height, width, channels)) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_png_becomes_pythons_pixels(
    see: Callable[..., tuple[Pixels, Pixels]], tmp_path: Path, mode: str, channels: int
) -> None:
    photo = Image.fromarray(_photo(23, 17))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (17, 23), dtype=np.uint16))
    else:
        image = photo.convert("RGB").convert(mode) if mode == "P" else photo.convert(mode)
    image.save(tmp_path / "image.png")
    mine, wanted = see(tmp_path / "image.png", channels=channels)
    np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(8, 8), (8, 31), (9, 8), (64, 48), (300, 111), (5, 7), (3, 8), (101, 100)])
def test_every_size_is_resized_and_cropped_to_pythons_pixels(
    see: Callable[..., tuple[Pixels, Pixels]], tmp_path: Path, size: tuple[int, int], interpolation: str
) -> None:
    Image.fromarray(_photo(*size, channels=3)).save(tmp_path / "image.png")
    mine, wanted = see(tmp_path / "image.png", interpolation=interpolation, resize_px=11)
    np.testing.assert_array_equal(mine, wanted)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _interlaced(path: Path, pixels: Pixels) -> Path:
    """A PNG in Adam7's order, which Pillow reads and does not write; every other row goes through the Sub filter."""
    height, width, _ = pixels.shape
    data = b""
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = pixels[y::dy, x::dx]
        for index, row in enumerate(part if part.size else ()):
            left = np.pad(row, ((1, 0), (0, 0)))[:-1]
            data += bytes([index % 2]) + ((row - left) if index % 2 else row).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("size", [(8, 8), (13, 9), (3, 2)])
def test_an_interlaced_png_becomes_pythons_pixels(see: Callable[..., tuple[Pixels, Pixels]], tmp_path: Path, size: tuple[int, int]) -> None:
    path = _interlaced(tmp_path / "image.png", _photo(*size, channels=3))
    mine, wanted = see(path)
    np.testing.assert_array_equal(mine, wanted)


def test_ppm_and_raw_pixels_are_read(see: Callable[..., tuple[Pixels, Pixels]], tmp_path: Path) -> None:
    photo = _photo(20, 12, channels=3)
    Image.fromarray(photo).save(tmp_path / "image.ppm")
    mine, wanted = see(tmp_path / "image.ppm")
    np.testing.assert_array_equal(mine, wanted)
    (tmp_path / "image.raw").write_bytes(photo.tobytes())
    np.testing.assert_array_equal(see(tmp_path / "image.raw", "--size", "20x12")[0], wanted)


@pytest.mark.parametrize("at", [30, 60, -20])
def test_a_damaged_png_is_refused(program: Program, openvino_bundle: Path, tmp_path: Path, at: int) -> None:
    content = bytearray((openvino_bundle / "sample.png").read_bytes())
    content[at] ^= 0xFF
    (tmp_path / "image.png").write_bytes(content)
    (tmp_path / "short.png").write_bytes(content[:40])
    done = program("predict", openvino_bundle, tmp_path / "image.png", tmp_path / "short.png")
    assert done.returncode == 1 and done.stderr.count("PNG") == 2 and not done.stdout
