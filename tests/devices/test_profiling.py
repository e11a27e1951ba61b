"""Bundles timed on devices that a real sshd on loopback stands for."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from g2sd_deploy.devices import Device, DeviceOptions, looking, profile_on
from g2sd_deploy.errors import Stopped, UserError

if TYPE_CHECKING:
    from conftest import Sshd

ALL = DeviceOptions(seconds=1.0, percentile=50.0, batches=(1, 4), threads=(1, 2))
ONE = DeviceOptions(seconds=1.0, percentile=50.0, threads=(1,), variants=("fp32-onnxruntime",))


class Told:
    """Gathers lines of progress, and does something at the first that holds a word."""

    def __init__(self, word: str = "", act: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self._word, self._act = word, act

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if self._word and self._word in line:
            self._word = ""
            self._act()

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def profile(device: Device, bundle: Path, options: DeviceOptions = ONE, told: Told | None = None) -> dict[str, Any]:
    got = profile_on([device], [bundle], options, tell=told or Told())
    assert got.failures == {}
    return got.profiles[device.name]


def failure(device: Device, bundle: Path, options: DeviceOptions = ONE, told: Told | None = None) -> str:
    got = profile_on([device], [bundle], options, tell=told or Told())
    assert got.profiles == {}
    message = got.failures[device.name]
    assert message.startswith(f"{device.name} ({device.address}): ")
    assert "\n" not in message
    return message


def pid_of_the_job(work: Path) -> int:
    (pid,) = work.glob("g2sd-device/jobs/*/pid")
    return int(pid.read_text())


def test_a_bundle_is_proven_and_timed_on_a_device_and_nothing_stays_there(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    told = Told()
    got = profile(sshd.device("pi", tmp_path / "work"), bundle, ALL, told)
    assert [(one["variant"], one["verdict"]) for one in got["selftest"]] == [("fp32-onnxruntime", "passed"), ("fp32-openvino", "passed")]
    cases = [(batch, threads) for threads in (1, 2) for batch in (1, 4) for _ in got["selftest"]]
    assert sorted((row["batch"], row["threads"]) for row in got["rows"]) == sorted(cases)
    assert {row["model"] for row in got["rows"]} == {str(bundle)}
    assert {row["verdict"] for row in got["rows"]} <= {"valid", "invalid"}
    assert all(row["p50_ms"] > 0 for row in got["rows"])
    assert got["format"] == 1
    assert got["reference"] == "fp32-onnxruntime"
    assert got["rows"][1]["ratio"]["to"] == "fp32-onnxruntime"
    assert got["machine"]["python"]
    assert got["conditions"]["verdict"] in ("valid", "invalid")
    assert got["device"] == {"name": "pi", "address": f"ssh://127.0.0.1:{sshd.port}{tmp_path}/work"}
    assert told.has("0 are there already")
    assert not (tmp_path / "work").exists()
    json.dumps(got)


def test_a_device_that_keeps_its_files_gets_none_of_them_again(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    device = sshd.device("pi", tmp_path / "work", keep=True)
    first, again = Told(), Told()
    profile(device, bundle, told=first)
    assert first.has("left there: a copy at")
    profile(device, bundle, told=again)
    assert again.has("copying 0 files (0.0 MiB)")
    assert not again.has("of an earlier call")  # results are taken away, and every call measures


def test_a_bench_outlives_its_connection_and_the_same_command_picks_it_up(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    device, work = sshd.device("pi", tmp_path / "work"), tmp_path / "work"
    message = failure(device, bundle, told=Told("timing", sshd.cut))
    assert "the connection was lost" in message
    assert "while the bench ran; it goes on there, and the same command picks it up" in message
    pid, pids = pid_of_the_job(work), []
    told = Told("of an earlier call", lambda: pids.append(pid_of_the_job(work)))
    got = profile(device, bundle, told=told)
    assert told.has("copying 0 files")
    assert pids == [pid]
    assert got["rows"][0]["p50_ms"] > 0
    assert not work.exists()


def test_a_bench_that_died_with_its_device_is_started_again(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    device, work = sshd.device("pi", tmp_path / "work"), tmp_path / "work"

    def end_both() -> None:
        os.killpg(pid_of_the_job(work), signal.SIGKILL)
        sshd.cut()

    failure(device, bundle, told=Told("timing", end_both))
    pid, pids = pid_of_the_job(work), []
    told = Told("timing", lambda: pids.append(pid_of_the_job(work)))
    assert profile(device, bundle, told=told)["rows"][0]["p50_ms"] > 0
    assert not told.has("of an earlier call")
    assert pids != [pid]


def test_a_bench_that_is_killed_is_told_and_not_waited_for(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    told = Told("timing", lambda: os.killpg(pid_of_the_job(work), signal.SIGKILL))
    assert "the bench ended without a result (killed, or the device restarted)" in failure(sshd.device("pi", work), bundle, told=told)


def test_another_question_is_another_bench(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    device = sshd.device("pi", tmp_path / "work")
    failure(device, bundle, told=Told("timing", sshd.cut))
    told = Told()
    other = replace(ONE, batches=(2,))
    assert [row["batch"] for row in profile(device, bundle, other, told)["rows"]] == [2]
    assert not told.has("of an earlier call")
    assert told.has("left there: ")  # the first one's, which may still be asked for
    assert looking.clean(device, connect_timeout_s=10)
    assert not (tmp_path / "work").exists()


def test_copying_that_breaks_off_goes_on_where_it_was(sshd: Sshd, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = sshd.device("pi", tmp_path / "work")
    with monkeypatch.context() as patched:
        patched.setattr("g2sd_deploy.devices.copying._contents", cut_after(3, sshd))
        assert "while files were copied; those that came whole are kept" in failure(device, bundle)
    told = Told()
    profile(device, bundle, told=told)
    assert told.has("; 3 are there already")
    assert not (tmp_path / "work").exists()


def cut_after(num_files: int, sshd: Sshd) -> Callable[..., Any]:
    from g2sd_deploy.devices import copying

    real = copying._contents

    def contents(records: Any) -> Any:
        yield from real(records[:num_files])
        while len(list(sshd.folder.parent.glob("work/g2sd-device/trees/*/**/[!.]*.*"))) < num_files:
            yield b""
        sshd.cut()
        yield from real(records[num_files:])

    return contents


def test_devices_are_asked_side_by_side_and_one_that_fails_stops_no_other(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=60)
    told = Told()

    def tell(line: str) -> None:
        told(line)
        if "copying" in line:
            together.wait()  # passes only when both are there at the same time

    good = [sshd.device(name, tmp_path / name) for name in ("pi", "nano")]
    bad = sshd.device("broken", tmp_path / "broken", python="/nowhere/python")
    got = profile_on([good[0], bad, good[1]], [bundle], ONE, tell=tell)
    assert list(got.failures) == ["broken"], got.failures
    assert list(got.profiles) == ["pi", "nano"]
    assert {line.partition(": ")[0] for line in told.lines} == {"pi", "nano"}


def test_a_variant_whose_self_test_fails_is_not_timed(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    break_answers_of(bundle, "fp32-openvino")
    got = profile(sshd.device("pi", tmp_path / "work"), bundle, replace(ONE, variants=()))
    assert [one["verdict"] for one in got["selftest"]] == ["passed", "failed"]
    timed, left_out = got["rows"]
    assert timed["variant"] == "fp32-onnxruntime"
    assert (left_out["variant"], left_out["verdict"]) == ("fp32-openvino", "not_run")
    assert left_out["reasons"][0].startswith("its self-test failed on the device: ")
    assert "p50_ms" not in left_out


def break_answers_of(bundle: Path, variant: str) -> None:
    """Make the stored answers of one variant others than it gives, and seal the bundle again."""
    import hashlib

    import numpy as np

    path = bundle / "sample.npz"
    with np.load(path) as arrays:
        values = {**arrays, f"logits.{variant}": arrays[f"logits.{variant}"] + 5}
    np.savez(path, **values)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["sample.npz"] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    (bundle / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


def test_a_device_without_the_runtime_ends_in_one_line_and_keeps_nothing(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    without = tmp_path / "python"
    (tmp_path / "hide.py").write_text(
        "import runpy, sys\nsys.modules['onnxruntime'] = None\nsys.path[0] = ''\ndel sys.argv[1:3]\n"
        "runpy.run_module('edge', run_name='__main__', alter_sys=True)\n"
    )
    without.write_text(f'#!/bin/sh\n[ "$2" = edge ] && exec {sys.executable} {tmp_path}/hide.py "$@"\nexec {sys.executable} "$@"\n')
    without.chmod(0o755)
    message = failure(sshd.device("pi", tmp_path / "work", python=str(without)), bundle)
    assert "nothing could be timed: " in message
    assert "install it with: pip install onnxruntime" in message
    assert not (tmp_path / "work").exists()


def test_an_index_out_of_reach_is_told_and_nothing_stays(make_sshd: Callable[..., Sshd], bundle: Path, tmp_path: Path) -> None:
    sshd = make_sshd(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_CONFIG_FILE="/dev/null", PATH=os.environ["PATH"])
    message = failure(sshd.device("pi", tmp_path / "work", make_venv=False), bundle)
    assert "pip reaches no package index, so numpy and pillow cannot be installed" in message
    assert not (tmp_path / "work").exists()


@pytest.mark.slow  # an environment of its own is made
def test_a_runtime_without_a_wheel_for_the_processor_is_told(make_sshd: Callable[..., Sshd], bundle: Path, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in ("numpy", "pillow"):
        write_wheel(wheels, name)
    sshd = make_sshd(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels), PIP_CONFIG_FILE="/dev/null", PATH=os.environ["PATH"])
    message = failure(sshd.device("pi", tmp_path / "work", make_venv=True), bundle)
    assert "there is no onnxruntime for " in message
    assert f"with Python {sys.version.split()[0]}" in message


def write_wheel(folder: Path, name: str) -> None:
    """A package that installs and holds nothing."""
    import zipfile

    info = f"{name}-99.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-99.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_ctrl_c_ends_the_connections_and_not_the_benches(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    device = sshd.device("pi", tmp_path / "work")
    with pytest.raises(Stopped, match="benches that were started go on on the devices"):
        profile_on([device], [bundle], ONE, tell=Told("timing", lambda: os.kill(os.getpid(), signal.SIGINT)))
    told = Told()
    assert profile(device, bundle, told=told)["rows"][0]["p50_ms"] > 0
    assert told.has("of an earlier call")


def test_what_cannot_go_to_a_device_is_refused_before_any_is_asked(bundle: Path, tmp_path: Path) -> None:
    device = Device("pi", "ssh://127.0.0.1:1")
    cases: list[tuple[list[Device], Path, DeviceOptions, str]] = [
        ([device], tmp_path, ONE, "is no bundle, and only bundles go to a device"),
        ([device, device], bundle, ONE, "a device is named twice"),
        ([device], bundle, DeviceOptions(variants=("int8-tensorrt",)), "there is no variant 'int8-tensorrt'"),
        ([device], bundle, DeviceOptions(runtimes=("tensorrt",)), "no variant is left to time"),
    ]
    for devices, folder, options, message in cases:
        with pytest.raises(UserError, match=message):
            profile_on(devices, [folder], options, tell=Told())
    (bundle / "labels.txt").write_text("other\n")
    with pytest.raises(UserError, match=r"labels\.txt"):
        profile_on([device], [bundle], ONE, tell=Told())


def test_options_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"batches": ()},
        {"batches": (0,)},
        {"scenario": "loud"},
        {"scenario": "server"},
        {"rate_per_s": 5.0},
        {"percentile": 100.0},
    ):
        with pytest.raises(UserError):
            DeviceOptions(**wrong)  # type: ignore[arg-type]
