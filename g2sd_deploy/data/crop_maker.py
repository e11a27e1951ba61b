"""Batches of random crops for a network that answers for a whole image."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, crop_boxes
from g2sd_deploy.data.images import BadImage, Samples
from g2sd_deploy.data.loading import Loaded, Ticket
from g2sd_deploy.data.pixels import Opened, crop_sample, cut, is_mirrored, open_sample
from g2sd_deploy.data.rand_augment import fill_from_mean, rand_augment
from g2sd_deploy.data.substitutes import BadImages
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import AugmentSettings


class CropMaker:
    """Makes the batch of a ticket: crop, flip and RandAugment; the truth is each image's label.

    Args:
        samples: Images of one split.
        augment: Crop, flip and, where they are ClassifyAugmentSettings, RandAugment.
        seed: The recipe's seed.
        image_px: Side of the images that come out.
        num_channels: 1 (grey) or 3 (RGB).
        mean: Of each channel, in units of pixel / 255; the colour of what RandAugment brings into view.
    """

    def __init__(
        self, samples: Samples, augment: AugmentSettings, *, seed: int, image_px: int, num_channels: int, mean: tuple[float, ...]
    ) -> None:
        self._samples, self._augment, self._seed = samples, augment, seed
        self._image_px, self._num_channels, self._fill = image_px, num_channels, fill_from_mean(mean)
        self._policy = augment.policy
        self._labels = np.asarray(samples.labels)

    def __call__(self, ticket: Ticket) -> Loaded:
        draws = uniform(self._seed, "crop", ticket.epoch, ticket.indices, NUM_CROP_DRAWS)
        size = (len(ticket.indices), self._num_channels, self._image_px, self._image_px)
        bad = BadImages(self._samples)
        pixels = torch.empty(size, dtype=torch.uint8)
        if self._policy is not None:  # Pillow wants pixels, a network planes
            pixels = pixels.view(size[0], size[2], size[3], size[1]).permute(0, 3, 1, 2)
        used, images = ticket.indices.copy(), pixels.permute(0, 2, 3, 1).numpy()
        for place, crop in enumerate(self._crops(ticket.indices, draws, bad)):
            if crop is None:
                used[place], crop = bad.substitute(int(ticket.indices[place]), partial(self._crop, draws[place]))
            images[place] = crop
        if self._policy is not None:
            filter_name = self._augment.interpolation
            images = rand_augment(images, self._policy, self._seed, ticket.epoch, ticket.indices, self._fill, interpolation=filter_name)
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return Loaded(pixels, torch.from_numpy(self._labels[used].astype(np.int64)), bad.found)

    def _crops(
        self, indices: Int64[np.ndarray, "batch"], draws: Float64[np.ndarray, "batch 23"], bad: BadImages
    ) -> Iterator[UInt8[np.ndarray, "side side channels"] | None]:
        """Each image's crop; None for a bad image. The boxes are computed at once: one at a time they would take a tenth of the time."""
        opened = [self._opened(int(index), bad) for index in indices]
        sizes = np.array([(1, 1) if image is None else image.size for image in opened], dtype=np.int64)
        boxes = crop_boxes(draws, self._augment, sizes)
        for index, image, box, numbers in zip(indices, opened, boxes, draws, strict=True):
            try:
                if image is not None:
                    yield cut(image, box, self._augment, self._image_px, mirrored=is_mirrored(numbers, self._augment))
                    continue
            except BadImage as error:
                bad.note(int(index), error)
            yield None

    def _opened(self, index: int, bad: BadImages) -> Opened | None:
        try:
            return open_sample(self._samples.read(index), self._num_channels)
        except BadImage as error:
            bad.note(index, error)
            return None

    def _crop(self, draws: Float64[np.ndarray, "23"], index: int) -> UInt8[np.ndarray, "side side channels"]:
        return crop_sample(self._samples.read(index), draws, self._augment, self._image_px, self._num_channels)
