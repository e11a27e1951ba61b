"""Random erasing against timm's, by the distribution of its boxes, and the promises that resuming rests on."""

import math
import random

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from g2sd_deploy.data.erasing import random_erase

NUM, HEIGHT, WIDTH = 3000, 32, 40


def blank(num: int, channels: int = 1, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.full((num, channels, height, width), 9.0)  # noise does not reach 9


def boxes(erased: Tensor) -> np.ndarray:
    """Top, left, height and width of the erased box of every image that has one."""
    found = []
    for image in (erased != 9.0).any(dim=1).numpy():
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        if len(rows):
            assert image.sum() == len(rows) * len(columns) == np.ptp(rows[[0, -1]] + [0, 1]) * np.ptp(columns[[0, -1]] + [0, 1])  # a box
            found.append((rows[0], columns[0], len(rows), len(columns)))
    return np.array(found)


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (24, 24)])
def test_boxes_are_distributed_as_timms_are(height: int, width: int) -> None:
    random.seed(0)
    timms = boxes(RandomErasing(1.0, mode="pixel", max_count=1, device="cpu")(blank(NUM, 1, height, width)))
    ours = boxes(random_erase(blank(NUM, 1, height, width), 0, 0, np.arange(NUM), 1.0))
    assert len(ours) == len(timms) == NUM  # ten attempts never all fail
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], timms[:, column]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], timms[:, 2] * timms[:, 3]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 2] / ours[:, 3], timms[:, 2] / timms[:, 3]).pvalue > 0.01


@pytest.mark.parametrize("probability", [0.25, 0.8])
def test_the_asked_share_of_the_images_is_erased(probability: float) -> None:
    erased = boxes(random_erase(blank(NUM), 0, 0, np.arange(NUM), probability))
    assert stats.binomtest(len(erased), NUM, probability).pvalue > 0.01


def test_every_erased_value_is_standard_normal_noise_of_its_own() -> None:
    erased = random_erase(blank(300, 3), 0, 0, np.arange(300), 1.0)
    noise = erased[erased != 9.0].numpy()
    assert stats.kstest(noise, "norm").pvalue > 0.01
    assert len(np.unique(noise)) > 0.99 * noise.size


def test_what_is_erased_depends_on_the_samples_own_index_only() -> None:
    everything = random_erase(blank(60, 2), 5, 3, np.arange(60), 0.5)
    picks = np.array([42, 7, 59, 7])
    assert torch.equal(random_erase(blank(4, 2), 5, 3, picks, 0.5), everything[picks])


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_another_seed_or_epoch_erases_other_boxes_with_other_noise(seed: int, epoch: int) -> None:
    here, there = (random_erase(blank(50), *counters, np.arange(50), 1.0) for counters in ((0, 0), (seed, epoch)))
    assert (boxes(here) != boxes(there)).any(axis=1).mean() > 0.9
    assert len(np.intersect1d(here[here != 9.0], there[there != 9.0])) < 10  # of 10,000: float32 has few enough values to meet by chance


def test_a_box_never_reaches_from_one_side_to_the_other() -> None:
    for height, width in ((60, 9), (9, 60)):
        _, _, heights, widths = boxes(random_erase(blank(NUM, 1, height, width), 0, 0, np.arange(NUM), 1.0)).T
        assert heights.max() == min(height - 1, round(math.sqrt(height * width / 3 / 0.3)))
        assert widths.max() == min(width - 1, round(math.sqrt(height * width / 3 / 0.3)))


def test_nothing_else_changes_and_the_input_stays() -> None:
    images = torch.randn(20, 3, HEIGHT, WIDTH)
    before = images.clone()
    assert torch.equal(random_erase(images, 0, 0, np.arange(20), 0.0), images)
    erased = random_erase(images, 0, 0, np.arange(20), 1.0)
    assert torch.equal(images, before)
    assert 0.02 < (erased != images).float().mean() < 1 / 3


def test_the_process_s_generators_are_neither_read_nor_moved() -> None:
    results, states = [], []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = np.random.get_state()[1].copy(), torch.get_rng_state()
        results.append(random_erase(blank(8), 0, 0, np.arange(8), 1.0))
        states.append((before, (np.random.get_state()[1], torch.get_rng_state())))
    assert torch.equal(*results)
    for (numpy_before, torch_before), (numpy_after, torch_after) in states:
        assert np.array_equal(numpy_before, numpy_after)
        assert torch.equal(torch_before, torch_after)
