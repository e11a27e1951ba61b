"""Images with one mask each, wherever the bytes of both come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from g2sd_deploy.data.dense.annotations import Annotated
from g2sd_deploy.data.dense.label_maps import kind_problem, semantic_map
from g2sd_deploy.data.dense.reading import rgb_pixels, save_listing
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.data.sources.listing import Listing


class Files(Protocol):
    """Encoded images by index."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """For messages."""
        ...

    def read(self, index: int) -> bytes:
        """The image's file."""
        ...


Opener = Callable[[Listing], Files]
"""Opens the images, or the masks, of a listing; a function of a module, so that it can be pickled."""


class MaskedImages:
    """Images and masks, as they were when they were listed."""

    def __init__(self, listing: Listing, open_images: Opener, open_masks: Opener) -> None:
        """Open both.

        Args:
            listing: Of both; its `about` holds `num_classes` and `ignore_zero`, as of `semantic_map`.
            open_images: For the images.
            open_masks: For the masks.
        """
        self._listing, self._openers = listing, (open_images, open_masks)
        self._images, self._masks = open_images(listing), open_masks(listing)

    def __reduce__(self) -> tuple[Any, ...]:
        return (MaskedImages, (self._listing, *self._openers))

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return self._images.name(index)

    def content(self, index: int) -> bytes:
        """The image's file."""
        return self._images.read(index)

    def remarks(self, index: int) -> list[tuple[str, str]]:
        """There are none; what is wrong with a mask is told by `read`."""
        return []

    def read(self, index: int) -> Annotated:
        return _with_map(self.content(index), self._mask(index), self._listing.about)

    def save(self, folder: Path) -> dict[str, Any]:
        return save_listing(self._listing, folder)

    def kind_problem(self) -> str | None:
        """Why the first mask's pixels are no numbers of classes; None where they may be."""
        try:
            return kind_problem(self._mask(0))
        except BadImage:
            return None

    def _mask(self, index: int) -> bytes:
        try:
            return self._masks.read(index)
        except BadImage as bad:
            raise BadImage(f"its mask {self._masks.name(index)}: {bad}") from None


def _with_map(image: bytes, mask: bytes, about: Any) -> Annotated:
    """An image with its semantic map.

    Args:
        image: An image file.
        mask: The PNG file of its mask.
        about: `num_classes` and `ignore_zero`, as of `semantic_map`.

    Raises:
        BadImage: One of them is damaged, or they differ in size.
    """
    pixels = rgb_pixels(image)
    classes = semantic_map(mask, about["num_classes"], ignore_zero=about["ignore_zero"])
    if classes.shape != pixels.shape[:2]:
        (high, wide), (height, width) = classes.shape, pixels.shape[:2]
        raise BadImage(f"its mask has {wide} x {high} pixels, but the image has {width} x {height}; was one of them resized, or turned?")
    return Annotated(pixels, classes, None)
