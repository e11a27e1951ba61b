"""Hugging Face data sets: a name on the hub, a folder of Parquet files, or a folder that `save_to_disk` wrote.

The library `datasets` fetches and converts (into its own cache, see HF_HOME) and says which column is what. Images are then read from the
Arrow files themselves, which are memory-mapped, as the bytes that were stored.
"""

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.data.images import BadImage, picks_of
from g2sd_deploy.data.sources.base import check_labels, expand, fingerprint_of, numbered_classes
from g2sd_deploy.data.sources.listing import Listing
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    import datasets

_HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<configuration>\w[\w.-]*))?")
_LABEL_NAMES = ("label", "labels")


class HuggingFaceSource:
    """Splits of one data set; its columns of images and labels are found by their types."""

    def __init__(self, root: str, splits: tuple[str, ...]) -> None:
        """Open none of it yet.

        Raises:
            UserError: `datasets` is not installed, or the root is neither a folder nor a name.
        """
        _library()
        self.root = root
        self._splits = splits
        self._opened: dict[str, datasets.Dataset] = {}
        self._folder = expand(root) if expand(root).is_dir() else None
        self._hub = _HUB_NAME.fullmatch(root)
        if self._folder is None and self._hub is None:
            raise UserError(
                f"data.root {root}: there is no such folder, and it is no name on the hub (OWNER/NAME or OWNER/NAME:CONFIGURATION)"
            )

    @property
    def description(self) -> str:
        if self._folder is not None:
            return f"Hugging Face data set of the folder {self._folder.resolve().name}."
        return f"{self.root} of the Hugging Face hub."

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels' ClassLabel, else the labels."""
        named = {split: getattr(self._open(split).features[self._columns(split)[1]], "names", None) for split in self._splits}
        first, *others = named.values()
        if any(names != first for names in others):
            raise UserError(
                f"data.root {self.root}: the splits {', '.join(named)} name their classes differently; cast both to one ClassLabel"
            )
        return numbered_classes([self._labels(split) for split in self._splits]) if first is None else tuple(first)

    def fingerprint(self) -> str:
        if self._folder is not None:
            return fingerprint_of(self._folder, sorted(file for file in self._folder.rglob("*") if file.is_file()))
        return str(self._told(lambda: _library().load_dataset_builder(*self._hub_arguments).hash))

    def samples(self, split: str, limit: int | None) -> "HuggingFaceSamples":
        dataset, labels = self._open(split), self._labels(split)
        check_labels(labels, len(self.class_names), f"data.root {self.root}: {split}")
        rows = picks_of(len(labels), limit)
        files = [
            {"file": str(Path(one["filename"]).resolve()), "bytes": Path(one["filename"]).stat().st_size} for one in dataset.cache_files
        ]
        about = {"column": self._columns(split)[0], "split": split}
        return HuggingFaceSamples(Listing("huggingface", about, {"files": files}, {"rows": rows, "labels": labels[rows]}))

    @property
    def _hub_arguments(self) -> list[str]:
        assert self._hub is not None
        return [part for part in (self._hub["name"], self._hub["configuration"]) if part]

    def _open(self, split: str) -> "datasets.Dataset":
        if split not in self._opened:
            self._opened[split] = self._told(lambda: self._load(split))
        return self._opened[split]

    def _told(self, work: Callable[[], Any]) -> Any:
        """Let the library work; its errors in one line."""
        try:
            return work()
        except (OSError, ValueError, _library().exceptions.DatasetsError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise UserError(f"data.root {self.root}: cannot be opened as a Hugging Face data set ({reason})") from error

    def _load(self, split: str) -> "datasets.Dataset":
        library = _library()
        if self._folder is None:
            return library.load_dataset(*self._hub_arguments, split=split)
        saved = {file.parent.name for file in self._folder.glob("*/state.json")}
        if split in saved:
            return library.load_from_disk(str(self._folder / split))
        if saved or (self._folder / "state.json").is_file():
            have = ", ".join(sorted(saved)) or "a single data set"
            raise UserError(
                f"{self._folder}: there is no split {split} (found {have}); set data.train_split and data.test_split, or save a DatasetDict"
            )
        return library.load_dataset(str(self._folder), split=split)

    def _columns(self, split: str) -> tuple[str, str]:
        """Names of the columns that hold the images and the labels."""
        features = self._open(split).features
        images = [name for name, feature in features.items() if _holds_images(feature)]
        labels = [name for name, feature in features.items() if hasattr(feature, "names")]
        labels = labels or [name for name, feature in features.items() if re.fullmatch(r"u?int\d+", getattr(feature, "dtype", "") or "")]
        return self._only(images, "images", features), self._only(labels, "labels (ClassLabel, or whole numbers)", features)

    def _only(self, found: list[str], what: str, features: Any) -> str:
        preferred = [name for name in found if name in _LABEL_NAMES] if len(found) > 1 else found
        if len(preferred) == 1:
            return preferred[0]
        raise UserError(
            f"data.root {self.root}: wanted one column of {what}, found {', '.join(found) or 'none'} among {', '.join(features)}; "
            "remove or cast columns and save_to_disk the result"
        )

    def _labels(self, split: str) -> Int64[np.ndarray, "num"]:
        name = self._columns(split)[1]
        column = self._open(split).data.column(name)
        if column.null_count:
            raise UserError(f"data.root {self.root}: {column.null_count} images of {split} have no {name}; remove them")
        return np.asarray(column.to_numpy()).astype(np.int64)


def _holds_images(feature: Any) -> bool:
    """An Image, or what one looks like where nobody said that it is one: bytes, or a pair of bytes and path."""
    kind = type(feature).__name__
    if kind == "Value":
        return feature.dtype in ("binary", "large_binary")
    return kind == "Image" or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("data.source huggingface needs the library datasets; run: pip install 'g2sd-deploy[huggingface]'") from None
    return datasets


class HuggingFaceSamples:
    """Rows of memory-mapped Arrow files."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._rows = listing.arrays["rows"]
        self._column: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (HuggingFaceSamples, (self.listing,))

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        return self.listing.arrays["labels"]

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        return np.array([len(self)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        return f"{self.listing.about['split']}/{self._rows[index]}"

    def read(self, index: int) -> bytes:
        if self._column is None:
            self._column = self._opened()
        value = self._column[int(self._rows[index])].as_py()
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if content is not None:
            return bytes(content)
        if not path:
            raise BadImage("the row holds no image")
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise BadImage(f"the row names the file {Path(path).name}, which cannot be read ({error.strerror})") from None

    def _opened(self) -> Any:
        """The column of images, all files after one another."""
        import pyarrow

        parts = []
        for one in self.listing.where["files"]:
            path = Path(one["file"])
            if not path.is_file() or path.stat().st_size != one["bytes"]:
                raise UserError(f"{path}: is gone or has another size than when it was listed; run the data stage again with --force data")
            with pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))) as stream:
                parts += stream.read_all().column(self.listing.about["column"]).chunks
        return pyarrow.chunked_array(parts)
