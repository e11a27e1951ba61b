"""``python -m edge`` as a user of a bundle meets it: a process of its own, in the bundle's folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def edge(bundle: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "edge", *arguments],
        cwd=bundle,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


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
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[-100] ^= 1
    (bundle / "model.onnx").write_bytes(content)
    done = edge(bundle, "selftest")
    assert (done.returncode, done.stderr) == (1, "")
    assert re.fullmatch(r"selftest failed: [^\n]*model.onnx: was changed [^\n]*\n", done.stdout)
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
        (["predict", "absent.png"], r"absent.png: no such image file"),
        (["predict", "labels.txt"], r"labels.txt: cannot be decoded as an image"),
        (["predict", "edge"], r"edge: no such image file"),
        (["predict", "sample.png", "--top-k", "0"], r"--top-k is 0; it must be at least 1"),
        (["predict", "sample.png", "--top-k", "many"], r"argument --top-k: invalid int value: 'many'"),
        (["predict", "sample.png", "--threads", "0"], r"threads is 0; it must be at least 1"),
        (["predict"], r"the following arguments are required: IMAGE"),
        (["predict", "sample.png", "--bundle", "edge"], r"manifest.json: missing, so this is no bundle"),
        (["pedict", "sample.png"], r"invalid choice: 'pedict'"),
        ([], r"the following arguments are required: COMMAND"),
    ],
)
def test_bad_input_gets_one_line_and_status_2(arguments: list[str], message: str, pristine_bundle: Path) -> None:
    assert_refused(edge(pristine_bundle, *arguments), message)


def test_a_truncated_image_gets_one_line_and_status_2(pristine_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes((pristine_bundle / "sample.png").read_bytes()[:200])
    assert_refused(edge(pristine_bundle, "predict", str(path)), "cut.png: cannot be decoded as an image")


def test_predict_refuses_a_changed_bundle(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("other\nnames\n")
    assert_refused(edge(bundle, "predict", "sample.png"), "labels.txt: holds 12 bytes")


@pytest.mark.parametrize("package", ["numpy", "PIL", "onnxruntime"])
def test_a_missing_package_gets_one_line_that_says_what_to_install(package: str, pristine_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')")
    done = edge(pristine_bundle, "selftest", PYTHONPATH=str(tmp_path))
    assert_refused(done, rf"{package}.* install .*onnxruntime")


def test_the_commands_of_the_readme_run(pristine_bundle: Path) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (pristine_bundle / "README.md").read_text(), flags=re.DOTALL)
    install, *commands = block.splitlines()
    assert install == "python -m pip install numpy pillow onnxruntime" and len(commands) == 2
    for command in commands:
        python, dash_m, module, *arguments = command.split()
        assert (python, dash_m, module) == ("python", "-m", "edge")
        assert edge(pristine_bundle, *arguments).returncode == 0, command
