"""Textured grounds: gradients, clouds, stripes and checks between two colours, each with a fine texture and grain.

Only +, -, *, / and comparisons are used on arrays, so the bytes do not depend on a machine's mathematical library.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from g2sd_deploy.data.scenes.placing import turn_of

Kind = Literal["gradient", "clouds", "stripes", "checks"]
KINDS: tuple[Kind, ...] = ("gradient", "clouds", "stripes", "checks")
NUM_DRAWS = 12
"""Numbers that the kind, the colours and the pattern take."""
_DARKEST, _BRIGHTEST = 0.15, 0.85
_CELLS = (3, 6, 12, 24)
"""Cells of the noise along a side, coarse to fine."""
_CLOUD_WEIGHTS = (0.5, 0.27, 0.15, 0.08)
_TEXTURE_WEIGHTS = (0.1, 0.15, 0.3, 0.45)
_TEXTURE = 0.16
_GRAIN = 0.06


@dataclass(frozen=True)
class Ground:
    """A background.

    Attributes:
        kind: How its pattern was made.
        colours: The two colours that it lies between, in [0, 1].
        pixels: Its pixels; near [0, 1].
    """

    kind: Kind
    colours: Float32[np.ndarray, "2 3"]
    pixels: Float32[np.ndarray, "side side 3"]

    @property
    def mean(self) -> Float32[np.ndarray, " 3"]:
        """Colour in the middle of the two."""
        middle: Float32[np.ndarray, " 3"] = (self.colours[0] + self.colours[1]) * np.float32(0.5)
        return middle


def num_noise_draws(image_px: int) -> int:
    """Numbers that noise and grain take."""
    return sum((cells + 1) ** 2 for cells in _CELLS) + image_px**2


def make_ground(draws: Float64[np.ndarray, " draws"], noise: Float64[np.ndarray, " noise"], image_px: int) -> Ground:
    """A ground as the draws ask for.

    Args:
        draws: NUM_DRAWS numbers in [0, 1).
        noise: `num_noise_draws(image_px)` numbers in [0, 1).
        image_px: Side of the scene.
    """
    kind = KINDS[int(draws[0] * len(KINDS))]
    colours = (_DARKEST + (_BRIGHTEST - _DARKEST) * draws[1:7].reshape(2, 3)).astype(np.float32)
    octaves, grain = _octaves(noise.astype(np.float32), image_px)
    pattern = _mix(octaves, _CLOUD_WEIGHTS) if kind == "clouds" else _figure(kind, draws[7:NUM_DRAWS], image_px)
    light = (_mix(octaves, _TEXTURE_WEIGHTS) - np.float32(0.5)) * np.float32(2 * _TEXTURE) + (grain - np.float32(0.5)) * np.float32(_GRAIN)
    pixels = colours[0] + pattern[..., None] * (colours[1] - colours[0]) + light[..., None]
    return Ground(kind, colours, pixels)


def _octaves(
    noise: Float32[np.ndarray, " noise"], image_px: int
) -> tuple[list[Float32[np.ndarray, "side side"]], Float32[np.ndarray, "side side"]]:
    """Smooth noise at each scale, and grain."""
    octaves, start = [], 0
    for cells in _CELLS:
        lattice = noise[start : start + (cells + 1) ** 2].reshape(cells + 1, cells + 1)
        octaves.append(_between(_between(lattice, image_px).T, image_px).T)
        start += (cells + 1) ** 2
    return octaves, noise[start:].reshape(image_px, image_px)


def _between(lattice: Float32[np.ndarray, "points other"], image_px: int) -> Float32[np.ndarray, "side other"]:
    """Values of `image_px` pixels between the lattice's points, down the first axis, with a smooth passage at each point."""
    cells = len(lattice) - 1
    at = (np.arange(image_px, dtype=np.float32) + np.float32(0.5)) * np.float32(cells) / np.float32(image_px)
    cell = at.astype(np.int64)
    part = at - cell.astype(np.float32)
    share = (part * part * (np.float32(3.0) - np.float32(2.0) * part))[:, None]
    passed: Float32[np.ndarray, "side other"] = lattice[cell] + share * (lattice[cell + 1] - lattice[cell])
    return passed


def _mix(octaves: list[Float32[np.ndarray, "side side"]], weights: tuple[float, ...]) -> Float32[np.ndarray, "side side"]:
    """Weighted sum; the weights add up to 1, so it stays in [0, 1]."""
    mixed = np.zeros_like(octaves[0])
    for octave, weight in zip(octaves, weights, strict=True):
        mixed += octave * np.float32(weight)
    return mixed


def _figure(kind: Kind, draws: Float64[np.ndarray, " draws"], image_px: int) -> Float32[np.ndarray, "side side"]:
    """A gradient, stripes or checks in any direction, in [0, 1]."""
    cosine, sine = turn_of(360.0 * float(draws[0]))
    at = (np.arange(image_px, dtype=np.float32) + np.float32(0.5)) / np.float32(image_px) - np.float32(0.5)
    along = np.float32(cosine) * at + np.float32(sine) * at[:, None]
    if kind == "gradient":
        ramp: Float32[np.ndarray, "side side"] = along / np.float32(abs(cosine) + abs(sine)) + np.float32(0.5)
        return ramp
    waves = 2.0 + 8.0 * float(draws[1])
    steepness = np.float32(image_px / waves / 4.0)  # from one colour to the other within one or two pixels
    first = _wave(along * np.float32(waves) + np.float32(draws[2]), steepness)
    if kind == "checks":
        across = np.float32(cosine) * at[:, None] - np.float32(sine) * at
        first *= _wave(across * np.float32(waves) + np.float32(draws[3]), steepness)
    figure: Float32[np.ndarray, "side side"] = (first + np.float32(1.0)) * np.float32(0.5)
    return figure


def _wave(phase: Float32[np.ndarray, "side side"], steepness: np.float32) -> Float32[np.ndarray, "side side"]:
    """A square wave of period 1 between -1 and 1, with slopes at its edges."""
    part = phase - np.floor(phase)
    triangle = np.float32(1.0) - np.float32(4.0) * np.abs(part - np.float32(0.5))
    wave: Float32[np.ndarray, "side side"] = np.clip(triangle * steepness, np.float32(-1.0), np.float32(1.0))
    return wave
