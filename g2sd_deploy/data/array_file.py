"""A NumPy file of images that is written row by row."""

from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from numpy.lib.format import write_array_header_1_0


class ArrayFile:
    """Rows appended to a .npy file whose number of rows is known at the end.

    Written, not mapped: memory stays flat, and a full disk is an error of the write; with a mapping it would kill the process.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self._row_shape = row_shape
        self._num = 0
        self._file = path.open("wb")
        self._start = self._write_header()

    def append(self, row: UInt8[np.ndarray, "..."]) -> None:
        """Add one row."""
        assert row.shape == self._row_shape and row.dtype == np.uint8
        self._file.write(np.ascontiguousarray(row).data)
        self._num += 1

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                assert self._write_header() == self._start  # NumPy leaves room for the digits of the first axis

    def _write_header(self) -> int:
        write_array_header_1_0(self._file, {"descr": "|u1", "fortran_order": False, "shape": (self._num, *self._row_shape)})
        return self._file.tell()
