"""Hugging Face data sets with a column of images and a column of masks."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from g2sd_deploy.data.dense.masked_images import MaskedImages
from g2sd_deploy.data.dense.reading import find_class_names, read_class_names
from g2sd_deploy.data.images import picks_of
from g2sd_deploy.data.sources.base import expand
from g2sd_deploy.data.sources.huggingface import HuggingFaceSamples, HuggingFaceSource
from g2sd_deploy.data.sources.listing import Listing
from g2sd_deploy.errors import UserError

SOURCE = "huggingface"
_IMAGE_COLUMNS = ("image", "images", "img", "pixel_values", "picture", "photo", "jpg")
_MASK_COLUMNS = (
    "annotation", "annotations", "label", "labels", "mask", "masks", "segmentation", "segmentation_mask", "segmentation_map",
    "semantic_mask", "semantic_segmentation", "label_map", "gt", "ground_truth", "png",
)  # fmt: skip


class HubMasks:
    """Splits of one data set: a name on the hub, a folder of Parquet files, or one that `save_to_disk` wrote."""

    def __init__(self, root: str, *, ignore_zero: bool, classes: Path | None = None) -> None:
        """Open none of it yet.

        Args:
            root: As `DataSettings.root`.
            ignore_zero: 0 in a mask stands for nothing, and 1 for the first class.
            classes: A file of class names; else classes.txt or id2label.json of the folder.

        Raises:
            UserError: `datasets` is not installed, or the root is neither a folder nor a name.
        """
        self._hub = HuggingFaceSource(root, ())
        self._classes = classes
        self._ignore_zero = ignore_zero

    @property
    def description(self) -> str:
        return self._hub.description

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        folder = expand(self._hub.root)
        names = read_class_names(self._classes) if self._classes else find_class_names(folder) if folder.is_dir() else None
        if names is None:
            raise UserError(
                f"data.root {self._hub.root}: nothing says what its classes are called; save the data set to a folder, put a classes.txt "
                "with one name a line into it, and set data.root to that folder"
            )
        return names

    def fingerprint(self) -> str:
        return self._hub.fingerprint()

    def samples(self, split: str, limit: int | None) -> MaskedImages:
        dataset = self._hub._open(split)
        image, mask = self._columns(dataset.features)
        files = [
            {"file": str(Path(one["filename"]).resolve()), "bytes": Path(one["filename"]).stat().st_size} for one in dataset.cache_files
        ]
        about = {
            "image": image,
            "mask": mask,
            "split": split,
            "num_classes": len(self.class_names),
            "ignore_zero": self._ignore_zero,
        }
        rows = picks_of(len(dataset), limit)
        if not len(rows):
            raise UserError(f"data.root {self._hub.root}: {split} holds no images; set data.train_split and data.test_split")
        samples = open_hub_masks(Listing(SOURCE, about, {"source": SOURCE, "files": files}, {"rows": rows}))
        if problem := samples.kind_problem():
            raise UserError(f"data.root {self._hub.root}: the mask of {split}/{rows[0]} {problem}")
        return samples

    def _columns(self, features: Any) -> tuple[str, str]:
        """Names of the columns that hold the images and the masks."""
        pictures = [name for name, feature in features.items() if _holds_images(feature)]
        masks = _only(pictures, _MASK_COLUMNS)
        images = _only([name for name in pictures if name not in masks], _IMAGE_COLUMNS)
        if len(masks) != 1 or len(images) != 1:
            raise UserError(
                f"data.root {self._hub.root}: wanted one column of images called image and one of masks called annotation, label, mask or "
                f"segmentation, found {', '.join(pictures) or 'none'} among {', '.join(features)}; rename or remove columns and "
                "save_to_disk the result"
            )
        return images[0], masks[0]


def _only(names: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Those of the usual names; of names that are none of them, a single one will do where it is the images'."""
    known = [name for name in names if name.lower() in usual]
    return known or (list(names) if usual is _IMAGE_COLUMNS else [])


def _holds_images(feature: Any) -> bool:
    """An Image, or what one looks like where nobody said that it is one: bytes, or a pair of bytes and path."""
    kind = type(feature).__name__
    if kind == "Value":
        return feature.dtype in ("binary", "large_binary")
    return kind == "Image" or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def open_hub_masks(listing: Listing) -> MaskedImages:
    """Rows of memory-mapped Arrow files, as they were when they were listed."""
    return MaskedImages(listing, _images_of, _masks_of)


def _images_of(listing: Listing) -> HuggingFaceSamples:
    return _column(listing, "image")


def _masks_of(listing: Listing) -> HuggingFaceSamples:
    return _column(listing, "mask")


def _column(listing: Listing, kind: str) -> HuggingFaceSamples:
    about = {"column": listing.about[kind], "split": listing.about["split"]}
    return HuggingFaceSamples(Listing("huggingface", about, listing.where, {"rows": listing.arrays["rows"]}))
