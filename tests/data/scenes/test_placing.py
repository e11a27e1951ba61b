"""What is drawn for a scene: every garment, size, turn and place that the spec allows, and no other."""

import math

import numpy as np
import pytest

from g2sd_deploy.data.scenes import SceneSpec
from g2sd_deploy.data.scenes.garments import garments_of
from g2sd_deploy.data.scenes.placing import NUM_DRAWS, Placed, place, turn_of

GREY = np.full(3, 0.5, np.float32)


def _placed(spec: SceneSpec, num: int, *, inside: bool) -> list[Placed]:
    rows = np.random.default_rng(1).random((num, NUM_DRAWS))
    return [place(row, garments_of("test"), spec, GREY, inside=inside) for row in rows]


def _overhang(one: Placed, image_px: int) -> float:
    """How far a garment's turned picture reaches over the scene's edge, as a share of its extent."""
    extent = one.side_px * (abs(one.turn[0]) + abs(one.turn[1]))
    return max(max(extent / 2 - at, at + extent / 2 - image_px) for at in one.centre) / extent


def test_the_first_garment_lies_inside_and_others_reach_over_the_edge_a_little() -> None:
    spec = SceneSpec(image_px=50, largest=0.7, max_turn_deg=180.0)
    assert max(_overhang(one, 50) for one in _placed(spec, 500, inside=True)) <= 1e-9
    assert 0.19 < max(_overhang(one, 50) for one in _placed(spec, 500, inside=False)) <= 0.2 + 1e-9


def test_sizes_and_turns_fill_the_ranges_of_the_spec() -> None:
    placed = _placed(SceneSpec(image_px=100, smallest=0.25, largest=0.6, max_turn_deg=25.0), 500, inside=False)
    sides, turns = [one.side_px for one in placed], [math.degrees(math.atan2(one.turn[1], one.turn[0])) for one in placed]
    assert 25 <= min(sides) < 26 < 59 < max(sides) <= 60
    assert -25 <= min(turns) < -24 < 24 < max(turns) <= 25
    assert {one.mirrored for one in placed} == {True, False}


def test_classes_are_equally_likely_and_garments_differ() -> None:
    placed = _placed(SceneSpec(), 2000, inside=False)
    counts = np.bincount([one.label for one in placed], minlength=10)
    assert abs(counts - 200).max() < 60  # 4.5 standard deviations
    assert len({one.garment for one in placed}) > 1500
    assert all(garments_of("test").labels[one.garment] == one.label for one in placed)


def test_a_garment_takes_the_colour_that_differs_most_from_the_ground() -> None:
    draws = np.zeros(NUM_DRAWS)
    draws[7:16] = [1, 0, 0, 0, 1, 0, 1, 1, 1]  # red, green or white
    draws[16] = 1.0
    on_white = place(draws, garments_of("test"), SceneSpec(), np.ones(3, np.float32), inside=False)
    on_black = place(draws, garments_of("test"), SceneSpec(), np.zeros(3, np.float32), inside=False)
    assert on_white.colour.tolist() == pytest.approx([1.0, 0.3, 0.3])
    assert on_black.colour.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_sines_are_those_of_mathematics_to_one_part_in_a_million() -> None:
    for degrees in (-180.0, -40.0, 0.0, 12.3, 90.0):
        assert turn_of(degrees) == pytest.approx((math.cos(math.radians(degrees)), math.sin(math.radians(degrees))), abs=1e-6)
