"""Image sources: where images, labels and class names come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.data.images import Samples
from g2sd_deploy.data.sources.base import Source, expand, is_remote
from g2sd_deploy.data.sources.folder import FileSamples, FolderSource
from g2sd_deploy.data.sources.idx import BUNDLED, BUNDLED_FASHION_MNIST, CHECKSUMS, FASHION_MNIST_CLASSES, LABELS, IdxSource
from g2sd_deploy.data.sources.listing import Listing
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_deploy.settings import DataSettings

__all__ = [
    "BUNDLED_FASHION_MNIST",
    "CHECKSUMS",
    "FASHION_MNIST_CLASSES",
    "LABELS",
    "FolderSource",
    "IdxSource",
    "Source",
    "expand",
    "guess_kind",
    "open_samples",
    "open_source",
    "save_samples",
    "source_of",
]


def guess_kind(root: str) -> str:
    """Kind of the source that lies at a root, from the names of its files; `folder` where they say nothing."""
    folder = expand(root)
    if root == BUNDLED_FASHION_MNIST:
        return "idx"
    if is_remote(root):
        return "shards"
    if folder.suffix == ".npz":
        return "numpy"
    patterns = {
        "idx": ("*-idx?-ubyte*",),
        "shards": ("*.tar", "*/*.tar"),
        "huggingface": ("dataset_dict.json", "state.json", "*.parquet", "*/*.parquet"),
        "numpy": ("*_images.npy",),
    }
    found = (kind for kind, names in patterns.items() if folder.is_dir() and any(any(folder.glob(name)) for name in names))
    return next(found, "folder")


def source_of(settings: "DataSettings") -> Source:
    """The source that a recipe names."""
    return open_source(settings.source, settings.root, splits=(settings.train_split, settings.test_split), cache_gib=settings.cache_gib)


def open_source(kind: str, root: str, *, splits: Sequence[str] = ("train", "test"), cache_gib: float | None = None) -> Source:
    """Open a data set; see `DataSettings.source` and `DataSettings.root`.

    Args:
        kind: As `DataSettings.source`.
        root: As `DataSettings.root`.
        splits: Splits that will be read, for a source that can neither list its splits nor name its classes without them.
        cache_gib: As `DataSettings.cache_gib`.

    Raises:
        UserError: The folder is missing, or a library for this kind is.
    """
    if root == BUNDLED_FASHION_MNIST:
        if kind != "idx":
            raise UserError(f"data.root {root} needs data.source idx, not {kind}")
        return IdxSource(BUNDLED)
    match kind:
        case "shards":
            from g2sd_deploy.data.sources.shards import open_shards

            return open_shards(root, tuple(splits), cache_gib)
        case "huggingface":
            from g2sd_deploy.data.sources.huggingface import HuggingFaceSource

            return HuggingFaceSource(root, tuple(splits))
        case "numpy":
            from g2sd_deploy.data.sources.arrays import open_arrays

            return open_arrays(_there(root), tuple(splits))
        case "idx":
            return IdxSource(_folder(root))
        case _:
            return FolderSource(_folder(root))


def _there(root: str) -> Path:
    if is_remote(root):
        raise UserError(f"data.root {root}: only shards and Hugging Face data sets are read from an address; give a folder")
    path = expand(root)
    if not path.exists():
        raise UserError(f"data.root {root}: there is no such folder; set data.root to the folder of the images")
    return path


def _folder(root: str) -> Path:
    path = _there(root)
    if not path.is_dir():
        raise UserError(f"data.root {root}: there is no such folder; set data.root to the folder of the images")
    return path


def save_samples(samples: Samples, folder: Path) -> dict[str, Any]:
    """Write what it takes to reopen samples, in another process too, without listing their source again.

    Returns:
        Where they lie; `open_samples` has to be told.

    Raises:
        UserError: They have no files of their own to be read from.
    """
    listing = getattr(samples, "listing", None)
    if not isinstance(listing, Listing):
        raise UserError("data.store is encoded, but these images lie in memory, not in files; set data.store to arrays")
    listing.save(folder)
    return dict(listing.where)


def open_samples(folder: Path, where: Mapping[str, Any]) -> Samples:
    """Reopen what `save_samples` wrote, of samples that lie there."""
    listing = Listing.open(folder, where)
    match listing.kind:
        case "files":
            return FileSamples(listing)
        case "shards":
            from g2sd_deploy.data.sources.shards import ShardSamples

            return ShardSamples(listing)
        case "huggingface":
            from g2sd_deploy.data.sources.huggingface import HuggingFaceSamples

            return HuggingFaceSamples(listing)
        case _:
            from g2sd_deploy.data.sources.arrays import ArraySamples

            return ArraySamples(listing)
