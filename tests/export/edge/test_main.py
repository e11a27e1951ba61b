"""``python -m edge`` as a user of a bundle meets it: a process of its own, in the bundle's folder."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_export.edge.__main__ import _progress

Reseal = Callable[[Path, Callable[[dict[str, Any]], object]], Path]


def edge(bundle: Path, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "edge", *arguments],
        cwd=bundle,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "", **environment},
        input=stdin,
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"edge[a-z ]*: error: [^\n]+\n", done.stderr), done.stderr
    assert re.search(message, done.stderr), done.stderr


def test_selftest_passes_quietly(pristine_bundle: Path) -> None:
    done = edge(pristine_bundle, "selftest")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("selftest passed\n") and "0 decisions flipped" in done.stdout


def test_selftest_writes_one_json_object(pristine_bundle: Path) -> None:
    result = json.loads(edge(pristine_bundle, "selftest", "--json", "--threads", "1").stdout)
    assert result["verdict"] == "passed" and result["agreement"]["flipped"] == 0


def test_selftest_fails_with_status_1_on_one_flipped_byte(bundle: Path) -> None:
    content = bytearray((bundle / "models/pixels.onnx").read_bytes())
    content[-100] ^= 1
    (bundle / "models/pixels.onnx").write_bytes(content)
    done = edge(bundle, "selftest")
    assert (done.returncode, done.stderr) == (1, "")
    assert re.fullmatch(r"selftest failed: [^\n]*pixels.onnx: was changed [^\n]*\n", done.stdout)
    assert json.loads(edge(bundle, "selftest", "--json").stdout)["verdict"] == "failed"


def test_selftest_fails_with_status_1_on_a_missing_and_a_truncated_file(bundle: Path) -> None:
    (bundle / "labels.txt").unlink()
    done = edge(bundle, "selftest")
    assert done.returncode == 1 and "labels.txt: missing" in done.stdout
    (bundle / "labels.txt").write_bytes(b"")
    done = edge(bundle, "selftest")
    assert done.returncode == 1 and "labels.txt: holds 0 bytes" in done.stdout


def test_predict_shows_the_most_probable_classes_first(pristine_bundle: Path) -> None:
    done = edge(pristine_bundle, "predict", "sample.png", "--top-k", "3")
    assert (done.returncode, done.stderr) == (0, "")
    shares = [float(line.split("%")[0]) for line in done.stdout.splitlines()]
    assert len(shares) == 3 and shares == sorted(shares, reverse=True)


def test_predict_gives_the_softmax_of_the_expected_logits(pristine_bundle: Path) -> None:
    answer = json.loads(edge(pristine_bundle, "predict", "sample.png", "--top-k", "99", "--json").stdout)
    logits = np.load(pristine_bundle / "sample.npz")["logits"][0].astype(np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum()
    assert [item["index"] for item in answer["predictions"]] == list(np.argsort(-softmax))
    for item in answer["predictions"]:
        assert item["probability"] == pytest.approx(softmax[item["index"]], abs=1e-5)


def test_predict_takes_a_colour_photo_that_is_not_square(pristine_bundle: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((123, 45)).convert("RGB").save(tmp_path / "photo.jpg")
    assert edge(pristine_bundle, "predict", str(tmp_path / "photo.jpg")).returncode == 0


def test_a_class_name_prints_on_a_terminal_that_is_not_utf8(pristine_bundle: Path) -> None:
    done = edge(pristine_bundle, "predict", "sample.png", "--top-k", "6", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and r"Kleid f\xfcr \xdcbermorgen" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "edge"], r"edge: holds no images; looked for .bmp"),
        (["predict", "sample.png", "--list"], r"--list says that standard input holds paths, and it is not asked for; give - as an image"),
        (["predict", "sample.png", "--min-score", "0.5"], r"--min-score is for detection, and this bundle classifies; leave it out"),
        (["predict", "sample.png", "--top-k", "0"], r"--top-k is 0; it must be at least 1"),
        (["predict", "sample.png", "--top-k", "many"], r"argument --top-k: invalid int value: 'many'"),
        (["predict", "sample.png", "--threads", "0"], r"threads is 0; it must be at least 1"),
        (["predict", "sample.png", "--variant", "int8"], r"has no variant 'int8'; it has fp32-onnxruntime"),
        (["predict"], r"the following arguments are required: IMAGE"),
        (["predict", "sample.png", "--bundle", "edge"], r"manifest.json: missing, so this is no bundle"),
        (["selftest", "--all", "--variant", "fp32-openvino"], r"--all and --variant exclude each other"),
        (["bench", "--batch", "0"], r"--batch is 0; it must be at least 1"),
        (["bench", "--batch", "1,x"], r"argument --batch: wanted numbers with commas between them, as 1,8, not '1,x'"),
        (["bench", "--seconds", "0"], r"the seconds to measure are 0; they must be above 0"),
        (["bench", "--percentile", "100"], r"the percentile is 100; it must be above 0 and at most 99.99"),
        (["bench", "--scenario", "server"], r"--rate and --scenario server go together"),
        (["bench", "--reference", "int8"], r"has no variant 'int8'"),
        (["pedict", "sample.png"], r"invalid choice: 'pedict'"),
        ([], r"the following arguments are required: COMMAND"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments: list[str], message: str, pristine_bundle: Path) -> None:
    assert_refused(edge(pristine_bundle, *arguments), message)


def test_one_bad_image_gets_one_line_and_status_1(pristine_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes((pristine_bundle / "sample.png").read_bytes()[:200])
    for name, message in ((str(path), "cut.png: cannot be decoded as an image"), ("absent.png", "absent.png: no such image file")):
        done = edge(pristine_bundle, "predict", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(rf"edge: error: [^\n]*{message}[^\n]*\n", done.stderr)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, one of them damaged, in two folders, beside a file that is none."""
    (tmp_path / "images/more").mkdir(parents=True)
    for name, level in (("images/b.JPG", 200), ("images/a.png", 30), ("images/more/c.webp", 90)):
        Image.new("L", (40, 30), level).save(tmp_path / name)
    (tmp_path / "images/bad.jpeg").write_bytes(b"no image")
    (tmp_path / "images/notes.txt").write_text("no image either")
    return tmp_path / "images"


