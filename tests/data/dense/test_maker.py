"""Batches with the truth of pixels or objects: each a function of its ticket, with substitutes for bad images."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from g2sd_deploy.data.crop_maker import CropMaker
from g2sd_deploy.data.dense.annotations import IGNORED, Annotated, Instances
from g2sd_deploy.data.dense.augment import NUM_DETECTION_DRAWS, NUM_SEGMENTATION_DRAWS, detection_sample, segmentation_sample
from g2sd_deploy.data.dense.geometry import boxes_of
from g2sd_deploy.data.dense.maker import DenseMaker
from g2sd_deploy.data.dense.pixels_only import PixelsOnly
from g2sd_deploy.data.dense.targets import DetectionTruth, SegmentationTruth
from g2sd_deploy.data.images import BadImage, ImageSet, Samples
from g2sd_deploy.data.loading import Loaded, Loader, Ticket
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import AugmentSettings, DetectionAugmentSettings, SegmentationAugmentSettings

SEGMENT, DETECT = SegmentationAugmentSettings(), DetectionAugmentSettings(scale=(0.5, 2.0))
EITHER = pytest.mark.parametrize("augment", [SEGMENT, DETECT], ids=["segmentation", "detection"])
FILL = (26, 51, 76)


@dataclass(frozen=True)
class Scenes:
    """Images of different sizes, each with one bright square whose class is the image's index; some are bad."""

    num: int = 8
    bad: Mapping[int, str] = field(default_factory=dict)
    channels: int = 3

    def __len__(self) -> int:
        return self.num

    def name(self, index: int) -> str:
        return f"scene {index}"

    def read(self, index: int) -> Annotated:
        if index in self.bad:
            raise BadImage(self.bad[index])
        height, width = 20 + 3 * index, 30 - index
        pixels = np.full((height, width, self.channels), 40 + 10 * index, dtype=np.uint8)
        masks = np.zeros((1, height, width), dtype=bool)
        masks[0, 4:16, 6:18] = True
        pixels[masks[0]] = 250
        classes = np.where(masks[0], index, self.num).astype(np.uint8)
        return Annotated(pixels, classes, Instances(boxes_of(masks), np.array([index]), masks, np.array([False])))

    def save(self, folder: Path) -> dict[str, Any]:
        raise NotImplementedError


def maker(samples: Scenes, augment: SegmentationAugmentSettings | DetectionAugmentSettings, channels: int = 3) -> DenseMaker:
    mean = (0.1, 0.2, 0.3)[:channels]
    return DenseMaker(samples, augment, seed=5, image_px=24, num_channels=channels, mean=mean)


def ticket(*indices: int, epoch: int = 0) -> Ticket:
    return Ticket(epoch, np.array(indices, dtype=np.int64))


def plain(loaded: Loaded) -> list[Any]:
    """Everything that a batch holds, image by image, to be compared."""
    truth = loaded.truth
    if isinstance(truth, SegmentationTruth):
        return [(pixels.tolist(), classes.tolist()) for pixels, classes in zip(loaded.pixels, truth.classes, strict=True)]
    assert isinstance(truth, DetectionTruth)
    return [
        (pixels.tolist(), one.boxes.tolist(), one.labels.tolist(), one.masks.tolist(), one.size)
        for pixels, one in zip(loaded.pixels, truth.images, strict=True)
    ]


@EITHER
def test_a_batch_is_its_samples_one_by_one(augment: SegmentationAugmentSettings | DetectionAugmentSettings) -> None:
    make, indices = maker(Scenes(), augment), (3, 0, 7, 3)
    got = make(ticket(*indices))
    assert got.pixels.shape == (4, 3, 24, 24)
    assert got.pixels.is_contiguous()
    assert got.bad == ()
    assert plain(got) == [plain(make(ticket(index)))[0] for index in indices]
    assert plain(got) != plain(make(ticket(*indices, epoch=1)))


def test_a_batch_holds_what_the_samples_functions_make_of_its_draws() -> None:
    got = maker(Scenes(), SEGMENT)(ticket(2, epoch=4))
    draws = uniform(5, "segmentation", 4, np.array([2]), NUM_SEGMENTATION_DRAWS)[0]
    pixels, classes = segmentation_sample(Scenes().read(2), draws, SEGMENT, 24, FILL)
    assert isinstance(got.truth, SegmentationTruth)
    assert (got.pixels[0].permute(1, 2, 0).numpy() == pixels).all()
    assert (got.truth.classes[0].numpy() == classes).all()
    got = maker(Scenes(), DETECT)(ticket(2, epoch=4))
    draws = uniform(5, "detection", 4, np.array([2]), NUM_DETECTION_DRAWS)[0]
    pixels, truth = detection_sample(Scenes().read(2), draws, DETECT, 24, FILL)
    assert isinstance(got.truth, DetectionTruth)
    assert (got.pixels[0].permute(1, 2, 0).numpy() == pixels).all()
    assert torch.equal(got.truth.images[0].masks, truth.masks)


