"""The one way in: checks and dispatch of the corruptions.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261; hendrycks/robustness@8190fe3, ImageNet-C/create_c.
Differs: results stay in memory (the released ImageNet-C and Tiny-ImageNet-C went through JPEG at quality 85), grey images stay
grey, and frost is left out because it needs picture files. So call these numbers regenerated, not ImageNet-C.

Fidelity, measured on Imagenette photographs against the authors' scripts (200 at 32 px, 60 at 64 px, 16 at 224 px): ours by theirs,
mean |corrupted - clean| of one severity, the worst of five.

    corruption           32 px   64 px   224 px
    pixelate, jpeg       identical pixels
    contrast, zoom_blur  at most 1 grey level in any pixel, 0.004 on average
    brightness           at most 1 grey level in any pixel, 0.034 on average
    defocus_blur         at most 1 grey level in any pixel, 0.094 on average
    gaussian, shot       1.002   1.002   1.001   (other draws from here on)
    impulse_noise        1.025   1.046   1.004
    glass_blur           1.006   1.004   1.004
    snow                 1.013   1.010   1.007
    motion_blur          1.021   1.040   1.015   (same angle: at most 1 grey level from imagecorruptions-imaug 1.1.5)
    elastic_transform    1.015   1.021   1.054   (OpenCV rounds positions to 1/32 pixel, we do not)
    fog                  1.031   1.067   1.118   (few maps; same draws: the same plasma to 1e-15)
"""

from collections.abc import Sequence
from typing import assert_never

import numpy as np

from g2sd_deploy.data.corruptions import blur, digital, noise, weather
from g2sd_deploy.data.corruptions.names import SEVERITIES, CorruptionName, corruption_from_name
from g2sd_deploy.data.corruptions.primitives import Bytes, Levels, uint8_from_levels
from g2sd_deploy.data.corruptions.severities import SeverityTable, severity_table
from g2sd_deploy.randomness import generator
from g2sd_export.edge.errors import UserError

MIN_IMAGE_PX = 16

_CHUNK_VALUES = 2**20  # values of one batch worked on at a time: bounds memory, and stays near the cache


def corrupt(images: np.ndarray, name: CorruptionName, severity: int, *, keys: Sequence[int], seed: int = 0) -> Bytes:
    """Corrupt a batch of images as ImageNet-C does, each by draws of its own.

    The draws of an image depend on (name, severity, seed, key) alone, so the result is the same in any order, batch and
    process. (numpy may change how it turns bits into normal or Poisson draws between its feature releases.)

    Args:
        images: uint8 [N,H,W,C], square, side at least 16 px, C 1 (grey) or 3 (RGB). Not modified.
        name: Which corruption.
        severity: 1 (mild) to 5 (strong); constants from ``severity_table(H)``.
        keys: One whole number per image that stays with it, such as its index in the data set.
        seed: Another seed gives another draw of the same corruption.

    Returns:
        uint8 [N,H,W,C].

    Raises:
        UserError: Unknown name, or images smaller than 16 px.
        ValueError: Severity outside 1..5, wrong dtype or shape, or not one key per image.
    """
    name = corruption_from_name(name)
    checked = _checked(images, severity, keys)
    table = severity_table(checked.shape[1])
    step = max(1, _CHUNK_VALUES // max(1, checked[:1].size))
    corrupted = np.empty(checked.shape, dtype=np.uint8)
    for start in range(0, len(checked), step):
        chunk = slice(start, start + step)
        generators = [generator(seed, f"corruption/{name}/{severity}", int(key)) for key in keys[chunk]]
        levels = _apply(checked[chunk], name, generators, table, severity - 1)
        corrupted[chunk] = uint8_from_levels(levels)
    return corrupted


def _checked(images: np.ndarray, severity: int, keys: Sequence[int]) -> Bytes:
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity!r}, wanted a whole number from 1 to 5")
    if images.dtype != np.uint8:
        raise ValueError(f"images have dtype {images.dtype}, wanted uint8 with values 0 to 255")
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] not in (1, 3):
        raise ValueError(f"images have shape {images.shape}, wanted [N,H,W,C] with H = W and C = 1 or 3")
    if images.shape[1] < MIN_IMAGE_PX:
        raise UserError(f"Corruptions need images of at least {MIN_IMAGE_PX} px, these have {images.shape[1]} px: raise data.image_px.")
    if len(keys) != len(images):
        raise ValueError(f"{len(keys)} keys for {len(images)} images, wanted one key per image")
    return images


def _apply(images: Bytes, name: CorruptionName, generators: list[np.random.Generator], table: SeverityTable, level: int) -> Levels:
    """The corruption ``name`` with the constants of ``table`` at index ``level`` (severity - 1)."""
    match name:
        case "gaussian_noise":
            return noise.gaussian_noise(images, generators, sigma=table.gaussian_noise[level])
        case "shot_noise":
            return noise.shot_noise(images, generators, rate=table.shot_noise[level])
        case "impulse_noise":
            return noise.impulse_noise(images, generators, amount=table.impulse_noise[level])
        case "defocus_blur":
            return blur.defocus_blur(images, disk=table.defocus_blur[level])
        case "glass_blur":
            return blur.glass_blur(images, generators, glass=table.glass_blur[level])
        case "motion_blur":
            return blur.motion_blur(images, generators, motion=table.motion_blur[level])
        case "zoom_blur":
            return blur.zoom_blur(images, zoom=table.zoom_blur[level])
        case "snow":
            return weather.snow(images, generators, constants=table.snow[level])
        case "fog":
            return weather.fog(images, generators, constants=table.fog[level])
        case "brightness":
            return weather.brightness(images, shift=table.brightness[level])
        case "contrast":
            return digital.contrast(images, factor=table.contrast[level])
        case "elastic_transform":
            edge_px = images.shape[1] * table.elastic_edge
            return digital.elastic_transform(images, generators, elastic=table.elastic_transform[level], edge_px=edge_px)
        case "pixelate":
            return digital.pixelate(images, scale=table.pixelate[level])
        case "jpeg_compression":
            return digital.jpeg_compression(images, quality=table.jpeg_compression[level])
        case _:
            assert_never(name)