def test_a_folder_is_classified_in_order_and_a_bad_image_stops_nothing(pristine_bundle: Path, folder: Path) -> None:
    done = edge(pristine_bundle, "predict", str(folder), "--json", "--top-k", "1")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(answer["image"]).name for answer in answers] == ["a.png", "b.JPG", "bad.jpeg", "c.webp"]
    assert [list(answer) for answer in answers].count(["image", "predictions"]) == 3
    assert "bad.jpeg: cannot be decoded" in answers[2]["error"]
    assert done.returncode == 1 and done.stderr == "edge: error: 1 of 4 images could not be classified\n"


def test_as_text_each_image_of_several_has_a_line_of_its_own(pristine_bundle: Path, folder: Path) -> None:
    done = edge(pristine_bundle, "predict", "sample.png", str(folder / "a.png"), "--top-k", "2")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"sample.png\t[\d.]+% [^,]+, [\d.]+% [^,]+", first) and second.startswith(f"{folder / 'a.png'}\t")


def test_an_image_on_standard_input_is_classified_as_its_file_is(pristine_bundle: Path) -> None:
    by_name = json.loads(edge(pristine_bundle, "predict", "sample.png", "--json").stdout)
    content = (pristine_bundle / "sample.png").read_bytes()
    piped = json.loads(edge(pristine_bundle, "predict", "-", "--json", stdin=content).stdout)
    assert piped == {**by_name, "image": "-"}


