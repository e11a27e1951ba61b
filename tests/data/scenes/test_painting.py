"""Garments turned, scaled and coloured, and grounds, against formulas that share no code with them."""

import math

import numpy as np
import pytest

from g2sd_deploy.data.scenes import backgrounds
from g2sd_deploy.data.scenes.backgrounds import KINDS, make_ground, num_noise_draws
from g2sd_deploy.data.scenes.painting import Layer, layer_of, paint
from g2sd_deploy.data.scenes.placing import Placed, turn_of


def _l_shape() -> np.ndarray:
    """A picture without symmetry: an L of grey 1, whose foot of grey 0.5 points to the right."""
    picture = np.zeros((2, 28, 28), np.float32)
    picture[:, 2:26, 6:12] = 1.0
    picture[:, 20:26, 12:24] = [[[0.5]], [[1.0]]]
    return picture


def _in_l_shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points, in pixels from the picture's left upper corner, lie in the L."""
    upright = (x >= 6) & (x < 12) & (y >= 2) & (y < 26)
    return upright | ((x >= 12) & (x < 24) & (y >= 20) & (y < 26))


def _expected_coverage(placed: Placed, degrees: float, image_px: int) -> np.ndarray:
    """Share of each pixel that the turned L covers, by 64 points in each, in float64."""
    at = (np.arange(8 * image_px) + 0.5) / 8
    x, y = np.meshgrid(at - placed.centre[0], at - placed.centre[1])
    angle, scale = math.radians(degrees), 28 / placed.side_px
    u, v = scale * (math.cos(angle) * x + math.sin(angle) * y), scale * (math.cos(angle) * y - math.sin(angle) * x)
    inside = _in_l_shape((-u if placed.mirrored else u) + 14, v + 14)
    return inside.reshape(image_px, 8, image_px, 8).mean((1, 3))


def _whole(layer: Layer, image_px: int) -> np.ndarray:
    coverage = np.zeros((image_px, image_px))
    coverage[layer.place] = layer.coverage
    return coverage


@pytest.mark.parametrize("side_px", [20.0, 28.0, 50.0])
@pytest.mark.parametrize(("degrees", "mirrored"), [(0.0, False), (33.0, False), (-100.0, True)])
def test_a_garment_is_turned_scaled_and_mirrored_as_the_formula_says(side_px: float, degrees: float, mirrored: bool) -> None:
    placed = Placed(0, 0, (37.3, 30.8), side_px, turn_of(degrees), mirrored, np.ones(3, np.float32))
    found, expected = _whole(layer_of(placed, _l_shape(), 64), 64), _expected_coverage(placed, degrees, 64)
    assert np.abs(found - expected).mean() < 0.012
    agreed = (found >= 0.5) == (expected >= 0.5)
    assert (agreed | (np.abs(expected - 0.5) < 0.3)).all()
    assert found.sum() == pytest.approx(expected.sum(), rel=0.04)


def test_what_lies_outside_the_scene_is_cut_off_and_counted() -> None:
    inside = layer_of(Placed(0, 0, (40.0, 40.0), 30.0, turn_of(20.0), False, np.ones(3, np.float32)), _l_shape(), 80)
    outside = layer_of(Placed(0, 0, (0.0, 40.0), 30.0, turn_of(20.0), False, np.ones(3, np.float32)), _l_shape(), 80)
    assert outside.num_px == inside.num_px == inside.mask.sum()
    assert np.array_equal(_whole(outside, 80)[:, :40], _whole(inside, 80)[:, 40:])
    assert 0 < outside.mask.sum() < inside.num_px


def test_a_garment_takes_its_colour_by_its_grey() -> None:
    colour = np.array([0.8, 0.4, 0.2], np.float32)
    layer = layer_of(Placed(0, 0, (32.0, 32.0), 28.0, (1.0, 0.0), False, colour), _l_shape(), 64)
    painted = paint(np.zeros((64, 64, 3), np.float32), [layer])
    assert painted[32, 18 + 9].tolist() == [204, 102, 51]  # the upright: grey 1
    assert painted[18 + 23, 18 + 20].tolist() == [round(255 * (0.25 + 0.75 * 0.5) * part + 1e-4) for part in (0.8, 0.4, 0.2)]  # grey 0.5


