"""IDX files, the format of MNIST and Fashion-MNIST. Source: http://yann.lecun.com/exdb/mnist (file formats section)."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from g2sd_deploy.errors import UserError

_UNSIGNED_BYTE = 0x08


def find_idx(folder: Path, stem: str) -> Path:
    """The file `stem` or `stem.gz` in a folder.

    Raises:
        UserError: Neither is there.
    """
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: there is no {stem} or {stem}.gz; an idx folder holds train-images-idx3-ubyte, train-labels-idx1-ubyte, "
        "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (Debian: apt-get install dataset-fashion-mnist)"
    )


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read an IDX file of unsigned bytes, gzip-compressed or not.

    Raises:
        UserError: The file is damaged, truncated or holds something else.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); fetch the file again") from None
    if len(raw) < 4 or raw[0] or raw[1] or raw[2] != _UNSIGNED_BYTE:
        raise UserError(
            f"{path}: not an IDX file of unsigned bytes (first bytes {raw[:4].hex(' ')}, wanted 00 00 08 and the number of axes)"
        )
    header = 4 + 4 * raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(raw) != expected:
        raise UserError(f"{path}: holds {len(raw)} bytes, but its header {shape} asks for {expected}; fetch the file again")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def write_idx(path: Path, values: UInt8[np.ndarray, "..."]) -> None:
    """Write a gzip-compressed IDX file; the same array gives the same bytes."""
    header = bytes([0, 0, _UNSIGNED_BYTE, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(gzip.compress(header + np.ascontiguousarray(values).tobytes(), compresslevel=9, mtime=0))
