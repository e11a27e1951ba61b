"""Blur: defocus, glass, motion and zoom. Results in grey levels."""

import numpy as np
from jaxtyping import Float64, Int64
from scipy import ndimage

from g2sd_deploy.data.corruptions.primitives import Bytes, Floats, Generators, clipped_zoom, directed_blur, uint8_from_levels
from g2sd_deploy.data.corruptions.severities import Disk, Glass, Motion, Zoom


def defocus_blur(images: Bytes, *, disk: Disk) -> Floats:
    """Correlation with a disk whose edge is softened, image mirrored about its border pixels."""
    kernel = disk_kernel(disk)[np.newaxis, :, :, np.newaxis]
    return np.asarray(ndimage.correlate(images.astype(np.float32), kernel, mode="mirror"), dtype=np.float32)


def disk_kernel(disk: Disk) -> Float64[np.ndarray, "k k"]:
    """Square odd-sized kernel: whole-pixel disk, blurred by a 3-tap (5-tap above radius 8) Gaussian, zero rim cut off."""
    half, blur_half = (8, 1) if disk.radius <= 8 else (int(disk.radius), 2)
    steps = np.arange(-half, half + 1)
    kernel = (steps[:, np.newaxis] ** 2 + steps**2 <= disk.radius**2).astype(np.float64)
    kernel /= kernel.sum()
    taps = np.exp(-(np.arange(-blur_half, blur_half + 1) ** 2) / (2 * disk.alias_sigma**2))
    taps /= taps.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, taps, axis=axis, mode="mirror")
    reach = int(np.abs(steps[kernel.max(axis=0) > 0]).max())
    return kernel[half - reach : half + reach + 1, half - reach : half + reach + 1]


def glass_blur(images: Bytes, generators: Generators, *, glass: Glass) -> Floats:
    """Gaussian blur, local shuffle, Gaussian blur."""
    blurred = uint8_from_levels(_gaussian(images, glass.sigma))
    num, side, _, channels = images.shape
    pixels = blurred.reshape(num, side * side, channels)
    count = side - 2 * glass.max_delta
    shape = (glass.num_passes, 2, count, count)
    draws = np.stack([generator.integers(-glass.max_delta, glass.max_delta, size=shape) for generator in generators])
    for number in range(glass.num_passes):
        sources = shuffle_sources(draws[:, number], side=side, max_delta=glass.max_delta)
        pixels = np.take_along_axis(pixels, sources[:, :, np.newaxis], axis=1)
    return _gaussian(pixels.reshape(images.shape), glass.sigma)


def shuffle_sources(offsets: Int64[np.ndarray, "n 2 m m"], *, side: int, max_delta: int) -> Int64[np.ndarray, "n pixels"]:
    """Which pixel each pixel shows after one pass of the published shuffle.

    The pass visits rows and columns downwards from ``side - max_delta`` to ``max_delta + 1`` and overwrites each pixel
    by the neighbour at a random offset. (The script means to swap the two, but its numpy views alias, so the neighbour
    keeps its value.) A neighbour that was visited before already shows another pixel, so sources form chains; they are
    followed by repeated doubling instead of pixel by pixel.

    Args:
        offsets: [N, 2, side - 2 * max_delta, same], row and column offsets in -max_delta..max_delta-1.
        side: Height and width of the image in pixels.
        max_delta: Largest offset in pixels.

    Returns:
        [N, side * side] flat pixel indices.
    """
    num, num_pixels = offsets.shape[0], side * side
    visited = np.arange(max_delta + 1, side - max_delta + 1)
    grid = np.arange(num_pixels).reshape(side, side)
    here = grid[np.ix_(visited, visited)]
    there = here + offsets[:, 0] * side + offsets[:, 1]
    # A node below num_pixels stands for the new value of that pixel; num_pixels + p for the old value of pixel p.
    follow = np.broadcast_to(np.concatenate([grid.ravel(), grid.ravel()]) + num_pixels, (num, 2 * num_pixels)).copy()
    follow[:, num_pixels:] = grid.ravel() + num_pixels
    follow[:, here.ravel()] = np.where(there > here, there, there + num_pixels).reshape(num, -1)
    while (follow < num_pixels).any():
        follow = np.take_along_axis(follow, follow, axis=1)
    return follow[:, :num_pixels] - num_pixels


def motion_blur(images: Bytes, generators: Generators, *, motion: Motion) -> Floats:
    """A streak at an angle drawn from -45 to 45 degrees."""
    angles = [generator.uniform(-45, 45) for generator in generators]
    return directed_blur(images.astype(np.float32), angles, radius=motion.radius, sigma=motion.sigma)


def zoom_blur(images: Bytes, *, zoom: Zoom) -> Floats:
    """Mean of the image and of its enlargements."""
    levels = images.astype(np.float32)
    factors = np.arange(1, zoom.end, zoom.step)  # by rounding, the end is often included: so in the published sets
    total = levels.copy()
    for factor in factors:
        total += clipped_zoom(levels, float(factor))
    return total / np.float32(len(factors) + 1)


def _gaussian(images: Bytes, sigma: float) -> Floats:
    """Gaussian blur of each image and channel, cut at 4 sigma, border pixels repeated."""
    levels = images.astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(levels, (0, sigma, sigma, 0), mode="nearest", truncate=4), dtype=np.float32)
