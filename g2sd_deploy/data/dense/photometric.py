"""Photometric distortion of one image: brightness, contrast, saturation and hue, each at even odds."""

import numpy as np
from jaxtyping import Float32, Float64, UInt8

Planes = Float32[np.ndarray, "c h w"]
Plane = Float32[np.ndarray, "h w"]

NUM_PHOTOMETRIC_DRAWS = 9
BRIGHTNESS = 32.0
"""Most that is added to or taken off each channel, of 255 levels."""
FACTOR = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
HUE = 36.0
"""Most that the hue is turned, in degrees; OpenCV counts them by twos."""


def photometric_distortion(pixels: UInt8[np.ndarray, "h w c"], draws: Float64[np.ndarray, "9"]) -> UInt8[np.ndarray, "h w c"]:
    """Add to all channels, scale them, scale their distance from grey, turn the hue; scaling comes second or last.

    After each step values are cut off at 0 and 255. A grey image has no saturation and no hue to change.

    Args:
        pixels: RGB, or grey of one channel.
        draws: Uniform numbers in [0, 1): whether to change brightness (below 0.5) and by how much, likewise contrast, saturation and hue,
            then whether contrast comes last (below 0.5).

    Source: open-mmlab/mmsegmentation@v0.11.0, mmseg/datasets/pipelines/transforms.py, PhotoMetricDistortion (arXiv 1512.02325).
    Differs: 32-bit floats all the way, rounded once; the original cuts fractions off after each step, and keeps hue in steps of 2 degrees
    and saturation in 255 steps. Hue is turned by up to 36 degrees to both sides; the original excludes +36.
    """
    brightness, contrast, saturation, hue = (draws[2 * step : 2 * step + 2] for step in range(4))
    coloured, contrast_last = pixels.shape[2] == 3, bool(draws[8] < 0.5)
    planes = pixels.transpose(2, 0, 1).astype(np.float32, order="C")  # ten times as fast as pixel by pixel
    if brightness[0] < 0.5:
        planes = np.clip(planes + np.float32(_between((-BRIGHTNESS, BRIGHTNESS), brightness[1])), 0.0, 255.0)
    if contrast[0] < 0.5 and not contrast_last:
        planes = _contrasted(planes, contrast[1])
    if saturation[0] < 0.5 and coloured:
        planes = _saturated(planes, _between(FACTOR, saturation[1]))
    if hue[0] < 0.5 and coloured:
        planes = _hue_turned(planes, _between((-HUE, HUE), hue[1]))
    if contrast[0] < 0.5 and contrast_last:
        planes = _contrasted(planes, contrast[1])
    return np.rint(planes).astype(np.uint8).transpose(1, 2, 0)


def _contrasted(planes: Planes, draw: float) -> Planes:
    contrasted: Planes = np.clip(planes * np.float32(_between(FACTOR, draw)), 0.0, 255.0)
    return contrasted


def _saturated(planes: Planes, factor: float) -> Planes:
    """Saturation of the hexcone model (HSV) times a factor, at most 1: channels move away from the largest of them, which stays."""
    value, chroma = _value_and_chroma(planes)
    most = np.divide(value, chroma, out=np.ones_like(value), where=chroma > 0)  # the factor at which saturation is 1
    saturated: Planes = value - (value - planes) * np.minimum(most, np.float32(factor))
    return saturated


def _hue_turned(planes: Planes, degrees: float) -> Planes:
    """Hue of the hexcone model (HSV) turned around its circle; value and saturation stay.

    Source: Smith 1978, doi 10.1145/800248.807361 (the model).
    """
    value, chroma = _value_and_chroma(planes)
    red, green, blue = planes
    has_red, has_green = value == red, value == green
    turn = np.where(has_red, green - blue, np.where(has_green, blue - red, red - green))  # in sixths of the circle, times chroma
    turn = np.divide(turn, chroma, out=np.zeros_like(chroma), where=chroma > 0)
    turn += np.where(has_red, 0.0, np.where(has_green, 2.0, 4.0)).astype(np.float32) + np.float32(degrees / 60.0)
    turned = np.empty_like(planes)
    for plane, start in zip(turned, (5.0, 3.0, 1.0), strict=True):  # from a channel's place 1 to 3 it is the smallest
        place = turn + start
        place -= 6.0 * np.floor(place / 6.0)
        plane[:] = value - chroma * np.clip(np.minimum(place, 4.0 - place), 0.0, 1.0)
    return turned


def _value_and_chroma(planes: Planes) -> tuple[Plane, Plane]:
    """Largest channel of each pixel, and how far the smallest lies below it."""
    red, green, blue = planes
    value = np.maximum(np.maximum(red, green), blue)
    return value, value - np.minimum(np.minimum(red, green), blue)


def _between(span: tuple[float, float], draw: float) -> float:
    return float(span[0] + draw * (span[1] - span[0]))
