"""Digital: contrast, elastic transform, pixelate and JPEG. Results in grey levels."""

import io
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image
from scipy import ndimage

from g2sd_deploy.data.corruptions.primitives import Bytes, Doubles, Floats, Generators
from g2sd_deploy.data.corruptions.severities import Elastic


def contrast(images: Bytes, *, factor: float) -> Doubles:
    """(x - mean) * factor + mean, with the mean of each image's channel."""
    height, width = images.shape[1:3]
    # Summed as whole numbers: a float sum could differ in the last bit with the number of images in the batch.
    means = images.sum(axis=(1, 2), keepdims=True, dtype=np.int64) / (height * width)
    return np.asarray((images - means) * factor + means)


def elastic_transform(images: Bytes, generators: Generators, *, elastic: Elastic, edge_px: float) -> Floats:
    """A random affine map (three corners of the middle jittered), then a smooth random displacement.

    Args:
        images: Square images.
        generators: One per image.
        elastic: Fractions of ``edge_px``.
        edge_px: Side that the fractions refer to.
    """
    side = images.shape[1]
    grid = np.mgrid[0:side, 0:side].astype(np.float64)
    jitters = np.stack([generator.uniform(-1, 1, (3, 2)) for generator in generators]) * (elastic.affine * edge_px)
    fields = np.stack([generator.uniform(-1, 1, (2, side, side)) for generator in generators])
    sigma = elastic.sigma * edge_px
    fields = ndimage.gaussian_filter(fields, (0, 0, sigma, sigma), mode="reflect", truncate=3) * (elastic.alpha * edge_px)
    warped = np.empty(images.shape, dtype=np.float32)
    for index, image in enumerate(images):
        moved = _sample(image.astype(np.float32), affine_positions(grid, jitters[index]), mode="mirror")
        warped[index] = _sample(moved, grid + fields[index], mode="reflect")
    return warped


def affine_positions(grid: Float64[np.ndarray, "2 h w"], jitter: Float64[np.ndarray, "3 2"]) -> Float64[np.ndarray, "2 h w"]:
    """Where each pixel of the warped image is read, if three corners of the middle third move by ``jitter``.

    Args:
        grid: [2, H, W], row and column of each pixel.
        jitter: [3, 2], row and column shift of each corner in pixels.

    Returns:
        [2, H, W], row and column in pixels.
    """
    side = grid.shape[1]
    centre, reach = side // 2, side // 3
    corners = np.array([[centre + reach, centre + reach], [centre - reach, centre + reach], [centre - reach, centre - reach]])
    moved = np.column_stack([corners + jitter, np.ones(3)])
    source_from_target = np.linalg.solve(moved, corners.astype(np.float64))  # [3, 2]
    linear, offset = source_from_target[:2], source_from_target[2]
    rows = grid[0] * linear[0, 0] + grid[1] * linear[1, 0] + offset[0]
    cols = grid[0] * linear[0, 1] + grid[1] * linear[1, 1] + offset[1]
    return np.stack([rows, cols])


def _sample(
    image: Float32[np.ndarray, "h w c"], positions: Float64[np.ndarray, "2 h w"], *, mode: Literal["mirror", "reflect"]
) -> Float32[np.ndarray, "h w c"]:
    """Bilinear samples of an image [H,W,C] at row and column positions [2,H,W]."""
    channels = [ndimage.map_coordinates(image[..., channel], positions, order=1, mode=mode) for channel in range(image.shape[2])]
    return np.stack(channels, axis=-1)


def pixelate(images: Bytes, *, scale: float) -> Bytes:
    """Box filter down to ``int(side * scale)`` pixels, and box (nearest) up again."""
    side = images.shape[1]
    small = (int(side * scale), int(side * scale))
    box = Image.Resampling.BOX
    return _stack_pictures([picture.resize(small, box).resize((side, side), box) for picture in _pictures(images)], images)


def jpeg_compression(images: Bytes, *, quality: int) -> Bytes:
    """Through a JPEG file in memory: mode L for grey, RGB with Pillow's default 4:2:0 chroma for colour."""
    return _stack_pictures([_jpeg_round_trip(picture, quality) for picture in _pictures(images)], images)


def _jpeg_round_trip(picture: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def _pictures(images: Bytes) -> list[Image.Image]:
    """Pillow images: mode L for one channel, RGB for three."""
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images]


def _stack_pictures(pictures: list[Image.Image], like: Bytes) -> Bytes:
    return np.stack([np.asarray(picture) for picture in pictures]).reshape(like.shape)
