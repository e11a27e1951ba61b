"""Photometric distortion: what colorsys makes of every pixel in float64, step by step."""

import colorsys
from collections.abc import Sequence

import numpy as np
import pytest

from g2sd_deploy.data.dense.photometric import NUM_PHOTOMETRIC_DRAWS, photometric_distortion
from g2sd_deploy.randomness import uniform

OFF = 0.9  # a draw that leaves a step out


def colours() -> np.ndarray:
    """Random colours; greys, black, white and pure colours among them, where hue and saturation have their corners."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 11, 3), dtype=np.uint8)
    pixels[0, :9] = [(0, 0, 0), (255, 255, 255), (77, 77, 77), (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 8), (200, 200, 0), (7, 90, 90)]
    return pixels


def draws_of(brightness: float = OFF, contrast: float = OFF, saturation: float = OFF, hue: float = OFF, amount: float = 0.5) -> np.ndarray:
    return np.array([brightness, amount, contrast, amount, saturation, amount, hue, amount, 0.1])


def by_colorsys(rgb: Sequence[float], draws: Sequence[float]) -> list[float]:
    """One pixel of levels 0 .. 255; mmsegmentation's steps without its roundings."""
    does = [draw < 0.5 for draw in draws[0:8:2]]
    delta, contrast, saturation = -32 + 64 * draws[1], 0.5 + draws[3], 0.5 + draws[5]
    degrees = 2 * (-18 + 36 * draws[7])  # OpenCV's hues are half degrees of a circle
    contrast_last = draws[8] < 0.5

    def cut(level: float) -> float:
        return min(255.0, max(0.0, level))

    levels = [cut(level + delta) if does[0] else float(level) for level in rgb]
    if does[1] and not contrast_last:
        levels = [cut(level * contrast) for level in levels]
    if len(levels) == 3:
        h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in levels))
        s = min(1.0, s * saturation) if does[2] else s
        h = (h + degrees / 360) % 1.0 if does[3] else h
        levels = [255 * level for level in colorsys.hsv_to_rgb(h, s, v)]
    return [cut(level * contrast) for level in levels] if does[1] and contrast_last else levels


@pytest.mark.parametrize("index", range(24))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_is_that_of_colorsys(index: int, channels: int) -> None:
    draws = uniform(0, "test", 0, np.array([index]), NUM_PHOTOMETRIC_DRAWS)[0]
    pixels = colours()[:, :, :channels]
    got = photometric_distortion(pixels, draws)
    assert got.shape == pixels.shape
    assert got.dtype == np.uint8
    expected = np.array([by_colorsys(pixel.tolist(), draws.tolist()) for pixel in pixels.reshape(-1, channels)]).reshape(pixels.shape)
    assert np.abs(got - expected).max() < 0.51  # the rounding, and float32


def test_nothing_happens_where_all_steps_are_left_out_and_where_all_amounts_are_in_the_middle() -> None:
    pixels = colours()
    assert (photometric_distortion(pixels, draws_of()) == pixels).all()
    assert (photometric_distortion(pixels, draws_of(0.1, 0.1, 0.1, 0.1, amount=0.5)) == pixels).all()


def test_the_amounts_span_the_published_ranges() -> None:
    grey = np.full((1, 1, 3), 100, dtype=np.uint8)
    assert [photometric_distortion(grey, draws_of(brightness=0.1, amount=amount))[0, 0, 0] for amount in (0, 1 - 2**-53)] == [68, 132]
    assert [photometric_distortion(grey, draws_of(contrast=0.1, amount=amount))[0, 0, 0] for amount in (0, 1 - 2**-53)] == [50, 150]
    dull = np.array([[[200, 100, 100]]], dtype=np.uint8)
    assert [photometric_distortion(dull, draws_of(saturation=0.1, amount=amount)).tolist() for amount in (0, 1 - 2**-53)] == [
        [[[200, 150, 150]]],
        [[[200, 50, 50]]],
    ]
    red = np.array([[[255, 0, 0]]], dtype=np.uint8)
    assert [photometric_distortion(red, draws_of(hue=0.1, amount=amount)).tolist() for amount in (0, 1 - 2**-53)] == [
        [[[255, 0, 153]]],  # 36 of 60 degrees towards magenta
        [[[255, 153, 0]]],
    ]


def test_contrast_comes_second_or_last() -> None:
    """More contrast cuts red off at 255; the saturation that follows then starts from other colours."""
    pixels = np.array([[[250, 180, 40]]], dtype=np.uint8)
    draws = draws_of(contrast=0.1, saturation=0.1, amount=0.99)
    last, second = (photometric_distortion(pixels, np.array([*draws[:8], order])) for order in (0.1, 0.9))
    assert (last != second).any()
    assert last.tolist() == [[[round(level) for level in by_colorsys((250, 180, 40), [*draws[:8], 0.1])]]]
    assert second.tolist() == [[[round(level) for level in by_colorsys((250, 180, 40), [*draws[:8], 0.9])]]]


def test_the_image_that_comes_in_is_not_changed() -> None:
    pixels = colours()
    pixels.flags.writeable = False
    photometric_distortion(pixels, draws_of(0.1, 0.1, 0.1, 0.1, amount=0.9))
    assert (pixels == colours()).all()
