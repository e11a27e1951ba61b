"""The images that a quantiser sees: balanced, fixed by their names, recorded."""

import hashlib

import numpy as np
import pytest

from g2sd_export.edge.errors import UserError
from g2sd_export.int8.calibration import inputs_of, pick_calibration

LABELS = np.repeat(np.arange(5), 20)
IDS = [f"train/{label}/{at}.jpg" for at, label in enumerate(LABELS)]


def test_every_class_gives_as_many_images_as_any_other_give_or_take_one() -> None:
    picked = pick_calibration(LABELS, IDS, count=13)
    assert sorted(picked.per_class.values()) == [2, 2, 3, 3, 3]
    assert len(set(picked.indices)) == 13 and [IDS[at] for at in picked.indices] == list(picked.ids)


def test_a_rare_class_gives_all_that_it_has_and_the_others_fill_up() -> None:
    labels = np.array([0] * 50 + [1] * 2)
    picked = pick_calibration(labels, [f"{at}" for at in range(52)], count=20)
    assert picked.per_class == {0: 18, 1: 2}


def test_the_pick_is_the_same_in_whatever_order_the_data_come() -> None:
    order = np.random.default_rng(0).permutation(len(IDS))
    one = pick_calibration(LABELS, IDS, count=17)
    other = pick_calibration(LABELS[order], [IDS[at] for at in order], count=17)
    assert one.ids == other.ids and one.sha256 == other.sha256
    assert one.sha256 == hashlib.sha256("".join(f"{name}\n" for name in one.ids).encode()).hexdigest()


def test_a_larger_pick_contains_a_smaller_one() -> None:
    assert pick_calibration(LABELS, IDS, count=40).ids[:10] == pick_calibration(LABELS, IDS, count=10).ids


def test_the_pick_does_not_take_neighbours() -> None:
    assert list(pick_calibration(LABELS, IDS, count=5).indices) != [0, 20, 40, 60, 80]


def test_more_images_than_there_are_gives_all() -> None:
    assert sorted(pick_calibration(LABELS, IDS, count=1000).indices) == list(range(100))


@pytest.mark.parametrize(
    ("labels", "ids", "count", "message"),
    [
        ([0, 1], ["a", "a"], 1, "2 ids, 1 of them different"),
        ([0, 1], ["a"], 1, "2 labels, 1 ids"),
        ([0, 1], ["a", "b"], 0, "0 of 2 training images"),
        ([], [], 3, "3 of 0 training images"),
    ],
)
def test_what_cannot_be_picked_from_is_refused(labels: list[int], ids: list[str], count: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pick_calibration(np.array(labels, dtype=np.int64), ids, count=count)


@pytest.mark.parametrize(
    ("num_images", "image_px", "inputs"), [(300, 224, 300), (300, 64, 300), (300, 512, 57), (300, 1024, 14), (300, 4096, 8), (5, 512, 5)]
)
def test_large_inputs_are_fewer_for_each_has_more_places(num_images: int, image_px: int, inputs: int) -> None:
    assert inputs_of(num_images, image_px) == inputs
