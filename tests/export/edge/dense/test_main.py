"""``python -m edge`` in a bundle that segments and in one that detects: a process of its own, in the bundle's folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from g2sd_export.edge.dense.checking import check_dense_sample
from g2sd_export.edge.dense.files import mask_from_run_lengths
from g2sd_export.edge.dense.sample import read_sample
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.manifest import open_bundle

Reseal = Callable[[Path, Callable[[dict[str, Any]], object]], Path]
Copied = Callable[[Path], Path]

# As in the test of the whole edge folder: every package that is not named is refused.
ISOLATED = """
import importlib.abc, runpy, sys, warnings
warnings.simplefilter("error")

class Refuse(importlib.abc.MetaPathFinder):
    allowed = {"edge", "numpy", "PIL", "onnxruntime", "flatbuffers", "google", "packaging", *sys.stdlib_module_names}

    def find_spec(self, fullname, path=None, target=None):
        top = fullname.partition(".")[0]
        if top not in self.allowed and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {top!r}: not allowed on the device", name=top)

sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv.pop(1))
runpy.run_module("edge", run_name="__main__", alter_sys=True)
"""


def edge(bundle: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "edge", *arguments],
        cwd=bundle,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""},
        input=stdin,
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_selftest_passes_on_both_kinds(pristine_segmentation: Path, pristine_detection: Path) -> None:
    for bundle, told in ((pristine_segmentation, "0 of 2048 pixels changed"), (pristine_detection, "0 of 12 objects without a partner")):
        done = edge(bundle, "selftest", "--threads", "1")
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith("selftest passed\n")
        assert len(re.findall(rf"sample   2 answers against .*: {told}", done.stdout)) == 2, done.stdout


def test_selftest_runs_every_variant(pristine_detection: Path) -> None:
    pytest.importorskip("openvino")
    done = edge(pristine_detection, "selftest", "--all", "--json")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [result["variant"] for result in results] == ["fp32-onnxruntime", "fp32-openvino"]
    assert all(result["agreement"]["unmatched"] == 0 and result["verdict"] == "passed" for result in results)


def test_selftest_fails_where_the_expected_answers_are_others(pristine_segmentation: Path, copied: Copied, reseal_dense: Reseal) -> None:
    bundle = copied(pristine_segmentation)
    with np.load(bundle / "sample.npz") as arrays:
        held = dict(arrays)
    held["classes"][0, :5] = 2
    np.savez(bundle / "sample.npz", **held)
    done = edge(reseal_dense(bundle, lambda facts: None), "selftest")
    assert done.returncode == 1 and re.match(r"selftest failed: 320 of 2048 pixels change their class .*tolerated 1", done.stdout)


def test_selftest_fails_where_the_variant_gave_something_else_at_export(
    pristine_detection: Path, copied: Copied, reseal_dense: Reseal
) -> None:
    bundle = copied(pristine_detection)
    with np.load(bundle / "sample.npz") as arrays:
        held = dict(arrays)
    held["scores.fp32-onnxruntime"] += 0.01
    np.savez(bundle / "sample.npz", **held)
    done = edge(reseal_dense(bundle, lambda facts: None), "selftest")
    assert done.returncode == 1 and "other answers than this variant gave at export: a score differs by 0.01" in done.stdout


def test_selftest_fails_where_the_sample_image_is_prepared_to_other_pixels(
    pristine_detection: Path, copied: Copied, reseal_dense: Reseal
) -> None:
    bundle = copied(pristine_detection)
    Image.fromarray(255 - np.asarray(Image.open(bundle / "sample.png"))).save(bundle / "sample.png")
    done = edge(reseal_dense(bundle, lambda facts: None), "selftest")
    assert done.returncode == 1 and "sample.png is prepared to pixels that differ by up to 255" in done.stdout


def test_selftest_fails_where_the_network_gives_no_answers(pristine_detection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(pristine_detection)
    network, variant = bundle.network(threads=1), bundle.variant()
    monkeypatch.setattr(network, "num_classes", 2)
    result = check_dense_sample(bundle, read_sample(bundle), network, variant)
    assert result.verdict == "failed" and "gave class 0 or 2, and 2 classes are named" in result.reason
    with pytest.raises(UserError, match="its model is one of detection, and a classifier was wanted"):
        bundle.runner()


def test_predict_tells_what_share_of_an_image_each_class_has(pristine_segmentation: Path) -> None:
    done = edge(pristine_segmentation, "predict", "sample.png")
    assert (done.returncode, done.stderr) == (0, "")
    name, *shares = done.stdout.splitlines()
    assert name == "sample.png" and [line.split(maxsplit=1)[1] for line in shares] == ["red thing", "grünes Ding", "blue thing"]


def test_predict_draws_classes_into_a_folder(pristine_segmentation: Path, tmp_path: Path, flag: npt.NDArray[np.uint8]) -> None:
    Image.fromarray(flag[:, ::-1]).save(tmp_path / "sample.bmp")
    out = tmp_path / "deep" / "out"
    done = edge(pristine_segmentation, "predict", "sample.png", str(tmp_path / "sample.bmp"), "--out", str(out), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["image"] == "sample.png" and first["size"] == [48, 64]
    assert sum(item["share"] for item in first["classes"]) == pytest.approx(1)
    assert {item["index"]: item["name"] for item in first["classes"]} == {0: "red thing", 1: "grünes Ding", 2: "blue thing"}
    assert sorted(path.name for path in out.iterdir()) == [
        "sample-2.classes.png",
        "sample-2.drawn.png",
        "sample.classes.png",
        "sample.drawn.png",
    ]
    assert Path(first["drawn"]) == out / "sample.drawn.png" and Path(second["class_map"]) == out / "sample-2.classes.png"
    classes = np.asarray(Image.open(first["class_map"]))
    assert classes.shape == (48, 64) and (classes[:20, 40:] == 1).all() and (classes[30:, 40:] == 2).all() and (classes[:, :20] == 0).all()
    drawn = np.asarray(Image.open(first["drawn"]))
    assert drawn.shape[1:] == (320, 3) and drawn.shape[0] > 240  # five times as large, with a legend below


def test_predict_draws_objects_and_writes_their_masks(pristine_detection: Path, tmp_path: Path) -> None:
    done = edge(pristine_detection, "predict", "sample.png", "--json", "--out", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert [item["name"] for item in answer["objects"]] == ["red thing", "grünes Ding", "blue thing"]
    assert [item["box"] for item in answer["objects"]] == [[0, 0, 32, 32], [16, 8, 64, 40], [40, 40, 60, 48]]
    scores = [item["score"] for item in answer["objects"]]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0.2
    mask = mask_from_run_lengths(answer["objects"][1]["mask"])
    assert mask.shape == (48, 64) and mask[8:40, 16:40].all() and mask.sum() == 32 * 24
    assert np.asarray(Image.open(answer["drawn"])).shape == (240, 320, 3)
    text = edge(pristine_detection, "predict", "-", stdin=(pristine_detection / "sample.png").read_bytes()).stdout
    assert re.match(r"-\n  0\.\d\d red thing at 0\.0, 0\.0 to 32\.0, 32\.0\n", text)


def test_objects_below_a_score_are_left_out_or_at_least_not_drawn(
    pristine_detection: Path, tmp_path: Path, flag: npt.NDArray[np.uint8]
) -> None:
    def answer(*options: str) -> tuple[list[float], npt.NDArray[np.int64]]:
        done = edge(pristine_detection, "predict", "sample.png", "--json", "--out", str(tmp_path), *options)
        told = json.loads(done.stdout)
        return [item["score"] for item in told["objects"]], np.asarray(Image.open(told["drawn"])).astype(np.int64)

    scores, as_usual = answer()
    assert scores[0] > 0.3 > scores[1], "what is told is more than what is drawn"
    surest, drawn = answer("--min-score", str((scores[0] + scores[1]) / 2))
    assert surest == scores[:1] and (drawn == as_usual).all()
    none, plain = answer("--min-score", "1")
    assert none == [] and (plain == np.kron(flag, np.ones((5, 5, 1), np.int64))).all()
    everything, full = answer("--min-score", "0")
    assert everything == scores and (full != as_usual).any() and (as_usual != plain).any()


def test_an_image_that_cannot_be_read_does_not_stop_the_others(pristine_detection: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = edge(pristine_detection, "predict", str(tmp_path / "broken.png"), "sample.png", "--json")
    assert done.returncode == 1 and "1 of 2 images could not be read" in done.stderr
    broken, good = (json.loads(line) for line in done.stdout.splitlines())
    assert "cannot be decoded" in broken["error"] and len(good["objects"]) == 3


def test_what_means_nothing_here_is_refused_in_one_line(pristine_detection: Path, pristine_segmentation: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for bundle, arguments, message in (
        (pristine_detection, ("--top-k", "3"), "--top-k is for classifiers"),
        (pristine_detection, ("--min-score", "1.5"), "the smallest score is 1.5; it must be from 0 to 1"),
        (pristine_segmentation, ("--min-score", "0.5"), "a smallest score is for detection, and this bundle tells classes of pixels"),
        (pristine_segmentation, ("--out", str(tmp_path / "file" / "deeper")), "cannot be made"),
        (pristine_segmentation, ("--variant", "fp32-tpu"), "has no variant 'fp32-tpu'"),
    ):
        done = edge(bundle, "predict", "sample.png", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and re.fullmatch(rf"edge: error: [^\n]*{message}[^\n]*\n", done.stderr), done


def test_a_bundle_that_failed_its_proof_gives_no_answers(pristine_detection: Path, copied: Copied, reseal_dense: Reseal) -> None:
    bundle = reseal_dense(copied(pristine_detection), lambda facts: facts.update(verdict="failed", reason="boxes flew"))
    done = edge(bundle, "predict", "sample.png")
    assert done.returncode == 2 and "failed its proof at export: boxes flew; it gives no answers" in done.stderr
    assert edge(bundle, "selftest").returncode == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: facts["task"].update(kind="pose"), "kind is 'pose'"),
        (lambda facts: facts["task"].update(image_px=64), "its task and its preprocessing ask for other images"),
        (lambda facts: facts.pop("task"), "the tolerance of variant fp32-onnxruntime is one of another task"),
        (lambda facts: facts["variants"][0]["output"].update(name="logits"), "gives boxes, and the manifest says uint8 NHWC and logits"),
        (lambda facts: facts["task"].update(min_score=0.3), "was made with other task than the bundle has"),
    ],
)
def test_a_manifest_that_contradicts_itself_or_its_model_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, pristine_detection: Path, copied: Copied, reseal_dense: Reseal
) -> None:
    done = edge(reseal_dense(copied(pristine_detection), change), "selftest")
    assert done.returncode == 1 and message in done.stdout, done


def test_tensorrt_is_refused_with_advice(pristine_detection: Path, copied: Copied, reseal_dense: Reseal) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["variants"][0]["runtime"] = "tensorrt"
        digest = facts_digest(bundle)
        facts["variants"][0]["settings"] = {"source": "models/pixels.onnx", "source_sha256": digest}

    bundle = copied(pristine_detection)
    done = edge(reseal_dense(bundle, change), "predict", "sample.png")
    assert done.returncode == 2 and "tensorrt runs classifiers only" in done.stderr and "take another variant: fp32-openvino" in done.stderr


def facts_digest(bundle: Path) -> str:
    return str(json.loads((bundle / "manifest.json").read_bytes())["files"]["models/pixels.onnx"]["sha256"])


def test_bench_times_the_network(pristine_segmentation: Path) -> None:
    done = edge(pristine_segmentation, "bench", "--json", "--seconds", "0.1", "--percentile", "50", "--variant", "fp32-onnxruntime")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)["rows"]
    assert row["variant"] == "fp32-onnxruntime" and row["p50_ms"] > 0 and row["prepare_p50_ms"] > 0


@pytest.mark.parametrize("arguments", [["selftest"], ["predict", "sample.png", "--out", "pictures"]], ids=["selftest", "predict"])
def test_the_commands_run_with_numpy_pillow_and_onnx_runtime_alone(arguments: list[str], pristine_detection: Path, copied: Copied) -> None:
    bundle = copied(pristine_detection)
    code = [sys.executable, "-I", "-B", "-c", ISOLATED, str(bundle)]
    done = subprocess.run([*code, *arguments], cwd=bundle, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (bundle / "pictures/sample.drawn.png").is_file() == (arguments[0] == "predict")
