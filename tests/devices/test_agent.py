"""What runs on the device: its Python, its disk, its file names."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from g2sd_deploy.devices import Device, DeviceOptions, agent, job, looking, profile_on
from g2sd_deploy.devices.connection import OLDEST_PYTHON, Connection
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from conftest import Sshd

SMALL_DISK_MIB = 33


def record_of(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def receive(device: Device, name: str, content: bytes, **changes: object) -> None:
    record = {**record_of(content), **changes}
    with Connection(device, connect_timeout_s=10) as connection:
        connection.request("receive", trees={"ab": {name: record}}, files=[{"tree": "ab", "name": name, **record}], body=[content])


@pytest.mark.parametrize("module", [agent, job], ids=["agent", "job"])
def test_what_runs_on_the_device_is_written_in_its_oldest_python_and_needs_nothing_else(module: object) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"), feature_version=OLDEST_PYTHON)  # type: ignore[attr-defined]
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


def test_the_oldest_python_serves_a_device(sshd: Sshd, bundle: Path, tmp_path: Path) -> None:
    oldest = oldest_python()
    device = sshd.device("pi", tmp_path / "work", python=oldest)
    assert looking.check(device, connect_timeout_s=10)["python"].startswith("3.8.")
    got = profile_on([device], [bundle], DeviceOptions(), tell=lambda line: None)
    if has_numpy(oldest):
        assert got.failures == {} or "onnxruntime" in got.failures["pi"]
    else:
        assert "the Python package numpy is not installed" in got.failures["pi"]
    assert not (tmp_path / "work").exists()


def oldest_python() -> str:
    version = ".".join(map(str, OLDEST_PYTHON))
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in filter(None, [shutil.which(f"python{version}"), *map(str, root.glob(f"versions/{version}.*/bin/python"))]):
        if subprocess.run([path, "--version"], capture_output=True, check=False).stdout.startswith(f"Python {version}.".encode()):
            return path
    pytest.skip(f"there is no Python {version}")


def has_numpy(python: str) -> bool:
    return subprocess.run([python, "-c", "import numpy, PIL"], capture_output=True, check=False).returncode == 0


def test_a_disk_without_enough_space_is_told_before_anything_is_copied(sshd: Sshd, bundle: Path, small_disk: Path) -> None:
    (bundle / "large.bin").write_bytes(bytes(2 << 20))
    message = refusal(sshd.device("pi", small_disk), bundle)
    assert f"MiB are to be copied to {small_disk}/g2sd-device and " in message
    assert "name a folder on another disk: ssh://HOST/FOLDER" in message
    assert list(small_disk.iterdir()) == []


def refusal(device: Device, bundle: Path) -> str:
    from g2sd_deploy.devices.copying import send, tree_of

    with Connection(device, connect_timeout_s=10) as connection, pytest.raises(UserError) as caught:
        send(connection, [tree_of(bundle)], lambda line: None)
    return str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of few MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only a privileged user can mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_while_files_come_keeps_none_of_them(sshd: Sshd, tmp_path: Path) -> None:
    device = sshd.device("pi", tmp_path / "work")
    tree = tmp_path / "work" / "g2sd-device" / "trees" / "ab"
    receive(device, "first", b"one")
    assert (tree / "first").read_bytes() == b"one"
    (tree / ".model.part").symlink_to("/dev/full")  # as writing to a full disk: every write says that no space is left
    with pytest.raises(UserError, match=r"no space is left in .*; free some there, or name a folder on another disk"):
        receive(device, "model", b"x" * 100_000)
    assert not (tmp_path / "work").exists()


def test_a_file_that_is_other_than_announced_is_not_kept(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model changed while it was copied"):
        receive(sshd.device("pi", tmp_path / "work"), "model", b"content", sha256="00" * 32)
    assert list((tmp_path / "work").rglob("*model*")) == []


@pytest.mark.parametrize("name", ["../model", "/model", "a/../../model", ""])
def test_no_file_is_written_outside_the_work_folder(sshd: Sshd, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="lies outside the work folder"):
        receive(sshd.device("pi", tmp_path / "work"), name, b"content")
    assert not (tmp_path / "work").exists()


def test_a_program_that_fails_there_is_told_in_its_last_words(sshd: Sshd, tmp_path: Path) -> None:
    lost = pytest.raises(UserError, match=r"the connection was lost \(AttributeError: .*do_nonsense")
    with Connection(sshd.device("pi", tmp_path), connect_timeout_s=10) as connection, lost:
        connection.request("nonsense")