def test_padding_has_the_mean_colour_and_no_class() -> None:
    small = SegmentationAugmentSettings(scale=(0.5, 0.5))
    got = maker(Scenes(), small)(ticket(0, 1))
    assert isinstance(got.truth, SegmentationTruth)
    padding = got.truth.classes == IGNORED
    assert padding.any()
    assert got.pixels.permute(0, 2, 3, 1)[padding].unique(dim=0).tolist() == [list(FILL)]


@EITHER
def test_a_bad_image_is_replaced_by_the_next_good_one_with_its_truth_under_the_bad_ones_draws(
    augment: SegmentationAugmentSettings | DetectionAugmentSettings,
) -> None:
    make = maker(Scenes(bad={6: "torn", 7: "no masks"}), augment)
    got = make(ticket(5, 6))
    assert [(skipped.index, skipped.name, skipped.reason) for skipped in got.bad] == [(6, "scene 6", "torn"), (7, "scene 7", "no masks")]

    class SixIsZero(Scenes):
        def read(self, index: int) -> Annotated:
            return super().read(0 if index == 6 else index)

    assert plain(got) == plain(maker(SixIsZero(), augment)(ticket(5, 6)))
    assert plain(got) != plain(make(ticket(5, 0)))


def test_a_set_of_bad_images_ends_in_one_error() -> None:
    make = maker(Scenes(num=3, bad=dict.fromkeys(range(3), "torn")), SEGMENT)
    with pytest.raises(RunFailed, match=re.escape("scene 1 cannot be used (torn), nor can any of the 2 images after it")):
        make(ticket(1))


def test_what_is_not_the_images_fault_is_raised_as_it_is() -> None:
    class Unmounted(Scenes):
        def read(self, index: int) -> Annotated:
            raise UserError("the disk is gone")

    with pytest.raises(UserError, match="the disk is gone"):
        maker(Unmounted(), SEGMENT)(ticket(0))


@EITHER
def test_a_pickled_maker_makes_the_same_batches(augment: SegmentationAugmentSettings | DetectionAugmentSettings) -> None:
    make = maker(Scenes(), augment)
    assert plain(pickle.loads(pickle.dumps(make))(ticket(1, 2))) == plain(make(ticket(1, 2)))


@EITHER
@pytest.mark.parametrize(("stored", "wanted"), [(3, 1), (1, 3)])
def test_images_come_in_the_channels_that_the_network_wants(
    augment: SegmentationAugmentSettings | DetectionAugmentSettings, stored: int, wanted: int
) -> None:
    got = maker(Scenes(channels=stored), augment, wanted)(ticket(0, 1))
    assert got.pixels.shape == (2, wanted, 24, 24)


@EITHER
def test_a_loader_gives_the_makers_batches(augment: SegmentationAugmentSettings | DetectionAugmentSettings) -> None:
    make, tickets = maker(Scenes(bad={2: "torn"}), augment), [ticket(0, 1, 2), ticket(3, 4, 5)]
    for loaded, one in zip(Loader(make, workers=0, pin_memory=False).load(tickets), tickets, strict=True):
        assert plain(loaded) == plain(make(one))


def test_a_stage_without_truth_is_trained_on_crops_of_the_same_images() -> None:
    samples = PixelsOnly(Scenes(bad={3: "torn"}))
    assert isinstance(samples, Samples)
    assert (len(samples), samples.name(1), int(samples.block_sizes.sum())) == (8, "scene 1", 8)
    crops = CropMaker(samples, AugmentSettings(), seed=5, image_px=16, num_channels=3, mean=(0.1, 0.2, 0.3))
    got = pickle.loads(pickle.dumps(crops))(ticket(0, 3))
    assert torch.equal(got.truth, torch.zeros(2, dtype=torch.int64))
    assert [skipped.index for skipped in got.bad] == [3]
    alone = ImageSet(Scenes().read(0).pixels[None], np.array([0]))
    expected = CropMaker(alone, AugmentSettings(), seed=5, image_px=16, num_channels=3, mean=(0.1, 0.2, 0.3))(ticket(0))
    assert torch.equal(got.pixels[0], expected.pixels[0])
