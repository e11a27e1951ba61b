"""Batches of augmented images with the truth of their pixels or objects."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from g2sd_deploy.data.dense.annotations import IGNORED, Annotated, DenseSamples
from g2sd_deploy.data.dense.augment import NUM_DETECTION_DRAWS, NUM_SEGMENTATION_DRAWS, detection_sample, segmentation_sample
from g2sd_deploy.data.dense.targets import DetectionTruth, ImageTruth, SegmentationTruth
from g2sd_deploy.data.loading import Loaded, Ticket
from g2sd_deploy.data.pixels import open_sample
from g2sd_deploy.data.rand_augment import fill_from_mean
from g2sd_deploy.data.substitutes import BadImages
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import DetectionAugmentSettings, SegmentationAugmentSettings

Truth = UInt8[np.ndarray, "side side"] | ImageTruth
Sample = tuple[UInt8[np.ndarray, "side side channels"], Truth]


class DenseMaker:
    """Makes the batch of a ticket, for segmentation or for detection, as the settings say.

    A bad image is replaced by the next good one, with that one's truth, under the bad one's draws.

    Args:
        samples: Images of one split with the truth that is wanted.
        augment: How an image is augmented with its truth.
        seed: The recipe's seed.
        image_px: Side of the images that come out.
        num_channels: 1 (grey) or 3 (RGB).
        mean: Of each channel, in units of pixel / 255; the colour of the padding.
    """

    def __init__(
        self,
        samples: DenseSamples,
        augment: SegmentationAugmentSettings | DetectionAugmentSettings,
        *,
        seed: int,
        image_px: int,
        num_channels: int,
        mean: tuple[float, ...],
    ) -> None:
        self._samples, self._augment, self._seed = samples, augment, seed
        self._image_px, self._num_channels, self._fill = image_px, num_channels, fill_from_mean(mean)
        self._stream, self._num_draws = "detection", NUM_DETECTION_DRAWS
        if isinstance(augment, SegmentationAugmentSettings):
            self._stream, self._num_draws = "segmentation", NUM_SEGMENTATION_DRAWS

    def __call__(self, ticket: Ticket) -> Loaded:
        draws = uniform(self._seed, self._stream, ticket.epoch, ticket.indices, self._num_draws)
        pixels = torch.empty(len(ticket.indices), self._num_channels, self._image_px, self._image_px, dtype=torch.uint8)
        images, truths, bad = pixels.permute(0, 2, 3, 1).numpy(), list[Truth](), BadImages(self._samples)
        for place, index in enumerate(ticket.indices.tolist()):
            _, (images[place], truth) = bad.usable(index, partial(self._sample, draws[place]))
            truths.append(truth)
        return Loaded(pixels, _together(truths), bad.found)

    def blank_truth(self, num: int) -> SegmentationTruth | DetectionTruth:
        """The truth of `num` images on which there is nothing."""
        side = self._image_px
        if isinstance(self._augment, SegmentationAugmentSettings):
            return SegmentationTruth(torch.full((num, side, side), IGNORED, dtype=torch.uint8))
        nothing = (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, side, side, dtype=torch.bool))
        return DetectionTruth(tuple(ImageTruth(*nothing, size=(side, side)) for _ in range(num)))

    def _sample(self, draws: Float64[np.ndarray, "num"], index: int) -> Sample:
        annotated = self._samples.read(index)
        annotated = Annotated(open_sample(annotated.pixels, self._num_channels).decode(), annotated.classes, annotated.instances)
        if isinstance(self._augment, SegmentationAugmentSettings):
            return segmentation_sample(annotated, draws, self._augment, self._image_px, self._fill)
        return detection_sample(annotated, draws, self._augment, self._image_px, self._fill)


def _together(truths: list[Truth]) -> SegmentationTruth | DetectionTruth:
    maps = [truth for truth in truths if not isinstance(truth, ImageTruth)]
    if maps:
        return SegmentationTruth(torch.from_numpy(np.stack(maps)))
    return DetectionTruth(tuple(truth for truth in truths if isinstance(truth, ImageTruth)))
