"""RandAugment against timm's training pipeline, and the promises that resuming rests on."""

import random
import subprocess
import sys
from contextlib import suppress
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms_factory import transforms_imagenet_train

from g2sd_deploy.data import rand_augment as module
from g2sd_deploy.data.rand_augment import fill_from_mean, rand_augment
from g2sd_deploy.data.rand_augment_policy import check_policy, policy_problem
from g2sd_deploy.errors import UserError
from g2sd_deploy.randomness import uniform

PAPER = "rand-m9-mstd0.5-inc1"
STRONG = "rand-m9-n3-p1-inc1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILL = (124, 116, 104)


def pictures(num: int = 12, channels: int = 3, image_px: int = 40) -> np.ndarray:
    """Smooth slopes with some noise, so that every operation shows."""
    slope = np.linspace(20, 200, image_px)
    rng = np.random.default_rng(0)
    images = (
        slope[:, None, None] * rng.random((num, 1, 1, channels)) + slope[:, None] * 0.2 + rng.integers(0, 15, (num, image_px, image_px, 1))
    )
    return images.astype(np.uint8)


def augmented(images: np.ndarray, policy: str = STRONG, seed: int = 0, epoch: int = 0, first: int = 0) -> np.ndarray:
    return rand_augment(images, policy, seed, epoch, np.arange(first, first + len(images)), FILL[: images.shape[3]])


