"""timm's RandAugment, image by image, as a function of (seed, epoch, sample index) and of nothing that ran before."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps
from timm.data.auto_augment import RandAugment, rand_augment_transform

from g2sd_deploy.data.rand_augment_policy import check_policy
from g2sd_deploy.data.resample import Interpolation
from g2sd_deploy.randomness import uniform

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fill_from_mean(mean: Sequence[float]) -> tuple[int, ...]:
    """Colour of the pixels that shearing, moving and rotating bring into view: the data's mean, in units of 8-bit levels."""
    return tuple(min(255, round(255 * value)) for value in mean)


def rand_augment(
    images: UInt8[np.ndarray, "batch height width channels"],
    policy: str,
    seed: int,
    epoch: int,
    indices: Int64[np.ndarray, "batch"],
    fill: tuple[int, ...],
    *,
    interpolation: Interpolation = "bicubic",
) -> UInt8[np.ndarray, "batch height width channels"]:
    """Apply a RandAugment policy to each image.

    timm draws from the global generators of Python and NumPy. They are seeded for each sample and put back afterwards, so this must not
    run in two threads of a process at a time.

    Args:
        images: RGB or grey; a grey image is augmented as RGB of three equal channels, which every operation keeps equal.
        policy: As timm writes it, for example rand-m9-mstd0.5-inc1.
        seed: The recipe's seed.
        epoch: Pass over the data, from 0.
        indices: Position of each sample in its data set; what happens to it depends on its own index only.
        fill: One 8-bit level per channel, for pixels from outside the image.
        interpolation: Filter of the geometric operations; timm takes that of the crop.

    Raises:
        UserError: The policy is not understood.

    Source: arXiv 1909.13719; timm/data/transforms_factory.py, transforms_imagenet_train (fill and filter). Differs: timm also
    passes a translation in pixels, which no operation of a `rand` policy reads.
    """
    num_channels = images.shape[3]
    rgb_fill = (fill * 3)[:3] if num_channels == 1 else fill
    transform = _transform(policy, rgb_fill, interpolation)
    seeds = uniform(seed, "rand_augment", epoch, indices, 1)[:, 0]
    augmented = np.empty_like(images)
    with _global_generators_kept():
        for i, image in enumerate(images):
            _seed_global_generators(int(seeds[i] * 2**53))
            picture = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)))
            augmented[i] = np.asarray(transform(picture))[:, :, :num_channels]
    return augmented


@lru_cache(maxsize=8)
def _transform(policy: str, fill: tuple[int, ...], interpolation: Interpolation) -> RandAugment:
    check_policy(policy)
    transform: RandAugment = rand_augment_transform(policy, {"img_mean": fill, "interpolation": FILTERS[interpolation]})
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterized
    return transform


def _posterized(picture: Image.Image, bits_to_keep: int, **_: object) -> Image.Image:
    """timm's operation, and black where it asks Pillow for no bits at all.

    rand-m9-mstd0.5-inc1 asks for that about once in 700 images. Pillow used to answer with black; Pillow 13 raises an error.
    """
    if bits_to_keep >= 8:
        return picture
    return ImageOps.posterize(picture, bits_to_keep) if bits_to_keep > 0 else Image.new(picture.mode, picture.size)


def _seed_global_generators(number: int) -> None:
    random.seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Leave the global generators of Python and NumPy as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
