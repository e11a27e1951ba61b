"""The truth of a training batch: classes of pixels, or objects with boxes and masks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class SegmentationTruth:
    """The class of every pixel of a batch; `annotations.IGNORED` where nothing is asked."""

    classes: UInt8[Tensor, "batch height width"]

    def __len__(self) -> int:
        return len(self.classes)

    def part(self, start: int, stop: int) -> "SegmentationTruth":
        """The truth of the images start .. stop - 1."""
        return SegmentationTruth(self.classes[start:stop])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SegmentationTruth":
        """The same truth on another device."""
        return SegmentationTruth(self.classes.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "SegmentationTruth":
        """The same truth in page-locked memory."""
        return SegmentationTruth(self.classes.pin_memory())


@dataclass(frozen=True)
class ImageTruth:
    """The objects of one image of a batch.

    Attributes:
        boxes: Left, top, right, bottom in pixels; each is the tight box of its mask.
        labels: 0 .. classes - 1.
        masks: Over the whole padded image; true where the object is seen.
        size: Rows and columns that hold the image, at the top left; the rest is padding.
    """

    boxes: Float32[Tensor, "n 4"]
    labels: Int64[Tensor, " n"]
    masks: Bool[Tensor, "n height width"]
    size: tuple[int, int]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ImageTruth":
        """The same truth on another device."""
        boxes, labels, masks = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.boxes, self.labels, self.masks))
        return ImageTruth(boxes, labels, masks, self.size)


@dataclass(frozen=True)
class DetectionTruth:
    """The objects of a batch, image by image: their number differs. The masks of all images have one size."""

    images: tuple[ImageTruth, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Callable[..., "DetectionTruth"], tuple[object, ...]]:
        """Three tensors for all images: each one that a loader's worker sends holds a file open, and a process may open few."""
        return _split, (self._joined(), self._counts_and_sizes())

    def part(self, start: int, stop: int) -> "DetectionTruth":
        """The truth of the images start .. stop - 1."""
        return DetectionTruth(self.images[start:stop])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "DetectionTruth":
        """The same truth on another device."""
        return DetectionTruth(tuple(image.to(device, non_blocking) for image in self.images))

    def pin_memory(self) -> "DetectionTruth":
        """The same truth in page-locked memory."""
        boxes, labels, masks = (tensor.pin_memory() for tensor in self._joined())
        return _split((boxes, labels, masks), self._counts_and_sizes())

    def _joined(self) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes, labels and masks of all images in a row."""
        boxes, labels, masks = zip(*((image.boxes, image.labels, image.masks) for image in self.images), strict=True)
        return torch.cat(boxes), torch.cat(labels), torch.cat(masks)

    def _counts_and_sizes(self) -> list[tuple[int, tuple[int, int]]]:
        return [(len(image.labels), image.size) for image in self.images]


def _split(joined: tuple[Tensor, Tensor, Tensor], counts_and_sizes: list[tuple[int, tuple[int, int]]]) -> DetectionTruth:
    counts = [count for count, _ in counts_and_sizes]
    boxes, labels, masks = (tensor.split_with_sizes(counts) for tensor in joined)
    sizes = [size for _, size in counts_and_sizes]
    return DetectionTruth(tuple(ImageTruth(*of_one) for of_one in zip(boxes, labels, masks, sizes, strict=True)))
