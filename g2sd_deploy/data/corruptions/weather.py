"""Weather: snow, fog and brightness. Results in grey levels."""

import numpy as np
from jaxtyping import Float64

from g2sd_deploy.data.corruptions.primitives import Bytes, Doubles, Floats, Generators, clipped_zoom, directed_blur, uint8_from_levels
from g2sd_deploy.data.corruptions.severities import Fog, Snow

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def snow(images: Bytes, generators: Generators, *, constants: Snow) -> Floats:
    """Whitened image plus a layer of streaks plus the same layer turned by half a circle."""
    shape = images.shape[1:3]
    flakes = np.stack([generator.normal(constants.mean, constants.std, shape) for generator in generators]).astype(np.float32)
    flakes = clipped_zoom(flakes[..., np.newaxis], constants.zoom)
    flakes[flakes < constants.threshold] = 0
    angles = [generator.uniform(-135, -45) for generator in generators]
    flakes = uint8_from_levels(255 * flakes).astype(np.float32)
    layer = directed_blur(flakes, angles, radius=constants.radius, sigma=constants.sigma)
    levels = images.astype(np.float32)
    grey = levels if images.shape[3] == 1 else (levels * _LUMA).sum(axis=3, keepdims=True)
    whitened = np.maximum(levels, 1.5 * grey + 127.5)
    veiled = constants.image_weight * levels + (1 - constants.image_weight) * whitened
    return np.asarray(veiled + layer + layer[:, ::-1, ::-1])


def fog(images: Bytes, generators: Generators, *, constants: Fog) -> Doubles:
    """A plasma fractal is added, and the sum rescaled so that the brightest possible value is the image's own."""
    side = images.shape[1]
    mist = plasma(generators, side=1 << (side - 1).bit_length(), decay=constants.decay)[:, :side, :side, np.newaxis]
    brightest = images.max(axis=(1, 2, 3), keepdims=True) / 255
    return np.asarray((images + 255 * constants.strength * mist) * (brightest / (brightest + constants.strength)))


def plasma(generators: Generators, *, side: int, decay: float) -> Float64[np.ndarray, "n side side"]:
    """Diamond-square height maps on a torus, each scaled to 0..1.

    Args:
        generators: One per map.
        side: A power of two, pixels.
        decay: Each octave's amplitude is the last one's divided by the square of this.

    Returns:
        [N, side, side].
    """
    heights = np.zeros((len(generators), side, side))
    draws = np.stack([generator.uniform(-1, 1, side * side) for generator in generators])
    used, step, amplitude = 0, side, 1.0
    while step >= 2:
        half, cells = step // 2, side // step
        noise = amplitude * draws[:, used : used + 3 * cells**2].reshape(-1, 3, cells, cells)
        corners = heights[:, ::step, ::step]
        below = np.roll(corners, -1, axis=1)
        right = np.roll(corners, -1, axis=2)
        centres = (corners + below + right + np.roll(below, -1, axis=2)) / 4 + noise[:, 0]
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = (corners + right + centres + np.roll(centres, 1, axis=1)) / 4 + noise[:, 1]
        heights[:, half::step, ::step] = (corners + below + centres + np.roll(centres, 1, axis=2)) / 4 + noise[:, 2]
        used, step, amplitude = used + 3 * cells**2, half, amplitude / decay**2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights


def brightness(images: Bytes, *, shift: float) -> Doubles:
    """HSV's V plus ``shift`` at the same hue and saturation; on grey images V is the value itself.

    In HSV, r, g and b are V times factors of hue and saturation, so they are scaled by new V over old V.
    """
    value = images.max(axis=3, keepdims=True).astype(np.float64)
    raised = np.minimum(value + 255 * shift, 255)
    return np.asarray(np.where(value > 0, images * (raised / np.maximum(value, 1)), raised))
