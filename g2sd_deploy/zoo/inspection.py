"""Is this file whole, and is it weights at all? Answered from its bytes, without unpickling anything."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from g2sd_deploy.errors import UserError

Format = Literal["zip", "pickle", "safetensors"]
_HEAD = 512
_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<script")
_LENGTH_BYTES = 8
_LARGEST_HEADER = 100 << 20

# What zipfile raises on damaged archives.
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, zlib.error)


def is_web_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP)


def weight_format(path: Path) -> Format:
    """How a weight file is written; every record of a zip archive is read and compared with its checksum.

    Raises:
        UserError: No such file, a web page, text, or an archive that is cut off or damaged.
    """
    head = _head_of(path)
    if is_web_page(head):
        raise UserError(f"{path}: is a web page, not weights (a login, an error or a confirmation page was saved); fetch it again")
    if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and 1 < _header_length(head) <= _LARGEST_HEADER:
        _check_safetensors(path, _header_length(head))
        return "safetensors"
    if head.startswith(b"PK"):
        _check_zip(path)
        return "zip"
    if head.startswith(b"\x80"):  # the protocol mark of a pickle: torch.save before torch 1.6
        return "pickle"
    raise UserError(f"{path}: is no weight file (it starts with {head[:12]!r}); wanted a file of torch.save or .safetensors")


def _head_of(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"{path}: there is no such weight file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise UserError(f"{path}: is empty; fetch it again")
    return head


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _ZIP_ERRORS as error:
        raise UserError(f"{path}: is cut off or damaged ({error}); fetch it again") from None
    if damaged is not None:
        raise UserError(f"{path}: is damaged: its record {damaged} does not match its own checksum; fetch it again")


def _header_length(head: bytes) -> int:
    return int.from_bytes(head[:_LENGTH_BYTES], "little")


def _check_safetensors(path: Path, length: int) -> None:
    """Compare the length of the file with what its header promises."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            file.seek(_LENGTH_BYTES)
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: is cut off or damaged: its header cannot be read; fetch it again") from None
    if size != _LENGTH_BYTES + length + end:
        raise UserError(f"{path}: holds {size} bytes where its header promises {_LENGTH_BYTES + length + end}; fetch it again")
