"""Images with one mask each: images/SPLIT/NAME.jpg and annotations/SPLIT/NAME.png, as ADE20K has them."""

from functools import cached_property
from pathlib import Path

from g2sd_deploy.data.dense.masked_images import MaskedImages
from g2sd_deploy.data.dense.reading import existing_folder, file_arrays, find_class_names, listed_files
from g2sd_deploy.data.images import picks_of
from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES, fingerprint_of
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.sources.listing import Listing
from g2sd_deploy.errors import UserError

SOURCE = "masks"
IMAGES, MASKS = "images", "annotations"


class MaskFolder:
    """Images and masks of the same name in two folders; class names in a file beside them."""

    def __init__(self, root: str | Path, *, ignore_zero: bool) -> None:
        """Open none of it yet.

        Args:
            root: As `DataSettings.root`.
            ignore_zero: 0 in a mask stands for nothing, and 1 for the first class.

        Raises:
            UserError: The root is no folder.
        """
        self._root = existing_folder(root)
        self._ignore_zero = ignore_zero

    @property
    def description(self) -> str:
        return f"Images with masks of the folder {self._root.resolve().name}."

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of classes.txt, or of ADE20K's objectInfo150.txt."""
        names = find_class_names(self._root)
        if names is None:
            raise UserError(
                f"{self._root}: holds no classes.txt; write one with the name of each class, one a line, the class of number 0 first"
            )
        return names

    def fingerprint(self) -> str:
        lists = [file for file in sorted(self._root.glob("*")) if file.suffix in (".txt", ".json")]
        held = [file for folder in (IMAGES, MASKS) for file in sorted((self._root / folder).rglob("*")) if file.is_file()]
        return fingerprint_of(self._root, [*lists, *held])

    def samples(self, split: str, limit: int | None) -> MaskedImages:
        images, masks = self._files(IMAGES, split), self._files(MASKS, split)
        self._check_pairs(images, masks)
        names = sorted(images)
        picks = [names[i] for i in picks_of(len(names), limit)]
        arrays = file_arrays(self._root, [images[name] for name in picks])
        arrays |= file_arrays(self._root, [masks[name] for name in picks], "mask_")
        about = {"num_classes": len(self.class_names), "ignore_zero": self._ignore_zero}
        samples = open_mask_files(Listing(SOURCE, about, {"source": SOURCE, "root": str(self._root.resolve())}, arrays))
        if problem := samples.kind_problem():
            raise UserError(f"{masks[picks[0]]}: as a mask it {problem}")
        return samples

    def _files(self, kind: str, split: str) -> dict[str, Path]:
        """Files of a split by their path without suffix."""
        folder = self._root / kind / split
        if not folder.is_dir():
            have = ", ".join(sorted(path.name for path in (self._root / kind).glob("*") if path.is_dir())) or "no folders"
            raise UserError(
                f"{folder}: there is no such folder (found {have} in {kind}); wanted {IMAGES}/SPLIT and {MASKS}/SPLIT: correct data.root, "
                "data.train_split and data.test_split"
            )
        wanted = IMAGE_SUFFIXES if kind == IMAGES else {".png"}
        files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in wanted and file.is_file()]
        if not files:
            raise UserError(f"{folder}: holds no {'image' if kind == IMAGES else 'mask (.png)'}; put the files there, or correct data.root")
        found: dict[str, Path] = {}
        for file in files:
            first = found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)
            if first is not file:
                raise UserError(f"{file}: has the name of {first.name}, so that one mask would belong to both; rename or remove one")
        return found

    def _check_pairs(self, images: dict[str, Path], masks: dict[str, Path]) -> None:
        if alone := [images[name] for name in images if name not in masks]:
            raise UserError(
                f"{alone[0]}: has no mask of the same name with .png in {MASKS} ({len(alone)} such images); add it, or remove the image"
            )
        if alone := [masks[name] for name in masks if name not in images]:
            raise UserError(f"{alone[0]}: is the mask of no image ({len(alone)} such masks); add the image to {IMAGES}, or remove the mask")


def open_mask_files(listing: Listing) -> MaskedImages:
    """Image and mask files, as they were when they were listed."""
    return MaskedImages(listing, listed_files, _mask_files)


def _mask_files(listing: Listing) -> FileSamples:
    return listed_files(listing, "mask_")
