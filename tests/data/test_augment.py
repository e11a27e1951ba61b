"""Crops against torchvision, Pillow and timm."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, crop_boxes, random_resized_crop
from g2sd_deploy.settings import AugmentSettings

STILL = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
USUAL = AugmentSettings()
WILD = AugmentSettings(crop_scale=(0.05, 0.9), crop_ratio=(0.2, 5.0))  # many shapes do not fit
TALL = AugmentSettings(crop_scale=(0.9, 1.0), crop_ratio=(0.3, 0.4))  # none fits
BICUBIC = {"interpolation": "bicubic"}


def pictures(num: int = 6, image_px: int = 12, channels: int = 2) -> Tensor:
    return torch.rand(num, channels, image_px, image_px, generator=torch.Generator().manual_seed(0))


def drawn(num: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num, NUM_CROP_DRAWS))


def box_by_hand(draws: np.ndarray, settings: AugmentSettings, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width as torchvision's RandomResizedCrop finds them, with Python's numbers."""
    (low, high), (narrow, wide) = settings.crop_scale, settings.crop_ratio
    attempts = [(draws[0], draws[1]), *zip(draws[5::2], draws[6::2], strict=True)]
    for area_draw, ratio_draw in attempts:
        area = height * width * (low + (high - low) * area_draw)
        ratio = math.exp(math.log(narrow) * (1 - ratio_draw) + math.log(wide) * ratio_draw)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[3] * (height - h + 1)), int(draws[2] * (width - w + 1)), h, w
    h, w = height, width
    if width / height < narrow:
        h = round(width / narrow)
    elif width / height > wide:
        w = round(height * wide)
    return (height - h) // 2, (width - w) // 2, h, w


def crop_by_torchvision(image: Tensor, draws: np.ndarray, settings: AugmentSettings, image_px: int) -> Tensor:
    box = box_by_hand(draws, settings, image.shape[1], image.shape[2])
    mode = InterpolationMode(settings.interpolation)
    crop = functional.resized_crop(image, *box, [image_px, image_px], mode, antialias=True)
    return crop.flip(2) if settings.flip and draws[4] < 0.5 else crop


@pytest.mark.parametrize("image_px", [7, 12, 20])
@pytest.mark.parametrize("size", [(12, 12), (11, 30)])
@pytest.mark.parametrize("settings", [USUAL, WILD, STILL, TALL, USUAL.model_copy(update=BICUBIC), WILD.model_copy(update=BICUBIC)])
def test_a_crop_is_torchvisions_resize_of_the_box_of_its_draws(settings: AugmentSettings, size: tuple[int, int], image_px: int) -> None:
    images = 0.35 + 0.3 * torch.rand(20, 2, *size, generator=torch.Generator().manual_seed(0))  # no overshoot to cut off
    draws = drawn(20)
    got = random_resized_crop(images, draws, settings, image_px)
    expected = [crop_by_torchvision(image, row, settings, image_px) for image, row in zip(images, draws, strict=True)]
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=2e-6)


@pytest.mark.parametrize("settings", [USUAL, USUAL.model_copy(update=BICUBIC)])
def test_a_crop_is_pillows_but_for_its_rounding_to_8_bits(settings: AugmentSettings) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (10, 40, 40, 3), dtype=np.uint8)
    draws = drawn(10)
    got = random_resized_crop(torch.from_numpy(levels).permute(0, 3, 1, 2) / 255, draws, settings, 24)
    for i, row in enumerate(draws):
        top, left, height, width = box_by_hand(row, settings, 40, 40)
        resample = Image.Resampling[settings.interpolation.upper()]
        picture = Image.fromarray(levels[i]).crop((left, top, left + width, top + height)).resize((24, 24), resample)
        expected = np.asarray(picture)[:, ::-1] if row[4] < 0.5 else np.asarray(picture)
        assert np.abs(got[i].permute(1, 2, 0).numpy() * 255 - expected).max() < 1.2


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_boxes_are_drawn_as_timm_draws_them(size: tuple[int, int]) -> None:
    picture, settings = Image.new("L", (size[1], size[0])), AugmentSettings(crop_scale=(0.3, 1.0), crop_ratio=(0.5, 2.0))
    random.seed(0)
    timms = np.array([RandomResizedCropAndInterpolation.get_params(picture, (0.3, 1.0), (0.5, 2.0)) for _ in range(4000)])
    ours = crop_boxes(drawn(4000), settings, size)
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], timms[:, column]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], timms[:, 2] * timms[:, 3]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 3] / ours[:, 2], timms[:, 3] / timms[:, 2]).pvalue > 0.01


