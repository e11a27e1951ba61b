"""Subsets of a data set, and how it comes to a loader's worker."""

import pickle
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from g2sd_deploy.data.images import ImageSet, evenly_spread


@given(st.integers(1, 500).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size))))
def test_picks_are_distinct_rise_from_the_first_and_are_evenly_spaced(sizes: tuple[int, int]) -> None:
    size, limit = sizes
    picks = evenly_spread(size, limit)
    assert len(picks) == limit
    assert picks[0] == 0
    assert picks[-1] < size
    gaps = np.diff(np.append(picks, size))
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def image_set(num: int) -> ImageSet:
    return ImageSet(np.arange(num, dtype=np.uint8).reshape(num, 1, 1, 1), np.arange(num, dtype=np.int64))


def test_a_subset_keeps_images_and_labels_together_and_is_the_same_every_time() -> None:
    subset = image_set(10).subset(4)
    assert subset.labels.tolist() == [0, 2, 5, 7]
    assert subset.images.ravel().tolist() == [0, 2, 5, 7]
    assert len(subset) == 4


def test_no_limit_or_a_generous_one_keeps_everything() -> None:
    whole = image_set(10)
    assert whole.subset(None) is whole
    assert whole.subset(10) is whole
    assert whole.subset(99) is whole


def test_a_mapped_file_is_mapped_anew_where_it_is_unpickled_and_a_part_of_it_is_copied(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = ImageSet(np.load(tmp_path / "images.npy", mmap_mode="r"), np.zeros(200, np.int64))
    sent = pickle.dumps(mapped)
    assert len(sent) < images.nbytes / 10
    assert np.array_equal(pickle.loads(sent).images, images)
    part = ImageSet(mapped.images[50:60], mapped.labels[50:60])
    assert np.array_equal(pickle.loads(pickle.dumps(part)).images, images[50:60])
