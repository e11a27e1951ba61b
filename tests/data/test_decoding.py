"""Decoding ahead of who takes the images, and not further."""

import time

import numpy as np

from g2sd_deploy.data.decoding import decode_set, decoded
from g2sd_deploy.data.images import ImageSet
from g2sd_export.edge.preprocess import Preprocessing

FIT = Preprocessing(2, 2, 1, (0.5,), (0.5,))


class Counted(ImageSet):
    """Images that count how often they are read."""

    reads = 0

    def read(self, index: int) -> np.ndarray:
        type(self).reads += 1
        return super().read(index)


def counted(num: int) -> Counted:
    Counted.reads = 0
    return Counted(np.arange(num, dtype=np.int64).astype(np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2), np.zeros(num, np.int64))


def test_images_come_in_order_and_all_of_them() -> None:
    images = counted(1000)
    told: list[int] = []
    np.testing.assert_array_equal(decode_set(images, FIT, lambda done, total: told.append(done)).images, images.images)
    assert told == list(range(1, 1001)) and Counted.reads == 1000


def test_a_slow_taker_is_not_swamped() -> None:
    images = decoded(counted(100_000), FIT)
    next(images)
    time.sleep(0.3)
    assert 32 <= Counted.reads < 10_000
    images.close()  # type: ignore[attr-defined]
    before = Counted.reads
    time.sleep(0.05)
    assert Counted.reads == before, "nothing goes on once nobody takes any more"
