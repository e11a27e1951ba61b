"""Only what changed is copied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from g2sd_deploy.devices.connection import Connection
from g2sd_deploy.devices.copying import send, tree_of, tree_of_edge
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from conftest import Sshd


class Wire:
    """A connection that notes what is sent over it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.names: list[str] = []
        self.num_bytes = 0

    def request(self, do: str, **fields: Any) -> dict[str, Any]:
        if do == "receive":
            self.names = [item["name"] for item in fields["files"]]
            fields["body"] = list(fields["body"])
            self.num_bytes = sum(map(len, fields["body"]))
        return self._connection.request(do, **fields)


@pytest.fixture
def wire(sshd: Sshd, tmp_path: Path) -> Any:
    with Connection(sshd.device("pi", tmp_path / "work"), connect_timeout_s=10) as connection:
        yield Wire(connection)


def copied(tmp_path: Path, folder: Path) -> dict[str, bytes]:
    place = tmp_path / "work" / "g2sd-device" / "trees" / tree_of(folder).digest
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_arrives_as_it_is_without_byte_code(wire: Wire, bundle: Path, tmp_path: Path) -> None:
    whole = content(bundle)
    (bundle / "edge" / "__pycache__").mkdir(exist_ok=True)
    (bundle / "edge" / "__pycache__" / "x.pyc").write_bytes(b"code")
    send(wire, [tree_of(bundle)], lambda line: None)  # type: ignore[arg-type]
    assert copied(tmp_path, bundle) == whole
    assert wire.num_bytes == sum(map(len, whole.values()))


def test_a_file_that_changed_is_copied_alone_and_the_others_are_taken_from_the_tree_before(
    wire: Wire, bundle: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    send(wire, [tree_of(bundle)], lines.append)  # type: ignore[arg-type]
    send(wire, [tree_of(bundle)], lines.append)  # type: ignore[arg-type]
    assert (wire.names, wire.num_bytes) == ([], 0)
    before = copied(tmp_path, bundle)
    old = tree_of(bundle).digest
    (bundle / "labels.txt").write_text("other\n")
    send(wire, [tree_of(bundle)], lines.append)  # type: ignore[arg-type]
    assert (wire.names, wire.num_bytes) == (["labels.txt"], 6)
    assert copied(tmp_path, bundle) == {**before, "labels.txt": b"other\n"}
    assert (tmp_path / "work" / "g2sd-device" / "trees" / old / "labels.txt").read_bytes() == before["labels.txt"]
    assert lines[-1] == f"copying 1 files (0.0 MiB); {len(before) - 1} are there already"


def test_a_damaged_copy_is_copied_again(wire: Wire, bundle: Path, tmp_path: Path) -> None:
    send(wire, [tree_of(bundle)], lambda line: None)  # type: ignore[arg-type]
    (model,) = (tmp_path / "work").glob("g2sd-device/trees/*/models/fp32.onnx")
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    send(wire, [tree_of(bundle)], lambda line: None)  # type: ignore[arg-type]
    assert wire.names == ["models/fp32.onnx"]
    assert model.read_bytes() == whole


def test_a_file_that_becomes_shorter_meanwhile_is_told(wire: Wire, bundle: Path) -> None:
    tree = tree_of(bundle)
    (bundle / "labels.txt").write_text("")
    with pytest.raises(UserError, match=r"labels\.txt: became shorter while it was copied"):
        send(wire, [tree], lambda line: None)  # type: ignore[arg-type]


def test_the_code_that_measures_is_the_edge_folder(bundle: Path) -> None:
    names = tree_of_edge().files
    assert {"edge/__main__.py", "edge/bench.py", "edge/selftest.py"} <= set(names)
    assert all(name.startswith("edge/") and name.endswith(".py") for name in names)