@pytest.mark.parametrize("policy", [PAPER, STRONG, "rand-m5-tweights-mmax20"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_is_what_timms_training_pipeline_makes_of_it_at_the_same_seeds(
    policy: str, interpolation: Literal["bilinear", "bicubic"]
) -> None:
    images, indices = pictures(), np.arange(100, 112)
    pipeline = transforms_imagenet_train(
        40, auto_augment=policy, interpolation=interpolation, mean=MEAN, std=STD, color_jitter=None, separate=True
    )[1]
    got = rand_augment(images, policy, 7, 2, indices, fill_from_mean(MEAN), interpolation=interpolation)
    for image, draw, result in zip(images, uniform(7, "rand_augment", 2, indices, 1)[:, 0], got, strict=True):
        number = int(draw * 2**53)
        random.seed(number)
        np.random.seed([number % 2**32, number // 2**32])
        assert np.array_equal(result, np.asarray(pipeline(Image.fromarray(image))))
    assert any((a != b).any() for a, b in zip(got, images, strict=True))


def test_an_image_left_with_no_bits_is_black_as_it_was_before_pillow_refused_to() -> None:
    got = augmented(np.repeat(pictures(1, image_px=8), 300, axis=0), "rand-m10-n1-p1-inc1")
    num_black = int((got == 0).all(axis=(1, 2, 3)).sum())
    assert stats.binomtest(num_black, 300, 1 / 15).pvalue > 0.01  # one of fifteen operations


def test_the_papers_policy_runs_on_thousands_of_images() -> None:
    got = augmented(np.repeat(pictures(1, image_px=8), 4000, axis=0), PAPER)
    assert (got == 0).all(axis=(1, 2, 3)).any()  # the rare case is among them


def test_the_fill_colour_is_timms() -> None:
    assert fill_from_mean(MEAN) == FILL
    assert fill_from_mean((1.001,)) == (255,)


def test_what_happens_to_an_image_depends_on_its_own_index_only() -> None:
    images = pictures()
    everything = augmented(images)
    picks = np.array([7, 2, 11, 2])
    assert np.array_equal(rand_augment(images[picks], STRONG, 0, 0, picks, FILL), everything[picks])


@pytest.mark.parametrize(("seed", "epoch", "first"), [(1, 0, 0), (0, 1, 0), (0, 0, 12)])
def test_another_seed_epoch_or_index_augments_in_another_way(seed: int, epoch: int, first: int) -> None:
    same = np.repeat(pictures(1), 12, axis=0)
    here, there = augmented(same), augmented(same, seed=seed, epoch=epoch, first=first)
    assert (here != there).any(axis=(1, 2, 3)).mean() > 0.8
    assert (here[1:] != here[:-1]).any(axis=(1, 2, 3)).mean() > 0.8


def next_numbers() -> list[float]:
    return [number for _ in range(3) for number in (random.gauss(0, 1), float(np.random.standard_normal()))]


def seed_and_keep_half_a_pair_of_normals_back() -> None:
    random.seed(5)
    np.random.seed(5)
    random.gauss(0, 1)
    np.random.standard_normal()


@pytest.mark.parametrize("broken", [False, True])
def test_the_global_generators_are_put_back_even_where_an_image_fails(broken: bool) -> None:
    seed_and_keep_half_a_pair_of_normals_back()
    expected = next_numbers()
    seed_and_keep_half_a_pair_of_normals_back()
    with suppress(ZeroDivisionError), module._global_generators_kept():
        module._seed_global_generators(17)
        next_numbers()
        _ = 1 / (0 if broken else 1)
    assert next_numbers() == expected


def test_augmenting_leaves_the_global_generator_of_numpy_as_it_was() -> None:  # Python's is moved by the shape checks of the tests
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    augmented(pictures())
    assert np.array_equal(np.random.random(3), expected)


def test_the_global_generators_do_not_decide_anything_and_the_input_stays() -> None:
    images = pictures()
    before = images.copy()
    random.seed(1)
    np.random.seed(1)
    first = augmented(images)
    random.seed(2)
    np.random.seed(2)
    assert np.array_equal(augmented(images), first)
    assert np.array_equal(images, before)


def test_a_grey_image_is_augmented_as_rgb_of_equal_channels() -> None:
    images, indices = pictures(40, channels=1), np.arange(40)
    grey = rand_augment(images, STRONG, 0, 0, indices, (90,))
    rgb = rand_augment(np.repeat(images, 3, axis=3), STRONG, 0, 0, indices, (90, 90, 90))
    assert np.array_equal(np.repeat(grey, 3, axis=3), rgb)
    assert (grey != images).any(axis=(1, 2, 3)).mean() > 0.8


@pytest.mark.parametrize(
    "policy", [PAPER, STRONG, "rand", "rand-m9", "rand-n2-p0.5-mmax20-m15", "rand-tweights", "rand-t3a", "rand-mstd101-t3aw-n14"]
)
def test_a_good_policy_is_taken_by_us_and_by_timm(policy: str) -> None:
    check_policy(policy)
    rand_augment_transform(policy, {"translate_const": 10, "img_mean": FILL})
    assert augmented(pictures(1), policy).shape == (1, 40, 40, 3)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("", "is ''; wanted rand, then any of m9"),
        ("original-mstd0.5", "is 'original-mstd0.5'; wanted rand"),
        ("rand-x3", "of which 'x3' is not understood"),
        ("rand-m9-", "of which '' is not understood"),
        ("rand-m9.5", "of which 'm9.5' is not understood"),
        ("rand-m", "of which 'm' is not understood"),
        ("rand-m9-inc", "of which 'inc' is not understood"),
        ("rand-m9-inc0", "of which 'inc0' is not understood"),
        ("rand-mstd.5", "of which 'mstd.5' is not understood"),
        ("rand-p1.5", "of which 'p1.5' is not understood"),
        ("rand-n0", "of which 'n0' is not understood"),
        ("rand-n15-tweights", "of which 'n15' is not understood"),
        ("rand-twights", "of which 'twights' is not understood"),
        ("rand-m9-m5", "gives m twice"),
        ("Rand-m9", "wanted rand"),
    ],
)
def test_a_policy_that_would_not_be_followed_to_the_letter_is_refused(policy: str, message: str) -> None:
    problem = policy_problem(policy)
    assert problem is not None
    assert message in problem
    with pytest.raises(UserError, match=r"augment\.rand_augment is"):
        check_policy(policy)
    with pytest.raises(UserError, match=r"augment\.rand_augment is"):
        augmented(pictures(1), policy)


def test_a_policy_is_checked_without_anything_slow() -> None:
    code = """
import sys
from g2sd_deploy.data.rand_augment_policy import check_policy
check_policy("rand-m9-mstd0.5-inc1")
print(sorted({"numpy", "torch", "timm", "PIL"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
