"""Severity constants of the common corruptions at the three published image sizes.

Values only. ``severity_table`` picks the table for an image size; ``api`` reports which one was used.

Source: Hendrycks and Dietterich 2019, arXiv 1903.12261; hendrycks/robustness@8190fe3, ImageNet-C/create_c
(make_cifar_c.py for 32 px, make_imagenet_64_c.py for 64 px, make_imagenet_c.py for 224 px).
Differs: lengths in pixels (radii, sigmas, deltas) are used as published, not rescaled from the table's size to the image's.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

T = TypeVar("T")
Levels = tuple[T, T, T, T, T]  # severity 1 first
SeverityTablePx = Literal[32, 64, 224]


class Disk(NamedTuple):
    """Defocus: radius of the disk in pixels and sigma of the blur that softens its edge."""

    radius: float
    alias_sigma: float


class Glass(NamedTuple):
    """Glass: blur before and after, reach of the shuffle in pixels, passes of the shuffle."""

    sigma: float
    max_delta: int
    num_passes: int


class Motion(NamedTuple):
    """Motion: length of the kernel is ``2 * radius + 1`` pixels, its decay is half a Gaussian of ``sigma``."""

    radius: int
    sigma: float


class Zoom(NamedTuple):
    """Zoom: factors are ``arange(1, end, step)``."""

    end: float
    step: float


class Snow(NamedTuple):
    """Snow: noise (mean, std), its enlargement, the value below which there is no flake, streak, weight of the image."""

    mean: float
    std: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    image_weight: float


class Fog(NamedTuple):
    """Fog: height of the plasma in units of pixel/255 and how fast its detail fades from octave to octave."""

    strength: float
    decay: float


class Elastic(NamedTuple):
    """Elastic: displacement, its smoothness and the jitter of three corners, each as a fraction of the image side."""

    alpha: float
    sigma: float
    affine: float


@dataclass(frozen=True)
class SeverityTable:
    """Constants of every corruption at one published size; index 0 of each tuple is severity 1."""

    image_px: SeverityTablePx
    gaussian_noise: Levels[float]  # standard deviation, pixel/255
    shot_noise: Levels[float]  # photons of a white pixel
    impulse_noise: Levels[float]  # share of the values replaced
    defocus_blur: Levels[Disk]
    glass_blur: Levels[Glass]
    motion_blur: Levels[Motion]
    zoom_blur: Levels[Zoom]
    snow: Levels[Snow]
    fog: Levels[Fog]
    brightness: Levels[float]  # added to HSV's V, pixel/255
    contrast: Levels[float]  # factor
    elastic_transform: Levels[Elastic]
    elastic_edge: float  # "image side" of the elastic fractions, in image sides
    pixelate: Levels[float]  # side of the small image as a share
    jpeg_compression: Levels[int]  # quality


CIFAR_C = SeverityTable(
    image_px=32,
    gaussian_noise=(0.04, 0.06, 0.08, 0.09, 0.10),
    shot_noise=(500.0, 250.0, 100.0, 75.0, 50.0),
    impulse_noise=(0.01, 0.02, 0.03, 0.05, 0.07),
    defocus_blur=(Disk(0.3, 0.4), Disk(0.4, 0.5), Disk(0.5, 0.6), Disk(1.0, 0.2), Disk(1.5, 0.1)),
    glass_blur=(Glass(0.05, 1, 1), Glass(0.25, 1, 1), Glass(0.4, 1, 1), Glass(0.25, 1, 2), Glass(0.4, 1, 2)),
    motion_blur=(Motion(6, 1.0), Motion(6, 1.5), Motion(6, 2.0), Motion(8, 2.0), Motion(9, 2.5)),
    zoom_blur=(Zoom(1.06, 0.01), Zoom(1.11, 0.01), Zoom(1.16, 0.01), Zoom(1.21, 0.01), Zoom(1.26, 0.01)),
    snow=(
        Snow(0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        Snow(0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        Snow(0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        Snow(0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        Snow(0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    fog=(Fog(0.2, 3.0), Fog(0.5, 3.0), Fog(0.75, 2.5), Fog(1.0, 2.0), Fog(1.5, 1.75)),
    brightness=(0.05, 0.1, 0.15, 0.2, 0.3),
    contrast=(0.75, 0.5, 0.4, 0.3, 0.15),
    elastic_transform=(
        Elastic(0.0, 0.0, 0.08),
        Elastic(0.05, 0.2, 0.07),
        Elastic(0.08, 0.06, 0.06),
        Elastic(0.1, 0.04, 0.05),
        Elastic(0.1, 0.03, 0.03),
    ),
    elastic_edge=1.0,
    pixelate=(0.95, 0.9, 0.85, 0.75, 0.65),
    jpeg_compression=(80, 65, 58, 50, 40),
)

TINY_IMAGENET_C = SeverityTable(
    image_px=64,
    gaussian_noise=(0.04, 0.08, 0.12, 0.15, 0.18),
    shot_noise=(250.0, 100.0, 50.0, 30.0, 15.0),
    impulse_noise=(0.01, 0.02, 0.05, 0.08, 0.14),
    defocus_blur=(Disk(0.5, 0.6), Disk(1.0, 0.1), Disk(1.5, 0.1), Disk(2.5, 0.01), Disk(3.0, 0.1)),
    glass_blur=(Glass(0.1, 1, 1), Glass(0.5, 1, 1), Glass(0.6, 1, 2), Glass(0.7, 2, 1), Glass(0.9, 2, 2)),
    motion_blur=(Motion(10, 1.0), Motion(10, 1.5), Motion(10, 2.0), Motion(10, 2.5), Motion(12, 3.0)),
    zoom_blur=(Zoom(1.06, 0.01), Zoom(1.11, 0.01), Zoom(1.16, 0.01), Zoom(1.21, 0.01), Zoom(1.26, 0.01)),
    snow=(
        Snow(0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.8),
        Snow(0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.8),
        Snow(0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.7),
        Snow(0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.65),
        Snow(0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.6),
    ),
    fog=(Fog(0.4, 3.0), Fog(0.7, 3.0), Fog(1.0, 2.5), Fog(1.5, 2.0), Fog(2.0, 1.75)),
    brightness=(0.1, 0.2, 0.3, 0.4, 0.5),
    contrast=(0.4, 0.3, 0.2, 0.1, 0.05),
    elastic_transform=(
        Elastic(0.0, 0.0, 0.08),
        Elastic(0.05, 0.3, 0.06),
        Elastic(0.1, 0.08, 0.06),
        Elastic(0.1, 0.03, 0.03),
        Elastic(0.16, 0.03, 0.02),
    ),
    elastic_edge=1.0,
    pixelate=(0.9, 0.8, 0.7, 0.6, 0.5),
    jpeg_compression=(65, 58, 50, 40, 25),
)

IMAGENET_C = SeverityTable(
    image_px=224,
    gaussian_noise=(0.08, 0.12, 0.18, 0.26, 0.38),
    shot_noise=(60.0, 25.0, 12.0, 5.0, 3.0),
    impulse_noise=(0.03, 0.06, 0.09, 0.17, 0.27),
    defocus_blur=(Disk(3.0, 0.1), Disk(4.0, 0.5), Disk(6.0, 0.5), Disk(8.0, 0.5), Disk(10.0, 0.5)),
    glass_blur=(Glass(0.7, 1, 2), Glass(0.9, 2, 1), Glass(1.0, 2, 3), Glass(1.1, 3, 2), Glass(1.5, 4, 2)),
    motion_blur=(Motion(10, 3.0), Motion(15, 5.0), Motion(15, 8.0), Motion(15, 12.0), Motion(20, 15.0)),
    zoom_blur=(Zoom(1.11, 0.01), Zoom(1.16, 0.01), Zoom(1.21, 0.02), Zoom(1.26, 0.02), Zoom(1.31, 0.03)),
    snow=(
        Snow(0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        Snow(0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        Snow(0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        Snow(0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        Snow(0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ),
    fog=(Fog(1.5, 2.0), Fog(2.0, 2.0), Fog(2.5, 1.7), Fog(2.5, 1.5), Fog(3.0, 1.4)),
    brightness=(0.1, 0.2, 0.3, 0.4, 0.5),
    contrast=(0.4, 0.3, 0.2, 0.1, 0.05),
    elastic_transform=(
        Elastic(2.0, 0.7, 0.1),
        Elastic(2.0, 0.08, 0.2),
        Elastic(0.05, 0.01, 0.02),
        Elastic(0.07, 0.01, 0.02),
        Elastic(0.12, 0.01, 0.02),
    ),
    elastic_edge=244 / 224,  # the published script says 244 where it means 224, and the released set was made so
    pixelate=(0.6, 0.5, 0.4, 0.3, 0.25),
    jpeg_compression=(25, 18, 15, 10, 7),
)

TABLES = (CIFAR_C, TINY_IMAGENET_C, IMAGENET_C)


def severity_table(image_px: int) -> SeverityTable:
    """The published table whose size is nearest by ratio: 28 -> 32, 48 and 96 -> 64, 128 -> 224.

    By ratio, because a blur of two pixels matters in proportion to the side.

    Args:
        image_px: Side of the images, at least 1.
    """
    return min(TABLES, key=lambda table: abs(math.log(image_px / table.image_px)))
