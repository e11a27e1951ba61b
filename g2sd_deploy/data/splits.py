"""Which splits a data set has."""

import re
import zipfile
from pathlib import Path, PurePosixPath

from g2sd_deploy.data.dense.opening import find_dense_splits
from g2sd_deploy.data.manifest import MANIFEST, read_manifest
from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, expand
from g2sd_deploy.errors import UserError

_USUAL = ("train", "test")


def find_splits(kind: str, root: str) -> tuple[str, ...]:
    """Names of the splits at a root, sorted; `train` and `test` where the kind of source has no others or its files do not say.

    Raises:
        UserError: It is a folder without class folders.
    """
    folder = expand(root)
    if root == BUNDLED_FASHION_MNIST:
        return _USUAL
    match kind:
        case "folder" if folder.is_dir():
            found = {path.parent.name for path in folder.glob("[!.]*/[!.]*") if path.is_dir()}
            if not found:
                raise UserError(f"{folder}: holds no class folders; wanted SPLIT/CLASS/IMAGE, for example train/cat/1.jpg")
        case "shards" if folder.is_dir():
            found = _shard_splits(folder)
        case "numpy" if folder.exists():
            found = _array_splits(folder)
        case "huggingface":
            found = _hugging_face_splits(root, folder)
        case "masks" | "coco":
            found = set(find_dense_splits(kind, root))
        case _:
            found = set()
    return tuple(sorted(found)) or _USUAL


def chosen_splits(kind: str, root: str, asked: str | None) -> tuple[str, ...]:
    """The splits of a comma-separated list, or all that there are.

    Raises:
        UserError: The list is empty or names a split twice.
    """
    if asked is None:
        return find_splits(kind, root)
    names = tuple(name.strip() for name in asked.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise UserError(f"--splits is {asked!r}; wanted names with commas between them, each once, for example train,val")
    return names


def _shard_splits(folder: Path) -> set[str]:
    manifest = folder / MANIFEST
    if manifest.is_file():
        return set(read_manifest(manifest.read_text(encoding="utf-8"), str(manifest)).splits)
    flat = {re.sub(r"[-_]?\d+$", "", path.stem) for path in folder.glob("[!.]*.tar")}
    return (flat - {""}) or {path.parent.name for path in folder.glob("[!.]*/*.tar")}


def _array_splits(folder: Path) -> set[str]:
    names = [path.stem for path in folder.glob("*.npy")]
    if folder.is_file():
        try:
            with zipfile.ZipFile(folder) as arrays:
                names = [PurePosixPath(name).stem for name in arrays.namelist()]
        except (OSError, zipfile.BadZipFile):
            return set()  # whoever opens the source says what is wrong with it
    return {name.removesuffix("_images") for name in names if name.endswith("_images")}


def _hugging_face_splits(root: str, folder: Path) -> set[str]:
    saved = {path.parent.name for path in folder.glob("*/state.json")}
    if saved:
        return saved
    try:
        import datasets

        name, _, configuration = (str(folder), "", "") if folder.is_dir() else root.partition(":")
        return set(datasets.get_dataset_split_names(name, configuration or None))
    except (ImportError, OSError, ValueError):
        return set()  # whoever opens the source says what is wrong with it
