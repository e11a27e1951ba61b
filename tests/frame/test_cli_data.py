"""`g2sd data`: exit codes, what is printed where, and its refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def pets(make_image_folder: Any, tmp_path: Path) -> Path:
    root: Path = make_image_folder(tmp_path / "pets", ("train", "val"), classes=2, per_class=5)
    return root


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error")]


def test_prepare_prints_the_manifest_on_stdout_and_the_rest_on_stderr(g2sd: Callable[..., Any], pets: Path, tmp_path: Path) -> None:
    arguments = ("data", "prepare", pets, tmp_path / "out", "--short-side", 32, "--shards", "--images-per-shard", 4, "--workers", 1)
    answer = g2sd(*arguments)
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'out' / 'manifest.json'}\n")
    assert answer.err.endswith("prepared: 10 of train, 10 of val\n") and "error" not in answer.err
    held = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert held["prepared"]["short_side"] == 32 and held["prepared"]["quality"] == 95 and held["prepared"]["source"] == "pets"
    again = g2sd(*arguments)
    assert (again.code, again.out, again.err) == (0, answer.out, "is prepared already: 10 of train, 10 of val\n")


def test_prepare_lists_what_it_leaves_out_and_fails_by_default(g2sd: Callable[..., Any], pets: Path, tmp_path: Path) -> None:
    (pets / "train" / "class0" / "003.jpg").write_bytes(b"[red]no[/] image")
    arguments = ("data", "prepare", pets, tmp_path / "out", "--workers", 1)
    answer = g2sd(*arguments)
    assert (answer.code, answer.out) == (1, "")
    assert "train/class0/003.jpg  no known image format" in answer.err
    assert errors(answer.err) == [
        "error: 1 images cannot be used and --max-bad is 0: add --max-bad 1 to leave them out (what is prepared is kept), "
        "or repair or remove them and begin anew"
    ]
    answer = g2sd(*arguments, "--max-bad", 1)
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'out' / 'prepared.json'}\n")
    assert "train/class0/003.jpg  no known image format" in answer.err
    assert answer.err.endswith("prepared: 9 of train, 10 of val, 1 left out\n")


def test_splits_can_be_chosen(g2sd: Callable[..., Any], pets: Path, tmp_path: Path) -> None:
    answer = g2sd("data", "prepare", pets, tmp_path / "out", "--splits", "val", "--workers", 1)
    assert answer.code == 0 and [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["val"]


@pytest.mark.parametrize(
    ("dst", "more", "told"),
    [
        ("pets", (), "SRC {src} and DST {dst}: the same folder; give a DST beside SRC"),
        ("pets/small", (), "SRC {src} and DST {dst}: DST lies inside the other; give a DST beside SRC"),
        (".", (), "SRC {src} and DST {dst}: SRC lies inside the other; give a DST beside SRC"),
        ("file", (), "{dst}: is a file; give a new folder"),
        ("full", (), "{dst}: holds something else; give a new or an empty folder"),
        ("file/out", (), "{dst}: Not a directory; correct it, and give the same command again"),
        ("out", ("--images-per-shard", "5"), "--images-per-shard is given without --shards; add --shards, or leave it out"),
        (
            "out",
            ("--splits", "train,,val"),
            "--splits is 'train,,val'; wanted names with commas between them, each once, for example train,val",
        ),
        ("out", ("--splits", "valid"), "{src}: there is no split valid (found train, val); set data.train_split and data.test_split"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    g2sd: Callable[..., Any], pets: Path, tmp_path: Path, dst: str, more: tuple[str, ...], told: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    answer = g2sd("data", "prepare", pets, tmp_path / dst, "--workers", 1, *more)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {told.format(src=pets, dst=tmp_path / dst)}\n"


def test_verify_prints_a_table_on_stdout_and_fails_where_training_would(g2sd: Callable[..., Any], pets: Path) -> None:
    (pets / "train" / "class0" / "003.jpg").write_bytes(b"")
    Image.new("CMYK", (40, 40)).save(pets / "val" / "class1" / "004.jpg")
    answer = g2sd("data", "verify", pets, "--workers", 1)
    lines = [line.split("  ") for line in answer.out.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert answer.code == 1
    assert rows == [
        ["where", "problem", "what to do"],
        ["error", "train/class0/003.jpg", "empty file: 0 bytes", "fetch it again, or remove it"],
        ["warning", "val/class1/004.jpg", "CMYK", "convert it to RGB with its colour profile; training converts it without"],
        ["looked at 10 of train, 10 of val: 1 errors, 1 warnings, 0 notes; training would trip over the errors"],
    ]
    (pets / "train" / "class0" / "003.jpg").unlink()
    assert g2sd("data", "verify", pets, "--workers", 1).code == 0


def test_verify_prints_one_json_object(g2sd: Callable[..., Any], pets: Path) -> None:
    (pets / "train" / "class0" / "003.jpg").write_bytes(b"")
    answer = g2sd("data", "verify", pets, "--workers", 1, "--json")
    found = json.loads(answer.out)
    assert answer.code == 1 and answer.out.count("\n") == 1
    assert (found["num"], found["errors"]) == ({"train": 10, "val": 10}, 1)
    assert found["findings"] == [
        {
            "severity": "error",
            "problem": "empty file",
            "name": "train/class0/003.jpg",
            "detail": "0 bytes",
            "advice": "fetch it again, or remove it",
        }
    ]


def test_a_name_that_is_no_text_is_shown(g2sd: Callable[..., Any], pets: Path) -> None:
    strange = os.fsencode(pets / "train" / "class0") + b"/\xff[b].jpg"
    Path(os.fsdecode(strange)).write_bytes(b"")
    answer = g2sd("data", "verify", pets, "--workers", 1)
    assert answer.code == 1 and r"train/class0/\xff[b].jpg" in answer.out


def test_notes_of_one_kind_share_a_row(g2sd: Callable[..., Any], pets: Path) -> None:
    for i in range(3):
        (pets / "train" / "class0" / f"{i}.txt").write_text("mine")
    answer = g2sd("data", "verify", pets, "--workers", 1)
    assert answer.code == 0 and answer.out.count("not read") == 1 and "train/class0/0.txt and 2 more" in answer.out


def test_a_thousand_findings_do_not_fill_the_terminal(g2sd: Callable[..., Any], pets: Path) -> None:
    for i in range(30):
        (pets / "train" / "class0" / f"bad{i:02}.jpg").write_bytes(b"")
    answer = g2sd("data", "verify", pets, "--workers", 1)
    assert answer.out.count("empty file") == 20 and "train/class0/bad19.jpg and 10 more" in answer.out
    assert answer.out.endswith("30 errors, 0 warnings, 0 notes; training would trip over the errors; --json lists each of them\n")
    assert len(json.loads(g2sd("data", "verify", pets, "--workers", 1, "--json").out)["findings"]) == 30


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(
    make_image_folder: Any, tmp_path: Path, process_environment: dict[str, str], g2sd: Callable[..., Any]
) -> None:
    source = make_image_folder(tmp_path / "pets", ("train",), classes=2, per_class=300, px=300)
    arguments = ["data", "prepare", source, tmp_path / "out", "--short-side", "64", "--shards", "--images-per-shard", "50"]
    command = [sys.executable, "-m", "g2sd_deploy", *map(str, arguments), "--workers", "2"]
    started = subprocess.Popen(command, env=process_environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 30
    while not list((tmp_path / "out").glob("*.tar")) and time.monotonic() < end:
        time.sleep(0.005)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, told = started.communicate(timeout=30)
    assert started.returncode == 130
    assert told.splitlines()[-1] == "error: stopped; what is prepared is kept, and the same command goes on from there"
    assert "Traceback" not in told
    assert g2sd(*arguments, "--workers", 1).code == 0
