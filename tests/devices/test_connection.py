"""Every way in which a device cannot be used ends in one line that says what to change."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from g2sd_deploy.devices import Device, looking
from g2sd_deploy.devices.connection import ssh_command
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from conftest import Sshd


def refusal(device: Device) -> str:
    with pytest.raises(UserError) as caught:
        looking.check(device, connect_timeout_s=5)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{device.name} ({device.address}): ")
    return message


def executable(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_device_says_what_it_is(sshd: Sshd, tmp_path: Path) -> None:
    facts = looking.check(sshd.device("pi", tmp_path / "work"), connect_timeout_s=10)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["machine"] == os.uname().machine
    assert facts["packages"]["numpy"]
    assert facts["root"] == str(tmp_path / "work" / "g2sd-device")
    assert facts["free_bytes"] > 0
    assert facts["left"] == []
    assert not (tmp_path / "work").exists()  # looking leaves nothing


def test_what_a_login_shell_prints_is_no_answer(sshd: Sshd, tmp_path: Path) -> None:
    noisy = executable(tmp_path / "python", f'#!/bin/sh\necho Welcome to this machine\necho more >&2\nexec {sys.executable} "$@"\n')
    assert looking.check(sshd.device("pi", tmp_path / "work", python=noisy), connect_timeout_s=10)["left"] == []


def test_without_an_ssh_program_the_line_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2SD_SSH", "/nowhere/ssh")
    assert "/nowhere/ssh: cannot be started (No such file or directory)" in refusal(Device("pi", "ssh://127.0.0.1"))


def test_a_host_that_does_not_listen_cannot_be_reached() -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        device = Device("pi", f"ssh://127.0.0.1:{bound.getsockname()[1]}")
        message = refusal(device)
    assert "it cannot be reached" in message
    assert "Connection refused" in message


def test_a_name_that_nobody_has_is_no_host(sshd: Sshd) -> None:
    assert "there is no host of this name" in refusal(Device("pi", "ssh://no-such-host.invalid"))


def test_an_unknown_host_key_is_the_users_to_take_in(sshd: Sshd, tmp_path: Path) -> None:
    (sshd.folder / "known_hosts").write_text("")
    assert f"take it in by hand, once: ssh -p {sshd.port} 127.0.0.1" in refusal(sshd.device("pi", tmp_path))


def test_a_changed_host_key_is_told_apart_from_an_unknown_one(sshd: Sshd, tmp_path: Path) -> None:
    other = (sshd.folder / "stranger.pub").read_text()
    (sshd.folder / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in refusal(sshd.device("pi", tmp_path))


def test_a_refused_key_is_told_and_nobody_is_asked_for_a_password(sshd: Sshd, tmp_path: Path) -> None:
    (sshd.folder / "authorized_keys").write_text((sshd.folder / "stranger.pub").read_text())
    message = refusal(sshd.device("pi", tmp_path))
    assert "it refused every key that ssh offered" in message
    assert "Permission denied (publickey)" in message


def test_a_device_without_python_is_told(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = make_sshd(PATH="/nowhere")
    assert "there is no python3" in refusal(Device("pi", f"ssh://127.0.0.1:{sshd.port}{tmp_path}"))


def test_a_named_python_that_is_not_there_is_told(sshd: Sshd, tmp_path: Path) -> None:
    assert "there is no Python at /nowhere/bin/python" in refusal(sshd.device("pi", tmp_path, venv="/nowhere"))


def test_a_python_that_is_too_old_is_told_by_itself(sshd: Sshd, tmp_path: Path) -> None:
    code = "import sys; sys.version_info = (3, 6, 9); exec(sys.argv[1])"
    old = executable(tmp_path / "python", f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$2\"\n")
    assert f"{old} there is Python 3.6; 3.8 or newer is needed" in refusal(sshd.device("pi", tmp_path, python=old))


def test_a_python_for_another_processor_is_told(sshd: Sshd, tmp_path: Path) -> None:
    machine = 40 if os.uname().machine == "x86_64" else 62  # 32-bit ARM; x86-64
    header = b"\x7fELF\x01\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(100)
    other = executable(tmp_path / "python", header)
    assert f"{other} is a program for another processor" in refusal(sshd.device("pi", tmp_path, python=other))


def test_a_folder_that_cannot_be_made_is_told(sshd: Sshd, tmp_path: Path) -> None:
    from g2sd_deploy.devices.connection import Connection

    (tmp_path / "file").write_text("")
    device = sshd.device("pi", tmp_path / "file")
    record = {"sha256": "00" * 32, "bytes": 1}
    with Connection(device, connect_timeout_s=10) as connection, pytest.raises(UserError, match="Not a directory; name a folder"):
        connection.request("receive", trees={}, files=[{"tree": "ab", "name": "model", **record}], body=[b"x"])


def test_a_device_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("g2sd_deploy.devices.connection._HELLO_S", 0.0)
    monkeypatch.setenv("G2SD_SSH", executable(tmp_path / "ssh", "#!/bin/sh\nexec sleep 60\n"))
    with pytest.raises(UserError, match="it does not answer; try by hand: ssh host"):
        looking.check(Device("pi", "ssh://host"), connect_timeout_s=0.3)


def test_ssh_is_started_so_that_it_asks_nobody_and_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2SD_SSH", "my-ssh -F 'a b'")
    words = ssh_command(Device("pi", "ssh://me@Pi-Alias:2222", venv="~/my env"), 7.4)
    assert words[:3] == ["my-ssh", "-F", "a b"]
    assert {"BatchMode=yes", "ConnectTimeout=7", "ControlMaster=no"} <= set(words)
    assert words[-4:-1] == ["-p", "2222", "me@Pi-Alias"]
    assert words[-1].startswith("\"$HOME\"'/my env/bin/python' -c ")
    assert "\n" not in words[-1]
