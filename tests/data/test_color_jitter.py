"""Colour jitter against torchvision's functions, image by image."""

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import ColorJitter, functional

from g2sd_deploy.data.color_jitter import NUM_JITTER_DRAWS, color_jitter

STEPS = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)


def pictures(num: int = 6, channels: int = 3) -> Tensor:
    return torch.rand(num, channels, 9, 11, generator=torch.Generator().manual_seed(0))


def drawn(num: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((num, NUM_JITTER_DRAWS))


def jittered_by_torchvision(image: Tensor, factors: np.ndarray, order: tuple[int, ...]) -> Tensor:
    for step in order:
        image = STEPS[step](image, float(factors[step]))
    return image


def orders_that_explain(got: Tensor, image: Tensor, factors: np.ndarray) -> list[tuple[int, ...]]:
    return [
        order for order in permutations(range(3)) if torch.allclose(got, jittered_by_torchvision(image, factors, order), rtol=0, atol=2e-6)
    ]


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_each_image_is_what_torchvision_makes_of_it_in_one_of_the_six_orders(
    channels: int, strength: float, low: float, high: float
) -> None:
    images, draws = pictures(24, channels), drawn(24)
    got = color_jitter(images, draws, strength)
    for image, row, result in zip(images, draws, got, strict=True):
        assert orders_that_explain(result, image, low + (high - low) * row[1:])


def test_the_six_orders_are_equally_likely() -> None:
    image = pictures(1)
    draws = np.column_stack([(np.arange(12) + 0.5) / 12, np.tile([0.95, 0.1, 0.9], (12, 1))])
    got = color_jitter(image.expand(12, -1, -1, -1), draws, 0.8)
    found = [orders_that_explain(result, image[0], 0.2 + 1.6 * draws[0, 1:]) for result in got]
    assert all(len(orders) == 1 for orders in found)  # at these factors every order gives another image
    assert sorted(orders[0] for orders in found) == sorted(2 * list(permutations(range(3))))


@pytest.mark.parametrize(("strength", "unchanged"), [(0.4, 0.5), (1.5, 0.4)])
def test_factors_have_the_range_of_torchvisions_jitter(strength: float, unchanged: float) -> None:
    wanted = ColorJitter(strength, strength, strength).brightness
    flat = torch.full((1, 3, 2, 2), 0.25)
    bounds = [color_jitter(flat, np.array([[0.0, u, unchanged, unchanged]]), strength).mean().item() / 0.25 for u in (0.0, 1.0 - 2**-53)]
    assert bounds == pytest.approx(wanted, abs=1e-6)


def test_saturation_does_not_change_a_grey_image() -> None:
    images, draws = pictures(channels=1), drawn()
    other = draws.copy()
    other[:, 3] = 1 - draws[:, 3]
    torch.testing.assert_close(color_jitter(images, draws, 0.4), color_jitter(images, other, 0.4), rtol=0, atol=1e-6)


def test_strength_zero_changes_nothing() -> None:
    images = pictures()
    assert torch.equal(color_jitter(images, drawn(), 0.0), images)


def test_an_images_jitter_does_not_depend_on_the_batch_around_it_and_the_input_is_not_changed() -> None:
    images, draws = pictures(), drawn()
    before = images.clone()
    together = color_jitter(images, draws, 0.4)
    assert torch.equal(images, before)
    for i in range(6):
        assert torch.equal(color_jitter(images[i : i + 1], draws[i : i + 1], 0.4)[0], together[i])


@pytest.mark.parametrize("value", [0.0, np.nextafter(1.0, 0.0)])
def test_extreme_draws_stay_between_black_and_white(value: float) -> None:
    got = color_jitter(pictures(), np.full((6, NUM_JITTER_DRAWS), value), 2.0)
    assert got.min() >= 0.0
    assert got.max() <= 1.0
