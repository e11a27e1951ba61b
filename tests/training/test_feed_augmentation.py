"""RandAugment, erasing and colour jitter in the feed: in timm's order, each by the counters of its samples."""

import numpy as np
import pytest
import torch
from torch import Tensor

from g2sd_deploy.data.color_jitter import NUM_JITTER_DRAWS, color_jitter
from g2sd_deploy.data.erasing import random_erase
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.data.rand_augment import rand_augment
from g2sd_deploy.randomness import uniform
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import ClassifyAugmentSettings, ClassifyTrainSettings, PretextTrainSettings
from g2sd_deploy.training.feed import Batch, Feed

POLICY = "rand-m9-mstd0.5-inc1"
STILL = {"crop_scale": [1.0, 1.0], "crop_ratio": [1.0, 1.0], "flip": False}
MEAN, STD = (0.2, 0.4, 0.6), (0.5, 0.25, 0.3)


def image_set() -> ImageSet:
    random = np.random.default_rng(0)
    return ImageSet(random.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), np.arange(12, dtype=np.int64) % 3)


def feed_of(*, batch_size: int = 4, color_jitter: float = 0.0, seed: int = 3, **augment: object) -> Feed:
    settings = ClassifyTrainSettings(
        epochs=2.0, batch_size=batch_size, base_lr=0.1, augment=ClassifyAugmentSettings.model_validate({**STILL, **augment})
    )
    return Feed(image_set(), settings, seed, 16, MEAN, STD, Runtime(torch.device("cpu")), color_jitter)


def last_batch(feed: Feed) -> Batch:
    return list(feed.batches())[-1]  # of the second epoch


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def stored(batch: Batch) -> np.ndarray:
    return image_set().images[batch.turn.indices]


def channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_rand_augment_follows_the_crop_with_its_filter_and_fills_with_the_datas_mean(interpolation: str) -> None:
    batch = last_batch(feed_of(rand_augment=POLICY, interpolation=interpolation))
    assert batch.turn.epoch == 1
    chosen = "bilinear" if interpolation == "bilinear" else "bicubic"
    expected = rand_augment(stored(batch), POLICY, 3, 1, batch.turn.indices, (51, 102, 153), interpolation=chosen)
    torch.testing.assert_close(batch.images, normalised(channels_first(expected)), rtol=1e-5, atol=1e-5)
    assert batch.jittered is batch.images


def test_erasing_is_the_last_step_so_that_its_noise_is_that_of_normalised_images() -> None:
    batch = last_batch(feed_of(erasing=0.7))
    expected = random_erase(normalised(channels_first(stored(batch))), 3, 1, batch.turn.indices, 0.7)
    torch.testing.assert_close(batch.images, expected, rtol=1e-5, atol=1e-5)
    changed = (batch.images - normalised(channels_first(stored(batch)))).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert changed.any()


def test_both_together_are_rand_augment_and_then_erasing() -> None:
    batch = last_batch(feed_of(rand_augment=POLICY, erasing=0.7))
    augmented = rand_augment(stored(batch), POLICY, 3, 1, batch.turn.indices, (51, 102, 153), interpolation="bilinear")
    expected = random_erase(normalised(channels_first(augmented)), 3, 1, batch.turn.indices, 0.7)
    torch.testing.assert_close(batch.images, expected, rtol=1e-5, atol=1e-5)


def by_index(feed: Feed) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """Both views of each image, by epoch and index."""
    return {
        (batch.turn.epoch, int(index)): (image, jittered)
        for batch in feed.batches()
        for index, image, jittered in zip(batch.turn.indices, batch.images, batch.jittered, strict=True)
    }


@pytest.mark.parametrize("augment", [{"rand_augment": POLICY}, {"erasing": 0.7}])
def test_an_image_is_augmented_alike_in_every_batch_and_otherwise_in_another_epoch_and_under_another_seed(
    augment: dict[str, object],
) -> None:
    small, large = by_index(feed_of(batch_size=4, **augment)), by_index(feed_of(batch_size=12, **augment))
    assert all(torch.equal(small[key][0], large[key][0]) for key in small)
    again, other = by_index(feed_of(**augment)), by_index(feed_of(seed=4, **augment))
    assert all(torch.equal(small[key][0], again[key][0]) for key in small)
    assert any(not torch.equal(small[0, i][0], small[1, i][0]) for i in range(12))
    assert any(not torch.equal(small[key][0], other[key][0]) for key in small)


def pretext_feed(color_jitter: float) -> Feed:
    settings = PretextTrainSettings(epochs=2.0, batch_size=4, base_lr=0.1)
    return Feed(image_set(), settings, 3, 16, MEAN, STD, Runtime(torch.device("cpu")), color_jitter)


def test_colour_jitter_makes_a_second_view_of_the_same_crop_and_leaves_the_first_as_it_is() -> None:
    for plain, jittered in zip(pretext_feed(0.0).batches(), pretext_feed(0.4).batches(), strict=True):
        assert plain.jittered is plain.images
        assert torch.equal(jittered.images, plain.images)
        pixels = plain.images * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        draws = uniform(3, "jitter", plain.turn.epoch, plain.turn.indices, NUM_JITTER_DRAWS)
        torch.testing.assert_close(jittered.jittered, normalised(color_jitter(pixels, draws, 0.4)), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(jittered.jittered, plain.images, atol=0.05)
