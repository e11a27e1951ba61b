"""The garments that scenes are composed of: Fashion-MNIST's pictures inside the package, with their silhouettes."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int64

from g2sd_deploy.data.scenes.settings import SPLITS
from g2sd_deploy.data.scenes.silhouettes import Silhouettes, silhouettes_of
from g2sd_deploy.data.sources.idx import BUNDLED, CHECKSUMS, FASHION_MNIST_CLASSES, IdxSource
from g2sd_deploy.errors import UserError

NUM_CLASSES = len(FASHION_MNIST_CLASSES)


@dataclass(frozen=True)
class Garments:
    """The usable garments of one split.

    Attributes:
        layers: Grey in [0, 1] where the silhouette is and 0 elsewhere; and the silhouette as 0 and 1.
        labels: Class of each garment.
        of_class: Garments of each class.
        num_unusable: Pictures that were left out.
    """

    layers: Float32[np.ndarray, "num 2 height width"]
    labels: Int64[np.ndarray, " num"]
    of_class: tuple[Int64[np.ndarray, " _"], ...]
    num_unusable: int


@lru_cache(maxsize=len(SPLITS))
def garments_of(split: str) -> Garments:
    """Garments of a split: training scenes show training pictures alone, test scenes test pictures alone.

    Raises:
        UserError: There is no such split, or the package's files are damaged.
    """
    if split not in SPLITS:
        raise UserError(f"scenes have no split {split}; give {' or '.join(SPLITS)}")
    pictures = IdxSource(BUNDLED).samples(split, None)
    found: Silhouettes = silhouettes_of(pictures.images[..., 0])
    grey = np.where(found.masks, pictures.images[..., 0], 0).astype(np.float32) / np.float32(255.0)
    layers = np.stack([grey, found.masks.astype(np.float32)], axis=1)[found.usable]
    labels = pictures.labels[found.usable]
    of_class = tuple(np.flatnonzero(labels == label) for label in range(NUM_CLASSES))
    return Garments(layers, labels, of_class, int((~found.usable).sum()))


def digest_of_garments() -> str:
    """The checksums of the package's files, which `garments_of` compares with them."""
    return (BUNDLED / CHECKSUMS).read_text(encoding="utf-8")
