"""Crops against a bilinear sampler written with NumPy, and mixing against the pixels it leaves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2sd_deploy.data.augment import NUM_CROP_DRAWS, Mixed, mix_batch, random_resized_crop
from g2sd_deploy.methods.classification import smoothed_one_hot
from g2sd_deploy.settings import AugmentSettings, MixSettings

STILL = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
USUAL = AugmentSettings()


def pictures(num: int = 6, image_px: int = 12, channels: int = 2) -> Tensor:
    return torch.rand(num, channels, image_px, image_px, generator=torch.Generator().manual_seed(0))


def drawn(num: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num, NUM_CROP_DRAWS))


def sampled_1d(start: float, length: float, size: int, image_px: int) -> list[tuple[int, int, float]]:
    """For each output pixel: the two source pixels around its centre and the weight of the second."""
    taps = []
    for out in range(image_px):
        place = np.clip((start + length * (out + 0.5) / image_px) * size - 0.5, 0, size - 1)
        low = min(int(place), size - 2)
        taps.append((low, low + 1, float(place - low)))
    return taps


def crop_by_hand(image: np.ndarray, draws: np.ndarray, settings: AugmentSettings, image_px: int) -> np.ndarray:
    (low, high), (narrow, wide) = settings.crop_scale, settings.crop_ratio
    area = low + (high - low) * draws[0]
    ratio = narrow ** (1 - draws[1]) * wide ** draws[1]
    width, height = min(1.0, np.sqrt(area * ratio)), min(1.0, np.sqrt(area / ratio))
    rows = sampled_1d((1 - height) * draws[3], height, image.shape[1], image_px)
    columns = sampled_1d((1 - width) * draws[2], width, image.shape[2], image_px)
    if settings.flip and draws[4] < 0.5:
        columns.reverse()
    tall = np.stack([image[:, a] * (1 - w) + image[:, b] * w for a, b, w in rows], axis=1)
    return np.stack([tall[:, :, a] * (1 - w) + tall[:, :, b] * w for a, b, w in columns], axis=2)


@pytest.mark.parametrize("image_px", [7, 12, 20])
@pytest.mark.parametrize("settings", [USUAL, AugmentSettings(crop_scale=(0.05, 0.3), crop_ratio=(0.3, 3.0)), STILL])
def test_a_crop_is_the_box_of_its_draws_resized_bilinearly_and_flipped(settings: AugmentSettings, image_px: int) -> None:
    images, draws = pictures(20), drawn(20)
    got = random_resized_crop(images, draws, settings, image_px)
    expected = [crop_by_hand(image.double().numpy(), row, settings, image_px) for image, row in zip(images, draws, strict=True)]
    np.testing.assert_allclose(got.numpy(), np.stack(expected), atol=2e-5)


def test_a_whole_crop_without_flip_is_the_image() -> None:
    torch.testing.assert_close(random_resized_crop(pictures(), drawn(), STILL, 12), pictures(), rtol=0, atol=1e-5)


def test_a_flip_is_the_exact_mirror_and_is_decided_by_the_last_draw_alone() -> None:
    images, draws = pictures(), drawn()
    for settings in (STILL, USUAL):
        flipping = settings.model_copy(update={"flip": True})
        draws[:, 4] = 0.2
        flipped = random_resized_crop(images, draws, flipping, 12)
        draws[:, 4] = 0.8
        kept = random_resized_crop(images, draws, flipping, 12)
        torch.testing.assert_close(flipped, kept.flip(-1), rtol=0, atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([4, 12, 30]))
def test_a_crop_shows_nothing_from_outside_the_image(seed: int, image_px: int) -> None:
    slope = torch.linspace(5.0, 6.0, 12)
    images = torch.stack([slope.expand(12, 12), slope.view(12, 1).expand(12, 12)]).unsqueeze(0).expand(4, -1, -1, -1)
    settings = AugmentSettings(crop_scale=(0.01, 1.0), crop_ratio=(0.2, 5.0), flip=False)
    crops = random_resized_crop(images, drawn(4, seed), settings, image_px)
    assert crops.min() >= 5.0 - 1e-5
    assert crops.max() <= 6.0 + 1e-5
    assert (crops[:, 0].diff(dim=2) >= -1e-5).all()  # brighter to the right, as the image is: no reflection
    assert (crops[:, 1].diff(dim=1) >= -1e-5).all()


def test_an_images_crop_does_not_depend_on_the_batch_around_it() -> None:
    images, draws = pictures(), drawn()
    together = random_resized_crop(images, draws, USUAL, 10)
    for i in range(6):
        torch.testing.assert_close(random_resized_crop(images[i : i + 1], draws[i : i + 1], USUAL, 10)[0], together[i], rtol=0, atol=0)


def test_extreme_draws_stay_inside() -> None:
    for value in (0.0, np.nextafter(1.0, 0.0)):
        crops = random_resized_crop(pictures(2) + 1, np.full((2, NUM_CROP_DRAWS), value), USUAL, 12)
        assert crops.isfinite().all()
        assert 1 - 1e-5 <= crops.min() <= crops.max() <= 2 + 1e-5


class Script(np.random.Generator):
    """A generator with a coin and a share that the test chooses; places are drawn."""

    def __init__(self, coin: float, share: float, seed: int = 0) -> None:
        super().__init__(np.random.PCG64(seed))
        self.coin, self.share = coin, share

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self.coin

    def beta(self, a: float, b: float, size: object = None) -> float:  # type: ignore[override]
        assert (a, b) == (0.8, 0.8) or (a, b) == (1.0, 1.0)
        return self.share


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
