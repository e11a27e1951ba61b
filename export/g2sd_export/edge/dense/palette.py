"""Colours of classes: the same class has the same colour in every picture."""

from __future__ import annotations

import colorsys
from typing import Tuple

import numpy as np
import numpy.typing as npt

Colour = Tuple[int, int, int]

# Orange, sky blue, bluish green, yellow, blue, vermillion, reddish purple and dark grey: told apart with normal sight and with both kinds
# of red-green blindness.
FIRST: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (70, 70, 70),
)
"""Colours of the first classes.

Source: Okabe and Ito, Color Universal Design (2008).
Differs: dark grey in place of black, so that what lies under it stays visible.
"""

_GOLDEN = 0.618033988749895
_LIGHTNESS = (0.45, 0.65, 0.3, 0.8)
_SATURATION = (0.75, 0.5)


def colour_of(index: int) -> Colour:
    """Red, green and blue of a class, each 0 to 255.

    Args:
        index: Of the class, at least 0; beyond ``FIRST`` hues that lie far from those of the neighbours, in changing lightness.
    """
    if index < len(FIRST):
        return FIRST[index]
    step = index - len(FIRST)
    lightness, saturation = _LIGHTNESS[step % len(_LIGHTNESS)], _SATURATION[step // len(_LIGHTNESS) % len(_SATURATION)]
    red, green, blue = colorsys.hls_to_rgb(step * _GOLDEN % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def colours(num: int) -> npt.NDArray[np.uint8]:
    """uint8 [num, 3]: the colours of classes 0 to ``num - 1``."""
    return np.asarray([colour_of(index) for index in range(num)], np.uint8).reshape(num, 3)


def ink_on(colour: Colour) -> Colour:
    """Black or white: what is read better on a colour (by its luminance in sRGB)."""
    linear = [(part / 255 / 12.92) if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