def test_a_list_on_standard_input_is_worked_off(pristine_bundle: Path, folder: Path) -> None:
    content = f"{folder / 'a.png'}\r\n\n{folder / 'b.JPG'}\n".encode()
    done = edge(pristine_bundle, "predict", "-", "--list", "--json", stdin=content)
    assert [json.loads(line)["image"] for line in done.stdout.splitlines()] == [str(folder / "a.png"), str(folder / "b.JPG")]


def test_a_reader_that_has_seen_enough_is_no_traceback(pristine_bundle: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "edge", "predict", *["sample.png"] * 1000]  # it is far from done when the reader leaves
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    with subprocess.Popen(command, cwd=pristine_bundle, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1


def test_what_failed_its_proof_is_not_used(bundle: Path, reseal: Reseal) -> None:
    reseal(bundle, lambda facts: facts["variants"][0].update(verdict="failed", reason="5 of 8 decisions flip"))
    assert_refused(
        edge(bundle, "predict", "sample.png"), "fp32-onnxruntime failed its proof at export: 5 of 8 decisions flip; it gives no answ"
    )
    done = edge(bundle, "selftest")
    assert done.returncode == 1 and done.stdout.startswith("selftest failed: variant fp32-onnxruntime failed its proof at export: 5 of 8")
    assert edge(bundle, "predict", "sample.png", "--variant", "fp32-onnxruntime-float").returncode == 0


def test_every_variant_can_be_tested_and_told_as_json_lines(pristine_bundle: Path) -> None:
    done = edge(pristine_bundle, "selftest", "--all", "--json", "--threads", "1")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["variant"] for result in results] == ["fp32-onnxruntime", "fp32-openvino", "fp32-onnxruntime-float"]
    assert {result["verdict"] for result in results} <= {"passed", "not_run"} and done.returncode == 0


def test_bench_writes_a_line_per_variant_or_one_profile_as_json(pristine_bundle: Path) -> None:
    options = ("--variant", "fp32-onnxruntime", "--seconds", "0.2", "--percentile", "50", "--threads", "1", "--batch", "1,2")
    done = edge(pristine_bundle, "bench", *options)
    assert done.returncode == 0 and done.stderr == ""
    assert len(re.findall(r"^fp32-onnxruntime +[12] +1 .* (?:in)?valid, onnxruntime [\d.]+ CPUExecutionProvider$", done.stdout, re.M)) == 2
    profile = json.loads(edge(pristine_bundle, "bench", "--json", *options).stdout)
    assert [(row["batch"], row["threads"]) for row in profile["rows"]] == [(1, 1), (2, 1)]
    assert profile["format"] == 1 and profile["conditions"]["num_rounds"] >= 2 and "onnxruntime" in profile["machine"]["libraries"]


def test_progress_is_for_a_terminal_and_is_gone_at_the_end() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    tick = _progress(terminal)
    assert tick is not None and _progress(io.StringIO()) is None
    tick(3, 10)
    assert terminal.getvalue().strip() == "3 of 10 undisturbed rounds"
    tick(10, 10)
    assert terminal.getvalue().split("\r")[-2].strip() == ""


def test_bench_fails_with_status_1_only_where_nothing_could_be_timed(pristine_bundle: Path, tmp_path: Path) -> None:
    for package in ("onnxruntime", "openvino"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('no {package} here', name='{package}')")
    done = edge(pristine_bundle, "bench", "--seconds", "0.2", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and done.stdout.count("not timed") == 3 and "no openvino here" in done.stdout
    assert "nothing was measured" in done.stdout and done.stderr == ""


def test_predict_refuses_a_changed_bundle(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("other\nnames\n")
    assert_refused(edge(bundle, "predict", "sample.png"), "labels.txt: holds 12 bytes")


@pytest.mark.parametrize("package", ["numpy", "PIL", "onnxruntime"])
def test_a_missing_package_gets_one_line_that_says_what_to_install(package: str, pristine_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')")
    done = edge(pristine_bundle, "selftest", PYTHONPATH=str(tmp_path))
    assert_refused(done, rf"{package}.* install .*onnxruntime")
