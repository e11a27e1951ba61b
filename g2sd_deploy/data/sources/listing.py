"""What it takes to reopen samples without listing their source again: plain arrays and JSON values, memory-mapped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

_ABOUT = "listing.json"


@dataclass(frozen=True)
class Names:
    """Many strings as two arrays, which cost no object each and can be memory-mapped."""

    text: UInt8[np.ndarray, "bytes"]
    ends: Int64[np.ndarray, "num"]

    @classmethod
    def pack(cls, names: Sequence[str]) -> "Names":
        """UTF-8, one after the other; a name that is no text (a file name of another encoding) keeps its bytes."""
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]  # negative ones and those beyond the end
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Listing:
    """The samples of one split.

    Attributes:
        kind: Which samples read it; see `open_samples`.
        about: JSON values that hold for all samples.
        where: JSON values that say where they lie and how they are fetched; not saved with the rest, for the same images elsewhere are the
            same images.
        arrays: One row per sample, but for packed names.
        folder: Where it was saved; it travels into a worker as this folder, so that all processes share the pages of one file.
    """

    kind: str
    about: Mapping[str, Any]
    where: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    folder: Path | None = field(default=None, compare=False)

    def names(self) -> Names:
        """The names that were packed into the arrays."""
        return Names(self.arrays["names"], self.arrays["name_ends"])

    def save(self, folder: Path) -> None:
        """Write one JSON file and one NumPy file per array into a new folder; no pickle."""
        folder.mkdir()
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        described = {"kind": self.kind, "about": dict(self.about), "arrays": sorted(self.arrays)}
        (folder / _ABOUT).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Path, where: Mapping[str, Any]) -> "Listing":
        """Open what `save` wrote, of samples that lie there; the arrays stay on disk until they are read."""
        described = json.loads((folder / _ABOUT).read_bytes())
        arrays = {name: _mapped(folder / f"{name}.npy") for name in described["arrays"]}
        return cls(described["kind"], described["about"], where, arrays, folder)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder:
            return Listing.open, (self.folder, dict(self.where))
        return Listing, (self.kind, self.about, self.where, dict(self.arrays))


def _mapped(path: Path) -> np.ndarray:
    mapped = np.load(path, mmap_mode="r")
    return np.asarray(mapped)