def test_edges_mix_the_garment_with_what_lies_behind() -> None:
    half = Layer(1, 1, np.array([[0.5, 1.0]], np.float32), np.ones((1, 2, 3), np.float32), 2)
    painted = paint(np.full((3, 3, 3), 0.2, np.float32), [half])
    assert painted[1].tolist() == [[51] * 3, [153] * 3, [255] * 3]
    assert (painted[[0, 2]] == 51).all()


def test_the_first_layer_lies_in_front() -> None:
    red, blue = (Layer(0, 0, np.ones((2, 2), np.float32), np.full((2, 2, 3), colour, np.float32), 4) for colour in ((1, 0, 0), (0, 0, 1)))
    assert (paint(np.zeros((2, 2, 3), np.float32), [red, blue]) == (255, 0, 0)).all()


def _draws(kind: str, **others: float) -> np.ndarray:
    names = ("red", "green", "blue", "red2", "green2", "blue2", "direction", "waves", "phase", "phase2", "spare")
    first = (KINDS.index(kind) + 0.5) / len(KINDS)  # type: ignore[arg-type]
    return np.array([first, *(others.get(name, 0.0 if not name.endswith("2") else 1.0) for name in names)])


def test_a_gradient_runs_evenly_from_one_colour_to_the_other() -> None:
    ground = make_ground(_draws("gradient", direction=1 / 12), np.full(num_noise_draws(40), 0.5), 40)
    at = (np.arange(40) + 0.5) / 40 - 0.5
    along = (math.cos(math.pi / 6) * at + math.sin(math.pi / 6) * at[:, None]) / (math.cos(math.pi / 6) + math.sin(math.pi / 6)) + 0.5
    assert np.allclose(ground.pixels, (0.15 + 0.7 * along)[..., None], atol=1e-5)
    assert np.allclose(ground.mean, 0.5)


def test_stripes_and_checks_repeat_with_their_period() -> None:
    for kind in ("stripes", "checks"):
        pixels = make_ground(_draws(kind, waves=0.25), np.full(num_noise_draws(64), 0.5), 64).pixels[..., 0]  # four waves of 16 pixels
        assert np.allclose(pixels[:, :48], pixels[:, 16:], atol=1e-5)
        assert np.allclose(pixels[:, :56], 1.0 - pixels[:, 8:], atol=1e-5)
        assert np.allclose(pixels[:48], pixels[16:], atol=1e-5)
        assert (np.ptp(pixels, axis=0) < 1e-5).all() == (kind == "stripes")


def test_clouds_pass_through_their_lattice_at_every_scale() -> None:
    noise = np.full(num_noise_draws(63), 0.5)
    noise[5] = 1.0  # row 1, column 1 of the coarsest lattice, which lies between pixels 20 and 21 ... of 63
    pixels = make_ground(_draws("clouds"), noise, 63).pixels[..., 0]
    peak = np.unravel_index(int(pixels.argmax()), pixels.shape)
    assert np.abs(np.array(peak) - 20.5).max() <= 0.5
    assert pixels.max() == pytest.approx(0.15 + 0.7 * (0.5 + 0.5 * 0.5) + 0.32 * 0.5 * 0.1, abs=0.005)
    assert np.allclose(pixels[43:], pixels[50, 50])  # two cells away nothing of it is left
    assert pixels[31, 20] - pixels[50, 50] == pytest.approx((pixels[20, 20] - pixels[50, 50]) / 2, rel=0.01)  # half a cell away half of it


def test_grounds_are_of_every_kind_and_never_plain() -> None:
    draws = np.random.default_rng(0).random
    grounds = [make_ground(draws(backgrounds.NUM_DRAWS), draws(num_noise_draws(32)), 32) for _ in range(60)]
    assert {ground.kind for ground in grounds} == set(KINDS)
    assert min(float(ground.pixels.std((0, 1)).max()) for ground in grounds) > 0.01
