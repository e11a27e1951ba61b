"""Dense data sets: what every source of them does, and samples that are reopened from a listing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from g2sd_deploy.data.dense.annotations import DenseSamples
from g2sd_deploy.data.dense.reading import DenseSource, reopened
from g2sd_deploy.data.sources.base import expand

__all__ = ["DenseSource", "find_dense_splits", "guess_dense_kind", "open_dense"]


def open_dense(folder: Path, where: Mapping[str, Any]) -> DenseSamples:
    """Reopen samples.

    Args:
        folder: Under which `DenseSamples.save` wrote.
        where: What it returned.

    Raises:
        UserError: They cannot be made as they were.
    """
    match where["source"]:
        case "scenes":
            from g2sd_deploy.data.scenes import open_scenes

            return open_scenes(where)
        case "coco":
            from g2sd_deploy.data.dense.coco import CocoSamples

            return CocoSamples(reopened(folder, where))
        case "huggingface":
            from g2sd_deploy.data.dense.huggingface import open_hub_masks

            return open_hub_masks(reopened(folder, where))
        case source:
            from g2sd_deploy.data.dense.mask_folder import open_mask_files

            assert source == "masks", f"no source is called {source}"
            return open_mask_files(reopened(folder, where))


def guess_dense_kind(root: str) -> str | None:
    """`coco` or `masks` where the folders at a root look like that; None where they do not."""
    folder = expand(root)
    if any(folder.glob("annotations/instances_*.json")):
        return "coco"
    return "masks" if (folder / "images").is_dir() and (folder / "annotations").is_dir() else None


def find_dense_splits(kind: str, root: str) -> tuple[str, ...]:
    """Names of the splits of a folder, sorted; none where it has none."""
    folder = expand(root)
    if kind == "coco":
        return tuple(sorted(file.stem.removeprefix("instances_") for file in folder.glob("annotations/instances_*.json")))
    return tuple(sorted(path.name for path in folder.glob("images/*") if path.is_dir()))
