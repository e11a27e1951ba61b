"""Which patches are removed, and what of the image is left."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.occlusion import fill_colour, num_removed, occlude, removal_order
from g2sd_export.edge.preprocess import Preprocessing, normalise

PRE = Preprocessing(image_px=12, resize_px=12, num_channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
KEYS = np.array([7, 11, 4_000_000_000], dtype=np.int64)


def pictures(num: int = 3, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)


def test_a_random_order_holds_every_patch_once_and_differs_between_images() -> None:
    order = removal_order("random", None, KEYS, 0, 16)
    assert order.dtype == np.int64
    assert (np.sort(order, axis=1) == np.arange(16)).all()
    assert len({tuple(row) for row in order}) == 3


def test_a_random_order_depends_on_the_seed_and_the_key_of_the_image_alone() -> None:
    order = removal_order("random", None, KEYS, 5, 16)
    for row, key in enumerate(KEYS):
        assert (removal_order("random", np.ones((1, 16)), np.array([key]), 5, 16)[0] == order[row]).all()
    assert (removal_order("random", None, KEYS, 6, 16) != order).any()


def test_random_orders_take_every_patch_first_equally_often() -> None:
    first = removal_order("random", None, np.arange(16_000, dtype=np.int64), 0, 16)[:, 0]
    counts = np.bincount(first, minlength=16)
    assert ((counts - 1000) ** 2 / 1000).sum() < 37.7  # chi squared, 15 degrees of freedom, 0.1 %


def test_salient_orders_go_down_or_up_and_break_ties_by_index() -> None:
    salience = np.array([[0.2, 0.5, 0.2, 0.1], [0.0, 0.0, 0.0, 0.0]])
    keys = KEYS[:2]
    assert removal_order("salient_first", salience, keys, 0, 4).tolist() == [[1, 0, 2, 3], [0, 1, 2, 3]]
    assert removal_order("salient_last", salience, keys, 0, 4).tolist() == [[3, 0, 2, 1], [0, 1, 2, 3]]
    assert removal_order("salient_first", salience.astype(np.float32), keys, 9, 4).tolist() == [[1, 0, 2, 3], [0, 1, 2, 3]]


def test_ties_go_by_index_among_many_patches_too() -> None:
    salience = np.random.default_rng(0).integers(0, 3, (3, 196)).astype(np.float64)
    for kind, sign in (("salient_first", -1), ("salient_last", 1)):
        wanted = [sorted(range(196), key=lambda patch, row=row, sign=sign: (sign * row[patch], patch)) for row in salience]
        assert removal_order(kind, salience, KEYS, 0, 196).tolist() == wanted


def test_a_salient_order_needs_finite_salience_of_the_right_shape() -> None:
    with pytest.raises(ValueError, match="cannot be ordered salient_first without their salience"):
        removal_order("salient_first", None, KEYS, 0, 4)
    with pytest.raises(ValueError, match=r"is \[3, 5\]; wanted finite numbers of 3 images and 4 patches"):
        removal_order("salient_last", np.zeros((3, 5)), KEYS, 0, 4)
    with pytest.raises(ValueError, match="wanted finite numbers"):
        removal_order("salient_last", np.full((3, 4), np.nan), KEYS, 0, 4)


@pytest.mark.parametrize(
    ("share", "num", "wanted"), [(0.0, 9, 0), (1.0, 9, 9), (0.5, 9, 5), (0.5, 4, 2), (0.125, 4, 1), (0.12, 4, 0), (0.1, 196, 20)]
)
def test_a_share_is_rounded_and_half_a_patch_counts(share: float, num: int, wanted: int) -> None:
    assert num_removed(share, num) == wanted


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 5000))
def test_a_larger_share_never_removes_fewer(one: float, other: float, num: int) -> None:
    few, many = sorted((one, other))
    assert 0 <= num_removed(few, num) <= num_removed(many, num) <= num_removed(1.0, num) == num
    assert abs(num_removed(one, num) - one * num) <= 0.5 + 1e-9


def test_a_share_outside_0_and_1_is_refused() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            num_removed(share, 9)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.75, 1.0])
def test_the_first_patches_of_the_order_are_painted_and_nothing_else(share: float) -> None:
    images, fill = pictures(), np.array([1, 2, 3], dtype=np.uint8)
    order = removal_order("random", None, KEYS, 0, 9)
    wanted = images.copy()
    for image in range(3):
        for patch in order[image, : num_removed(share, 9)]:
            row, column = divmod(int(patch), 3)
            wanted[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = fill
    before = images.copy()
    got = occlude(images, order, share, 3, fill)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    assert (got == wanted).all() and (images == before).all()


def test_images_that_lie_in_another_order_in_memory_are_painted_too() -> None:
    turned = pictures().swapaxes(1, 2)
    order = removal_order("random", None, KEYS, 0, 9)
    fill = np.zeros(3, dtype=np.uint8)
    assert (occlude(turned, order, 0.4, 3, fill) == occlude(turned.copy(), order, 0.4, 3, fill)).all()


def test_removing_all_patches_leaves_about_nothing_of_the_networks_input() -> None:
    order = removal_order("random", None, KEYS, 0, 9)
    left = normalise(occlude(pictures(), order, 1.0, 3, fill_colour(PRE)), PRE)
    assert np.abs(left).max() <= 0.5 / 255 / min(PRE.std) + 1e-6


def test_the_fill_is_the_mean_of_each_channel_and_stays_a_colour() -> None:
    assert fill_colour(PRE).tolist() == [124, 116, 104]
    assert fill_colour(replace(PRE, mean=(-0.5, 0.0, 1.5))).tolist() == [0, 0, 255]
    assert fill_colour(replace(PRE, num_channels=1, mean=(0.2860,), std=(0.353,))).tolist() == [73]


def test_a_grid_that_does_not_divide_the_image_is_refused_with_what_to_do() -> None:
    order = removal_order("random", None, KEYS, 0, 25)
    with pytest.raises(UserError, match=r"images of 12 px cannot be cut into a grid of 5 x 5 .*choose a grid that divides 12"):
        occlude(pictures(), order, 0.5, 5, fill_colour(PRE))


def test_images_and_orders_of_another_shape_are_refused() -> None:
    order = removal_order("random", None, KEYS, 0, 9)
    for images, grid in ((pictures()[:, :9], 3), (pictures(), 4)):
        with pytest.raises(ValueError, match="wanted squares"):
            occlude(images, order, 0.5, grid, fill_colour(PRE))