def test_where_no_shape_fits_the_largest_central_crop_of_an_allowed_ratio_is_taken() -> None:
    for ratio, box in (((0.5, 0.5), [0, 3, 12, 6]), ((2.0, 2.0), [3, 0, 6, 12]), ((0.5, 2.0), [0, 0, 12, 12])):
        settings = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=ratio)
        draws = np.full((2, NUM_CROP_DRAWS), 0.99)
        assert crop_boxes(draws, settings, (12, 12)).tolist() == [box, box]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_whole_crop_at_the_images_own_size_is_the_image_or_its_mirror_exactly(interpolation: str) -> None:
    images, draws = pictures(), drawn()
    settings = STILL.model_copy(update={"interpolation": interpolation})
    assert torch.equal(random_resized_crop(images, draws, settings, 12), images)
    mirrored = random_resized_crop(images, draws, settings.model_copy(update={"flip": True}), 12)
    for i in range(6):
        assert torch.equal(mirrored[i], images[i].flip(-1) if draws[i, 4] < 0.5 else images[i])


def test_a_flip_is_the_exact_mirror_and_is_decided_by_the_fifth_draw_alone() -> None:
    images, draws = pictures(), drawn()
    for settings in (STILL, USUAL):
        flipping = settings.model_copy(update={"flip": True})
        draws[:, 4] = 0.2
        flipped = random_resized_crop(images, draws, flipping, 12)
        draws[:, 4] = 0.8
        kept = random_resized_crop(images, draws, flipping, 12)
        torch.testing.assert_close(flipped, kept.flip(-1), rtol=0, atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([4, 12, 30]))
def test_a_crop_shows_nothing_from_outside_its_box(seed: int, image_px: int) -> None:
    draws, settings = drawn(4, seed), AugmentSettings(crop_scale=(0.05, 0.6), crop_ratio=(0.2, 5.0), interpolation="bicubic")
    images, outside = pictures(4), torch.ones(4, 1, 12, 12, dtype=torch.bool)
    for i, (top, left, height, width) in enumerate(crop_boxes(draws, settings, (12, 12))):
        outside[i, :, top : top + height, left : left + width] = False
    hidden = torch.where(outside, 1e6, images)
    assert torch.equal(random_resized_crop(hidden, draws, settings, image_px), random_resized_crop(images, draws, settings, image_px))


def test_the_overshoot_of_the_bicubic_filter_is_cut_off() -> None:
    edge = torch.zeros(1, 1, 12, 12)
    edge[..., 6:] = 1.0
    crop = random_resized_crop(edge, drawn(1), STILL.model_copy(update=BICUBIC), 40)
    assert crop.min() == 0.0
    assert crop.max() == 1.0


def test_a_pattern_finer_than_the_result_turns_grey_and_does_not_alias() -> None:
    stripes = (torch.arange(48) % 2).float().expand(1, 1, 48, 48)
    for interpolation in ("bilinear", "bicubic"):
        crop = random_resized_crop(stripes, drawn(1), STILL.model_copy(update={"interpolation": interpolation}), 13)
        assert (crop[..., 2:-2] - 0.5).abs().max() < 0.05


def test_an_images_crop_does_not_depend_on_the_batch_around_it() -> None:
    images, draws = pictures(), drawn()
    together = random_resized_crop(images, draws, USUAL, 10)
    for i in range(6):
        torch.testing.assert_close(random_resized_crop(images[i : i + 1], draws[i : i + 1], USUAL, 10)[0], together[i], rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.0, np.nextafter(1.0, 0.0)])
def test_extreme_draws_stay_inside(value: float) -> None:
    draws = np.full((2, NUM_CROP_DRAWS), value)
    for settings in (USUAL, WILD, TALL):
        top, left, height, width = crop_boxes(draws, settings, (12, 30)).T
        assert ((top >= 0) & (left >= 0) & (height > 0) & (width > 0)).all()
        assert ((top + height <= 12) & (left + width <= 30)).all()
        assert random_resized_crop(pictures(2), draws, settings, 12).isfinite().all()
