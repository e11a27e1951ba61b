"""What a scene holds and where: numbers in [0, 1) become garments with a place, a size, a turn and a colour."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from g2sd_deploy.data.scenes.garments import Garments
from g2sd_deploy.data.scenes.settings import SceneSpec

NUM_DRAWS = 17
"""Numbers that one garment takes."""
_COLOURS = 3
"""Colours that are drawn for a garment."""
_OUTSIDE = 0.2
"""Share of a garment's extent that may lie outside the scene, on each side."""
_STEP = 1 << 20
"""Sines are rounded to this part of 1: libraries differ in their last bit."""


@dataclass(frozen=True)
class Placed:
    """A garment in a scene.

    Attributes:
        garment: Its index among the garments of the split.
        label: Its class.
        centre: Across and down, in pixels of the scene.
        side_px: Side of its picture in the scene.
        turn: Cosine and sine of its turn.
        mirrored: Whether left and right are swapped.
        colour: Of its brightest points, in [0, 1].
    """

    garment: int
    label: int
    centre: tuple[float, float]
    side_px: float
    turn: tuple[float, float]
    mirrored: bool
    colour: Float32[np.ndarray, " 3"]


def place(
    draws: Float64[np.ndarray, " draws"], garments: Garments, spec: SceneSpec, ground: Float32[np.ndarray, " 3"], *, inside: bool
) -> Placed:
    """One garment.

    Args:
        draws: NUM_DRAWS numbers in [0, 1).
        garments: What there is to choose from: first a class, then one of its garments, each as likely as the others.
        spec: Sizes and turns.
        ground: Mean colour of the background.
        inside: Whether all of it has to lie within the scene.
    """
    of_class = garments.of_class[int(draws[0] * len(garments.of_class))]
    garment = int(of_class[int(draws[1] * len(of_class))])
    side = spec.smallest + (spec.largest - spec.smallest) * float(draws[2])
    turn = turn_of((2.0 * float(draws[3]) - 1.0) * spec.max_turn_deg)
    extent = side * (abs(turn[0]) + abs(turn[1]))
    margin = extent * (0.5 if inside else 0.5 - _OUTSIDE)
    across, down = (spec.image_px * (margin + (1.0 - 2.0 * margin) * float(draw)) for draw in draws[4:6])
    colour = _furthest(draws[7 : 7 + 3 * _COLOURS].reshape(_COLOURS, 3), ground, float(draws[7 + 3 * _COLOURS]))
    return Placed(
        garment, int(garments.labels[garment]), (across, down), side * spec.image_px, turn, bool(draws[6] < 0.5), colour.astype(np.float32)
    )


def turn_of(degrees: float) -> tuple[float, float]:
    """Cosine and sine, the same on every machine."""
    radians = math.radians(degrees)
    return round(math.cos(radians) * _STEP) / _STEP, round(math.sin(radians) * _STEP) / _STEP


def _furthest(colours: Float64[np.ndarray, "colours 3"], ground: Float32[np.ndarray, " 3"], brightness: float) -> Float64[np.ndarray, " 3"]:
    """Of several muted hues, whose largest part becomes 0.55 to 1, the one that differs most from the ground, in luminance and colour."""
    muted = 0.3 + 0.7 * colours
    bright = muted / muted.max(1, keepdims=True) * (0.55 + 0.45 * brightness)
    gap = bright - ground
    luminance = np.abs(0.299 * gap[:, 0] + 0.587 * gap[:, 1] + 0.114 * gap[:, 2])
    in_colour = np.abs(gap[:, 0]) + np.abs(gap[:, 1]) + np.abs(gap[:, 2])
    chosen: Float64[np.ndarray, " 3"] = bright[int(np.argmax(luminance + in_colour / 3.0))]
    return chosen
