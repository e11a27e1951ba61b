"""Crops against torchvision, Pillow and timm; mixing against timm and the pixels it leaves."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from timm.data.mixup import Mixup
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, Mixed, crop_boxes, mix_batch, random_resized_crop
from g2sd_deploy.methods.classification import smoothed_one_hot
from g2sd_deploy.settings import AugmentSettings, MixSettings

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


class Script(np.random.Generator):
    """A generator with a coin and a share that the test chooses; places are drawn, or are the same two every time."""

    def __init__(self, coin: float, share: float, seed: int = 0, places: tuple[int, int] | None = None) -> None:
        super().__init__(np.random.PCG64(seed))
        self.coin, self.share, self.places = coin, share, list(places or ())

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self.coin

    def beta(self, a: float, b: float, size: object = None) -> float:  # type: ignore[override]
        assert (a, b) == (0.8, 0.8) or (a, b) == (1.0, 1.0)
        return self.share

    def integers(self, low: int, *_: object, **__: object) -> int:  # type: ignore[override]
        return self.places.pop(0) if self.places else int(super().integers(low))


MIXUP, CUTMIX, BOTH = MixSettings(cutmix=0.0), MixSettings(mixup=0.0), MixSettings()


def labelled(num: int = 6) -> tuple[Tensor, Tensor]:
    return pictures(num), smoothed_one_hot(torch.arange(num), 10, 0.1)


@pytest.mark.parametrize("settings", [MIXUP, CUTMIX, BOTH, MixSettings(mixup=0.0, cutmix=0.0)])
@given(seed=st.integers(0, 1000))
def test_targets_remain_distributions(settings: MixSettings, seed: int) -> None:
    mixed = mix_batch(*labelled(), settings, np.random.default_rng(seed))
    torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(6))
    assert mixed.targets.min() >= 0


def test_mixup_blends_images_and_labels_with_those_of_the_reversed_batch_at_one_ratio() -> None:
    images, targets = labelled()
    mixed = mix_batch(images, targets, MIXUP, Script(0.9, 0.7))
    for i in range(6):
        torch.testing.assert_close(mixed.images[i], 0.7 * images[i] + 0.3 * images[5 - i])
        torch.testing.assert_close(mixed.targets[i], 0.7 * targets[i] + 0.3 * targets[5 - i])


def pasted_share(mixed: Mixed, images: Tensor) -> tuple[Tensor, float]:
    """Which pixels come from the partner, and the share of the label that stayed."""
    pasted = (mixed.images != images).all(dim=1)
    assert torch.equal(mixed.images, torch.where(pasted[:, None], images.flip(0), images))
    return pasted, mixed.targets[0, 0].item()


@given(seed=st.integers(0, 1000), share=st.floats(0.0, 1.0))
def test_cutmix_pastes_one_box_and_labels_share_exactly_as_the_pixels_do(seed: int, share: float) -> None:
    images = pictures()
    mixed = mix_batch(images, smoothed_one_hot(torch.arange(6), 10, 0.0), CUTMIX, Script(0.9, share, seed))
    pasted, kept = pasted_share(mixed, images)
    assert (pasted == pasted[0]).all()
    rows, columns = pasted[0].any(dim=1), pasted[0].any(dim=0)
    assert torch.equal(pasted[0], rows[:, None] & columns[None, :])  # a box
    assert kept == pytest.approx(1 - pasted[0].float().mean().item(), abs=1e-6)
    assert pasted[0].float().mean().item() <= 1 - share + 1e-6


def test_a_cutmix_box_covers_the_share_where_it_fits() -> None:
    images = pictures(2, 40, 1)
    shares = [
        pasted_share(mix_batch(images, smoothed_one_hot(torch.arange(2), 2, 0.0), CUTMIX, Script(0.9, 0.84, s)), images)[1]
        for s in range(40)
    ]
    assert min(shares) == pytest.approx(0.84, abs=1e-6)  # sides of 0.4: 16 of 40 pixels
    assert max(shares) > 0.84  # cut at the border


@pytest.mark.parametrize(("settings", "coin", "cuts"), [(BOTH, 0.49, True), (BOTH, 0.51, False), (MIXUP, 0.1, False), (CUTMIX, 0.9, True)])
def test_the_coin_chooses_between_the_two_only_where_both_are_on(settings: MixSettings, coin: float, cuts: bool) -> None:
    images, targets = labelled()
    mixed = mix_batch(images, targets, settings, Script(coin, 0.5, 3))
    came_from_someone = torch.logical_or(mixed.images == images, mixed.images == images.flip(0)).all()
    assert bool(came_from_someone) is cuts


def test_nothing_is_mixed_where_both_are_off_and_the_inputs_are_never_changed() -> None:
    images, targets = labelled()
    off = mix_batch(images, targets, MixSettings(mixup=0.0, cutmix=0.0), np.random.default_rng(0))
    assert torch.equal(off.images, images)
    assert torch.equal(off.targets, targets)
    for settings in (MIXUP, CUTMIX):
        before = images.clone(), targets.clone()
        mix_batch(images, targets, settings, np.random.default_rng(0))
        assert torch.equal(images, before[0])
        assert torch.equal(targets, before[1])


def test_mixing_is_a_function_of_the_generator() -> None:
    images, targets = labelled()
    one, two, other = (mix_batch(images, targets, BOTH, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.targets, two.targets)
    assert not torch.equal(one.images, other.images)


def mixed_by_timm(images: Tensor, monkeypatch: pytest.MonkeyPatch, coin: float, share: float, places: tuple[int, int]) -> Mixed:
    """timm's Mixup of the papers' recipes, with the numbers that it would draw."""
    left = list(places)
    monkeypatch.setattr(np.random, "rand", lambda: coin)
    monkeypatch.setattr(np.random, "beta", lambda *_: share)
    monkeypatch.setattr(np.random, "randint", lambda *_, **__: left.pop(0))
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.1, num_classes=10)
    return Mixed(*mixup(images.clone(), torch.arange(len(images))))


@pytest.mark.parametrize("coin", [0.2, 0.8])
@pytest.mark.parametrize("side", [0, 8, 20, 34, 40])  # even: timm up to 1.0.20 cuts a pixel off odd ones
@pytest.mark.parametrize("places", [(20, 20), (0, 39), (5, 30)])
def test_given_its_draws_a_batch_is_mixed_as_timm_mixes_it(
    coin: float, side: int, places: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, share = pictures(6, 40), max(0.0, 1 - ((side + 0.5) / 40) ** 2)
    ours = mix_batch(images, smoothed_one_hot(torch.arange(6), 10, 0.1), BOTH, Script(coin, share, places=places))
    timms = mixed_by_timm(images, monkeypatch, coin, share, places)
    torch.testing.assert_close(ours.images, timms.images)
    torch.testing.assert_close(ours.targets, timms.targets)


def test_a_box_of_an_odd_side_is_cut_whole() -> None:
    mixed = mix_batch(pictures(2, 40), smoothed_one_hot(torch.arange(2), 2, 0.0), CUTMIX, Script(0.2, 1 - (7.5 / 40) ** 2, places=(20, 20)))
    assert mixed.targets[0, 1].item() == pytest.approx(7 * 7 / 1600)


@pytest.mark.parametrize("settings", [MIXUP, CUTMIX, BOTH])
def test_shares_are_distributed_as_timms_are(settings: MixSettings) -> None:
    images, labels = pictures(2, 32, 1), torch.tensor([0, 1])
    mixup = Mixup(settings.mixup, settings.cutmix, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.0, num_classes=2)
    np.random.seed(0)
    timms = [mixup(images.clone(), labels)[1][0, 0].item() for _ in range(3000)]
    targets = smoothed_one_hot(labels, 2, 0.0)
    ours = [mix_batch(images, targets, settings, np.random.default_rng(seed)).targets[0, 0].item() for seed in range(3000)]
    assert stats.ks_2samp(ours, timms).pvalue > 0.01
