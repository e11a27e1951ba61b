"""The local store of devices and results."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.devices import Device, store
from g2sd_deploy.errors import UserError


def profile(p50_ms: float = 1.0) -> dict[str, Any]:
    return {"format": 1, "machine": {}, "rows": [{"model": "m", "verdict": "valid", "p50_ms": p50_ms}]}


def no_warning(line: str) -> None:
    raise AssertionError(line)


def record_many(device: str) -> None:
    for number in range(20):
        store.record(device, profile(number))


def test_the_store_lies_in_the_users_data_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("G2SD_DEVICES")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store.folder() == tmp_path / "g2sd" / "devices"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.folder() == tmp_path / ".local" / "share" / "g2sd" / "devices"


def test_devices_come_back_as_they_were_added_and_a_name_is_there_once() -> None:
    pi, nano = Device("pi", "ssh://pi:22/data", make_venv=True), Device("nano", "ssh://nano", python="/usr/bin/python3", keep=True)
    for device in (Device("pi", "ssh://old"), nano, pi):
        store.add(device)
    assert store.devices() == {"pi": pi, "nano": nano}
    assert store.remove("pi") == pi
    assert store.devices() == {"nano": nano}


def test_a_device_is_found_by_name_by_address_and_without_being_added() -> None:
    pi = Device("pi", "ssh://me@192.168.1.7", keep=True)
    store.add(pi)
    assert store.find("pi") == pi
    assert store.find("ssh://me@192.168.1.7") == pi
    assert store.find("ssh://other:22") == Device("other:22", "ssh://other:22")
    with pytest.raises(UserError, match="'nano' is no device; known are pi"):
        store.find("nano")
    with pytest.raises(UserError, match="is another address than that of the device 'pi'"):
        store.find("ssh://pi")


def test_a_list_of_devices_that_cannot_be_read_is_no_empty_list(own_store: Path) -> None:
    store.add(Device("pi", "ssh://pi"))
    for text in ("{", "[]", '{"format": 1, "devices": [{"name": "pi"}]}', '{"format": 9, "devices": []}'):
        (own_store / "devices.json").write_text(text)
        with pytest.raises(UserError, match=r"devices.json: cannot be read \("):
            store.devices()
        with pytest.raises(UserError, match="cannot be read"):
            store.add(Device("nano", "ssh://nano"))
        assert (own_store / "devices.json").read_text() == text


def test_results_are_kept_in_the_order_in_which_they_came_for_this_machine_too() -> None:
    for device in ("local", "me@host:22/../x"):
        for number in (1.0, 2.0):
            store.record(device, profile(number))
        assert [entry.profile["rows"][0]["p50_ms"] for entry in store.results(device, no_warning)] == [1.0, 2.0]
    assert store.names() == ["local", "me@host:22/../x"]
    assert store.results("unknown", no_warning) == []


def test_a_damaged_line_is_named_and_the_others_are_read(own_store: Path) -> None:
    store.record("pi", profile(1.0))
    path = own_store / "results" / "pi.jsonl"
    whole = path.read_text()
    path.write_text("\n" + whole + json.dumps({"format": 7}) + "\n{}\n" + whole.replace("[{", "[3,{") + whole[: len(whole) // 2])
    store.record("pi", profile(2.0))
    told: list[str] = []
    found = store.results("pi", told.append)
    assert [entry.profile["rows"][0]["p50_ms"] for entry in found] == [1.0, 2.0]
    assert [line.split(": ")[0].rsplit(" ", 1)[1] for line in told] == ["3", "4", "5", "6"]
    assert "its format is 7, not 1" in told[0]


def test_several_programs_may_write_at_once() -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=record_many, args=("pi",)) for _ in range(3)]
    for writer in writers:
        writer.start()
    record_many("pi")
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(store.results("pi", no_warning)) == 80


def test_a_store_that_cannot_be_written_is_told(own_store: Path) -> None:
    own_store.write_text("a file")
    for write in (lambda: store.add(Device("pi", "ssh://pi")), lambda: store.record("pi", profile())):
        with pytest.raises(UserError, match=r"cannot be written .*name another folder in G2SD_DEVICES"):
            write()
