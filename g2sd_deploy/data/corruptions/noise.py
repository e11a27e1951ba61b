"""Noise: gaussian, shot and impulse. Formulas in units of pixel/255; results in grey levels."""

import numpy as np

from g2sd_deploy.data.corruptions.primitives import Bytes, Doubles, Generators


def gaussian_noise(images: Bytes, generators: Generators, *, sigma: float) -> Doubles:
    """x + N(0, sigma), independent for every value."""
    noise = np.stack([generator.standard_normal(images.shape[1:]) for generator in generators])
    return images + (255 * sigma) * noise


def shot_noise(images: Bytes, generators: Generators, *, rate: float) -> Doubles:
    """Poisson(x * rate) / rate: ``rate`` photons arrive at a white pixel."""
    photons = images * (rate / 255)
    counts = np.stack([generator.poisson(photon) for generator, photon in zip(generators, photons, strict=True)])
    return counts * (255 / rate)


def impulse_noise(images: Bytes, generators: Generators, *, amount: float) -> Bytes:
    """Each value becomes 0 or 255, evenly, with probability ``amount``."""
    draws = np.stack([generator.random((2, *images.shape[1:])) for generator in generators])
    extremes = np.where(draws[:, 1] < 0.5, np.uint8(255), np.uint8(0))
    return np.where(draws[:, 0] < amount, extremes, images)
