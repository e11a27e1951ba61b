"""Whole or not, weights or not: told from the bytes."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.inspection import is_web_page, weight_format

STATE = {"weight": torch.arange(4000.0), "bias": torch.zeros(3)}


def written(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    if name.endswith(".safetensors"):
        path.write_bytes(save(STATE))
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name != "old.pth")
    return path


@pytest.mark.parametrize(("name", "form"), [("new.pth", "zip"), ("old.pth", "pickle"), ("x.safetensors", "safetensors")])
def test_the_format_is_told_from_the_bytes_whatever_the_name(tmp_path: Path, name: str, form: str) -> None:
    path = written(tmp_path, name)
    assert weight_format(path) == form
    assert weight_format(path.rename(tmp_path / "download.part")) == form


@pytest.mark.parametrize("name", ["new.pth", "x.safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = written(tmp_path, name)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=rf"{name}: .*fetch it again$") as caught:
        weight_format(path)
    assert "\n" not in str(caught.value)


def test_bytes_behind_the_end_of_safetensors_are_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, "x.safetensors")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"holds \d+ bytes where its header promises \d+"):
        weight_format(path)


def test_a_flipped_bit_in_an_archive_is_found_by_its_own_checksum(tmp_path: Path) -> None:
    path = written(tmp_path, "new.pth")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: its record .*/data/0 does not match its own checksum"):
        weight_format(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf  <!DOCTYPE html><html>", "is a web page, not weights"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey", "is a web page, not weights"),
        (b'{"error": "not found"}', "is no weight file .it starts with"),
        (b"cposix\nsystem\n", "is no weight file"),
    ],
)
def test_what_is_no_weight_file_is_told_apart(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        weight_format(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UserError, match="there is no such weight file"):
            weight_format(path)


def test_weights_are_not_taken_for_a_web_page() -> None:
    assert not is_web_page(pickle.dumps({"a": 1})) and not is_web_page(save(STATE)) and not is_web_page(b"PK\x03\x04")
