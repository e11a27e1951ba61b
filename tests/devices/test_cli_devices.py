"""`g2sd devices`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner, Result

from g2sd_deploy.cli_devices import devices_app
from g2sd_deploy.devices import store

if TYPE_CHECKING:
    from conftest import Sshd


def devices(*words: str) -> Result:
    return CliRunner().invoke(devices_app, list(words))


def profile(p50_ms: float, verdict: str = "valid", reasons: tuple[str, ...] = ()) -> dict[str, Any]:
    row = {
        "model": "small",
        "variant": "",
        "runtime": "onnxruntime",
        "batch": 1,
        "threads": 2,
        "scenario": "single_stream",
        "digest": "ab" * 32,
    }
    return {"machine": {}, "rows": [{**row, "verdict": verdict, "reasons": list(reasons), "p50_ms": p50_ms, "p99_ms": None}]}


def test_a_device_is_added_listed_and_removed() -> None:
    assert "no device was added yet" in devices("list").stdout
    assert devices("add", "pi", "ssh://me@192.168.1.7:22/data", "--make-venv").exit_code == 0
    assert devices("add", "nano", "ssh://nano", "--python", "/usr/bin/python3", "--keep").exit_code == 0
    table = devices("list").stdout
    assert "ssh://me@192.168.1.7:22/data" in table
    assert "files and environment" in table
    listed = json.loads(devices("list", "--json").stdout)["devices"]
    assert [(one["name"], one["make_venv"], one["keep"]) for one in listed] == [("pi", True, False), ("nano", False, True)]
    assert devices("remove", "pi").exit_code == 0
    gone = devices("remove", "pi")
    assert gone.exit_code == 2
    assert gone.stderr.startswith("error: 'pi' is no device; known are nano")


def test_wrong_input_ends_in_one_line() -> None:
    for words, message in (
        (("add", "pi", "192.168.1.7"), "is no address of a device"),
        (("add", "local", "ssh://pi"), "is the machine that the program runs on"),
        (("add", "pi", "ssh://pi", "--venv", "~/env", "--make-venv"), "give one of them"),
        (("check", "pi"), "'pi' is no device; none was added yet"),
        (("history", "pi"), "'pi' is no device and has no results"),
    ):
        answer = devices(*words)
        assert answer.exit_code == 2
        assert message in answer.stderr
        assert answer.stderr.count("\n") == 1


def test_a_device_is_checked_and_cleaned(sshd: Sshd, tmp_path: Path) -> None:
    device = sshd.device("pi", tmp_path / "store")
    assert devices("add", "pi", device.address, "--python", device.python).exit_code == 0
    seen = devices("check", "pi").stdout
    assert "onnxruntime" in seen
    assert "left      nothing" in seen
    (tmp_path / "store" / "g2sd-device" / "trees" / "ab").mkdir(parents=True)
    assert json.loads(devices("check", "pi", "--json").stdout)["left"] == [f"a copy at {tmp_path}/store/g2sd-device/trees/ab"]
    assert devices("clean", "pi").stdout == f"a copy at {tmp_path}/store/g2sd-device/trees/ab\n"
    assert not (tmp_path / "store" / "g2sd-device").exists()
    assert devices("clean", "pi").stdout == "nothing was left there\n"


def test_the_history_of_every_device_is_shown_with_what_was_invalid() -> None:
    assert "nothing was measured yet" in devices("history").stdout
    store.record("pi", profile(10.0))
    store.record("pi", profile(99.0, "invalid", ("it throttled",)))
    store.record("pi", profile(12.5))
    store.record("local", profile(3.0))
    text = devices("history").stdout
    assert "pi: small onnxruntime, batch 1, 2 threads, single_stream" in text
    assert "local: small" in text
    lines = [line.split() for line in text.splitlines() if "valid" in line]
    assert [line[1] for line in lines] == ["valid", "valid", "invalid", "valid"]
    assert lines[3][2:5] == ["12.5", "1.250", "1.250"]
    assert lines[2][-2:] == ["it", "throttled"]
    series = json.loads(devices("history", "pi", "--model", "small", "--json").stdout)["series"]
    assert [point["to_first"] for point in series[0]["points"]] == [None, None, 1.25]
    assert json.loads(devices("history", "pi", "--model", "large", "--json").stdout) == {"series": []}


def test_a_damaged_line_of_the_store_is_a_warning() -> None:
    store.record("pi", profile(10.0))
    path = store.folder() / "results" / "pi.jsonl"
    path.write_text(path.read_text() + "{half")
    answer = devices("history", "pi")
    assert answer.exit_code == 0
    assert "warning: " in answer.stderr
    assert "pi.jsonl, line 2: damaged and left out" in answer.stderr
    assert "10" in answer.stdout
