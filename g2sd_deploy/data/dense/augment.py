"""Training samples of dense tasks: an image and its truth, scaled, mirrored, cut and padded together."""

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from g2sd_deploy.data.boxes import placed
from g2sd_deploy.data.dense.annotations import IGNORED, Annotated
from g2sd_deploy.data.dense.geometry import View, boxes_of, resized_by, view_classes, view_masks, view_pixels
from g2sd_deploy.data.dense.photometric import NUM_PHOTOMETRIC_DRAWS, photometric_distortion
from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.settings import DetectionAugmentSettings, SegmentationAugmentSettings

LONGEST = 4
"""Sides of the crop that the long side of an image of factor 1 has at most: 2048 to 512 pixels, as for ADE20K."""
NUM_RETRIES = 10
"""Crops that are drawn anew where one class fills too much of them."""
_NUM_PLACES = 1 + NUM_RETRIES
NUM_SEGMENTATION_DRAWS = 2 + 2 * _NUM_PLACES + NUM_PHOTOMETRIC_DRAWS
NUM_DETECTION_DRAWS = 3


def segmentation_sample(
    annotated: Annotated,
    draws: Float64[np.ndarray, "33"],
    settings: SegmentationAugmentSettings,
    image_px: int,
    fill: tuple[int, ...],
) -> tuple[UInt8[np.ndarray, "{image_px} {image_px} c"], UInt8[np.ndarray, "{image_px} {image_px}"]]:
    """Scale, mirror, crop and distort an image with its semantic map.

    Args:
        annotated: An image with classes.
        draws: Uniform numbers in [0, 1): factor of the scale, mirroring (below 0.5), top and left of the crop and of ten further ones, then
            those of `photometric_distortion`.
        settings: Range of the factor; what is done at all; largest share of one class in a crop.
        image_px: Side of the crop. At factor 1 the image's short side is as long, unless its long side would be more than four times that.
        fill: One 8-bit level per channel, for the padding at the right and at the bottom of an image that is smaller than the crop.

    Returns:
        Pixels, and classes; IGNORED in the padding.

    Source: open-mmlab/mmsegmentation@v0.11.0, mmseg/datasets/pipelines/transforms.py (Resize with a ratio range, RandomCrop, RandomFlip,
    PhotoMetricDistortion, Pad). Differs: antialiased resizing; padding has the colour `fill`, where the original pads with zeros after
    normalisation (that is the mean, and so is `fill` in training); the scaled size is not cut to whole pixels before the image is fitted.
    """
    assert annotated.classes is not None, "a sample for segmentation has classes"
    view = _segmentation_view(annotated.classes, draws, settings, image_px)
    pixels, classes = view_pixels(annotated.pixels, view), view_classes(annotated.classes, view)
    if settings.photometric:
        pixels = photometric_distortion(pixels, draws[-NUM_PHOTOMETRIC_DRAWS:])
    padded = np.full((image_px, image_px), IGNORED, dtype=np.uint8)
    padded[: classes.shape[0], : classes.shape[1]] = classes
    return _padded(pixels, image_px, fill), padded


def detection_sample(
    annotated: Annotated,
    draws: Float64[np.ndarray, "3"],
    settings: DetectionAugmentSettings,
    image_px: int,
    fill: tuple[int, ...],
) -> tuple[UInt8[np.ndarray, "{image_px} {image_px} c"], ImageTruth]:
    """Large-scale jitter of an image with its objects.

    A box becomes that of the part of its mask that is seen; objects of which no pixel is seen are dropped. Crowd regions are dropped: what
    lies in them is trained as background, as in the original.

    Args:
        annotated: An image with instances.
        draws: Uniform numbers in [0, 1): factor of the scale, mirroring (below 0.5), place of the crop (one number for both axes).
        settings: Range of the factor; whether to mirror.
        image_px: Side of the square. At factor 1 the image's long side is as long.
        fill: One 8-bit level per channel, for the padding at the right and at the bottom.

    Source: arXiv 2012.07177 and 2203.16527; facebookresearch/detectron2, detectron2/data/transforms/augmentation_impl.py (RandomFlip,
    ResizeScale, FixedSizeCrop), projects/ViTDet (boxes from masks). Differs: antialiased resizing by torch, not Pillow; the crop's first
    and last place are as likely as the others.
    """
    assert annotated.instances is not None, "a sample for detection has instances"
    view = _detection_view(annotated.pixels.shape[:2], draws, settings, image_px)
    wanted = ~annotated.instances.crowd
    masks, labels = view_masks(annotated.instances.masks[wanted], view), annotated.instances.labels[wanted]
    seen = masks.any(axis=(1, 2))
    masks, labels = masks[seen], labels[seen]
    truth = ImageTruth(torch.from_numpy(boxes_of(masks)), torch.from_numpy(labels), torch.from_numpy(masks), view.shown)
    return _padded(view_pixels(annotated.pixels, view), image_px, fill), truth


def _segmentation_view(
    classes: UInt8[np.ndarray, "h w"], draws: Float64[np.ndarray, "33"], settings: SegmentationAugmentSettings, image_px: int
) -> View:
    """The first of eleven crops in which no class fills too much, or the last one."""
    size = (classes.shape[0], classes.shape[1])
    fitting = min(LONGEST * image_px / max(size), image_px / min(size))
    resized = resized_by(size, fitting * _factor(settings.scale, draws[0]))
    corners = _corners(draws[2 : 2 + 2 * _NUM_PLACES].reshape(_NUM_PLACES, 2), resized, image_px)
    views = [View(size, resized, (top, left), image_px, settings.flip and bool(draws[1] < 0.5)) for top, left in corners.tolist()]
    if settings.max_share >= 1:
        return views[0]
    return next((view for view in views[:-1] if _is_mixed(view_classes(classes, view), settings.max_share)), views[-1])


def _is_mixed(classes: UInt8[np.ndarray, "rows columns"], max_share: float) -> bool:
    """Whether each class fills less than this share of what is not ignored."""
    counts = np.bincount(classes.ravel(), minlength=IGNORED + 1)[:IGNORED]
    return bool(counts.max() < max_share * counts.sum())


def _detection_view(size: tuple[int, ...], draws: Float64[np.ndarray, "3"], settings: DetectionAugmentSettings, image_px: int) -> View:
    height, width = size
    resized = resized_by((height, width), image_px / max(height, width) * _factor(settings.scale, draws[0]))
    top, left = _corners(draws[[[2, 2]]], resized, image_px)[0].tolist()
    return View((height, width), resized, (top, left), image_px, settings.flip and bool(draws[1] < 0.5))


def _corners(draws: Float64[np.ndarray, "num 2"], resized: tuple[int, int], image_px: int) -> Int64[np.ndarray, "num 2"]:
    """Top and left of crops by their draws; 0 along an axis that is not longer than the crop."""
    each = np.ones(len(draws), dtype=np.int64)
    starts = [placed(draws[:, axis], min(image_px, length) * each, length) for axis, length in enumerate(resized)]
    return np.stack(starts, axis=1)


def _factor(scale: tuple[float, float], draw: float) -> float:
    return float(scale[0] + draw * (scale[1] - scale[0]))


def _padded(pixels: UInt8[np.ndarray, "rows columns c"], image_px: int, fill: tuple[int, ...]) -> UInt8[np.ndarray, "side side c"]:
    padded = np.empty((image_px, image_px, pixels.shape[2]), dtype=np.uint8)
    padded[:] = fill
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded
