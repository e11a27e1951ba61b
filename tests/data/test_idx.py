"""IDX files: what is written comes back, and damage is noticed."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from g2sd_deploy.data.idx import find_idx, read_idx, write_idx
from g2sd_deploy.errors import UserError

VALUES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
RAW = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24))  # by the format's description


def refused(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: {message}"):
        read_idx(path)


def test_an_array_is_written_as_the_format_describes_it(tmp_path: Path) -> None:
    write_idx(tmp_path / "a.gz", VALUES)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == RAW


def test_the_same_array_gives_the_same_bytes_whatever_its_layout_in_memory(tmp_path: Path) -> None:
    write_idx(tmp_path / "one.gz", VALUES)
    write_idx(tmp_path / "two.gz", np.asfortranarray(VALUES))
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    assert (tmp_path / "one.gz").read_bytes()[4:8] == bytes(4)  # gzip's time stamp


@given(values=arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=5)) | st.just(np.zeros((0, 28, 28), np.uint8)))
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / "a.gz"
    write_idx(path, values)
    read = read_idx(path)
    assert read.shape == values.shape
    assert np.array_equal(read, values)


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_plain_and_compressed_files_are_read_alike(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(RAW) if name.endswith(".gz") else RAW)
    assert find_idx(tmp_path, "images") == tmp_path / name
    assert np.array_equal(read_idx(find_idx(tmp_path, "images")), VALUES)


def test_a_file_that_is_not_there_is_named_with_the_files_that_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no train-x or train-x\.gz; an idx folder holds train-images-idx3-ubyte"):
        find_idx(tmp_path, "train-x")


@pytest.mark.parametrize("size", [-1, 20, 15, 6])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "images").write_bytes(RAW[:size])
    refused(tmp_path / "images", r"holds \d+ bytes, but its header .* asks for \d+; fetch the file again")


def test_a_file_with_bytes_behind_its_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(RAW + b"x")
    refused(tmp_path / "images", r"holds 41 bytes, but its header \[2, 3, 4\] asks for 40")


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\xff\xd8\xff\xe0 a JPEG", b"\0\0\x0d\x01\0\0\0\1\0\0\0\0"])
def test_a_file_of_another_kind_or_number_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images").write_bytes(content)
    refused(tmp_path / "images", r"not an IDX file of unsigned bytes \(first bytes .*, wanted 00 00 08")


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped", "foreign", "empty"])
def test_a_damaged_compressed_file_is_refused(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(RAW))
    match damage:
        case "truncated":
            content = content[:-9]
        case "one bit flipped":
            content[-6] ^= 1  # in the check sum
        case "foreign":
            content = bytearray(RAW)
        case "empty":
            content = bytearray()
    (tmp_path / "images.gz").write_bytes(content)
    refused(tmp_path / "images.gz", r"(cannot be unpacked \(.*\); fetch the file again|not an IDX file)")
