"""Random erasing: a box of noise over some of the images."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from g2sd_deploy.data.boxes import NUM_SHAPE_DRAWS, first_fitting_shape, placed
from g2sd_deploy.randomness import generator, uniform

AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)
NUM_ERASE_DRAWS = 3 + NUM_SHAPE_DRAWS


def random_erase(
    images: Float[Tensor, "batch channels height width"],
    seed: int,
    epoch: int,
    indices: Int64[np.ndarray, "batch"],
    probability: float,
) -> Float[Tensor, "batch channels height width"]:
    """Fill one box of an image with standard normal noise, each image with the given probability.

    Args:
        images: Normalised, so that the noise has their mean and spread; not changed.
        seed: The recipe's seed.
        epoch: Pass over the data, from 0.
        indices: Position of each sample in its data set; whether, where and with what it is erased depends on its own index only.
        probability: In [0, 1]. A box of 2 to 33 % of the area and a ratio of 0.3 to 3.3 that misses the image ten times is left out.

    Source: arXiv 1708.04896; timm/data/random_erasing.py, RandomErasing(mode="pixel", max_count=1). Differs: timm draws from the
    process's generators, so its noise depends on what ran before.
    """
    channels, height, width = images.shape[1:]
    draws = uniform(seed, "erase", epoch, indices, NUM_ERASE_DRAWS)
    shapes = first_fitting_shape(draws[:, 3:], AREA, RATIO, (height, width), largest=(height - 1, width - 1))
    tops, lefts = placed(draws[:, 1], shapes.heights, height), placed(draws[:, 2], shapes.widths, width)
    erased = images.clone()
    for i in np.flatnonzero((draws[:, 0] < probability) & shapes.fitted):
        box = (channels, int(shapes.heights[i]), int(shapes.widths[i]))
        noise = generator(seed, "erase_noise", epoch, int(indices[i])).standard_normal(box, dtype=np.float32)
        erased[i, :, tops[i] : tops[i] + box[1], lefts[i] : lefts[i] + box[2]] = torch.from_numpy(noise).to(images)
    return erased
