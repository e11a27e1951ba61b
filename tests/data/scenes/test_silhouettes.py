"""A garment's silhouette from its grey picture."""

import numpy as np

from g2sd_deploy.data.scenes.garments import garments_of
from g2sd_deploy.data.scenes.silhouettes import DARK, silhouettes_of


def _picture(*boxes: tuple[int, int, int, int], grey: int = 200) -> np.ndarray:
    """Bright boxes of left, top, right, bottom on black ground."""
    picture = np.zeros((28, 28), np.uint8)
    for left, top, right, bottom in boxes:
        picture[top:bottom, left:right] = grey
    return picture


def test_a_silhouette_is_what_is_brighter_than_the_haze() -> None:
    picture = _picture((4, 4, 24, 24)) + _picture((0, 0, 4, 28), grey=DARK)
    found = silhouettes_of(picture[None])
    assert found.usable.tolist() == [True]
    assert np.array_equal(found.masks[0], picture > DARK)


def test_holes_are_filled_and_bays_are_not() -> None:
    picture = _picture((4, 4, 24, 24))
    picture[8:12, 8:12] = 0  # a hole
    picture[12, 12] = 0  # touches it at a corner: still a hole
    picture[20:24, 14:18] = 0  # a bay at the bottom, as between two trouser legs
    mask = silhouettes_of(picture[None]).masks[0]
    assert mask[8:13, 8:13].all()
    assert not mask[20:24, 14:18].any()
    assert mask.sum() == 400 - 16


def test_ground_at_the_edge_of_the_picture_is_no_hole() -> None:
    picture = _picture((0, 0, 28, 28))
    picture[10:20, 0:5] = 0
    assert silhouettes_of(picture[None]).masks[0].sum() == 784 - 50


def test_crumbs_are_left_out_of_the_silhouette() -> None:
    found = silhouettes_of(_picture((4, 4, 24, 24), (26, 26, 28, 28))[None])
    assert found.usable.tolist() == [True]
    assert found.masks[0].sum() == 400


def test_pictures_in_pieces_or_with_next_to_nothing_are_unusable() -> None:
    in_pieces = _picture((0, 0, 28, 10), (0, 12, 28, 16))
    thin = _picture((0, 10, 28, 13))
    at_a_corner = _picture((0, 0, 12, 12), (12, 12, 26, 26))  # one piece: neighbours at corners belong together
    found = silhouettes_of(np.stack([in_pieces, thin, _picture(), at_a_corner]))
    assert found.usable.tolist() == [False, False, False, True]
    assert found.masks[3].sum() == 144 + 196


def test_pictures_of_a_stack_do_not_touch_each_other() -> None:
    left, right = _picture((0, 0, 14, 28)), _picture((10, 0, 28, 28))
    both = silhouettes_of(np.stack([left, right]))
    for i, picture in enumerate((left, right)):
        assert np.array_equal(both.masks[i], silhouettes_of(picture[None]).masks[0])


def test_nearly_every_garment_of_the_package_is_usable() -> None:
    counts = {split: (len(garments_of(split).labels), garments_of(split).num_unusable) for split in ("train", "test")}
    assert counts == {"train": (9942, 58), "test": (4965, 35)}  # as docs/scenes.md says
    for split, per_class in (("train", 1000), ("test", 500)):
        assert min(map(len, garments_of(split).of_class)) > 0.97 * per_class
