"""Similarity of the layers of several networks, and how far their heads look, over the same images in one pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from g2sd_deploy.data.decoding import fit_to_all
from g2sd_deploy.data.images import BadImage, Samples, picks_of
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.evaluation.attention import AttentionDistance
from g2sd_deploy.evaluation.layers import LayerReader
from g2sd_deploy.evaluation.similarity import FEWEST_IMAGES, Cka, Grams, grams_of
from g2sd_deploy.evaluation.variants import geometry
from g2sd_deploy.settings import SimilaritySettings
from g2sd_export.edge.preprocess import Preprocessing, normalise

NOTE = "Linear CKA, unbiased, of all tokens of a layer; all patches are seen."


@dataclass(frozen=True)
class Network:
    """A network whose layers are looked at.

    Attributes:
        name: The model.
        when: At which moment of its training; empty where that is not known.
        reader: Its layers.
        fit: How it wants its images.
    """

    name: str
    when: str
    reader: LayerReader
    fit: Preprocessing


@dataclass(frozen=True)
class Comparison:
    """Two networks, by their places in a list of networks, and what their comparison is called."""

    reference: int
    other: int
    when: str


def compare_layers(
    networks: Sequence[Network],
    comparisons: Sequence[Comparison],
    samples: Samples,
    *,
    settings: SimilaritySettings,
    device: torch.device,
    tick: Callable[[int, int], None],
) -> dict[str, Any]:
    """CKA of every pair of layers for each comparison, and each network's attention distances.

    Args:
        networks: The networks.
        comparisons: Which of them are compared.
        samples: Images of one set.
        settings: How many images to look at, and how many of them are compared with each other at a time.
        device: Where to compute.
        tick: Told how far it is, in images.

    Returns:
        JSON values; CKA and distances are None where nothing can be said.

    Raises:
        RunFailed: An image cannot be used, or there are fewer than 4.
    """
    picks = picks_of(len(samples), settings.max_images)
    batch_size = min(settings.batch_size, len(picks))
    if batch_size < FEWEST_IMAGES:
        raise RunFailed(f"the similarity of layers needs at least {FEWEST_IMAGES} images, and there are {len(picks)}")
    num = len(picks) // batch_size * batch_size
    pairs = [Cka() for _ in comparisons]
    distances = [
        AttentionDistance(grid=one.reader.grid, patch_px=one.reader.patch_px, num_prefix=one.reader.num_prefix) for one in networks
    ]
    for start in range(0, num, batch_size):
        tick(start, num)
        pixels = _pixels(samples, picks[start : start + batch_size].tolist(), networks)
        grams = [_grams(one, pixels[geometry(one.fit)], watch, device) for one, watch in zip(networks, distances, strict=True)]
        for pair, comparison in zip(pairs, comparisons, strict=True):
            pair.add_grams(grams[comparison.reference], grams[comparison.other])
    tick(num, num)
    return {
        "num_images": num,
        "batch_size": batch_size,
        "note": NOTE,
        "pairs": [_pair(networks, comparison, pair) for comparison, pair in zip(comparisons, pairs, strict=True)],
        "attention_distance": [
            {"name": one.name, "when": one.when, "image_px": one.reader.image_px, "px": _plain(distance.result())}
            for one, distance in zip(networks, distances, strict=True)
        ],
    }


def _pixels(samples: Samples, indices: Sequence[int], networks: Sequence[Network]) -> Mapping[Any, np.ndarray]:
    fits = {geometry(one.fit): one.fit for one in networks}
    rows = []
    for index in indices:
        try:
            rows.append(fit_to_all(samples.read(index), tuple(fits.values())))
        except BadImage as bad:
            raise RunFailed(f"{samples.name(index)}: {bad}; every image that layers are compared on has to be there") from None
    return dict(zip(fits, (np.stack(column) for column in zip(*rows, strict=True)), strict=True))


def _grams(network: Network, pixels: np.ndarray, distance: AttentionDistance, device: torch.device) -> Grams:
    inputs = torch.from_numpy(normalise(pixels, network.fit)).to(device)
    return grams_of(network.reader.layers(inputs, watch=distance.add_block))


def _pair(networks: Sequence[Network], comparison: Comparison, pair: Cka) -> dict[str, Any]:
    reference, other = networks[comparison.reference], networks[comparison.other]
    return {
        "name": other.name,
        "when": comparison.when,
        "reference": reference.name,
        "rows": list(reference.reader.names),
        "columns": list(other.reader.names),
        "cka": _plain(pair.result()),
    }


def _plain(values: np.ndarray) -> list[list[float | None]]:
    """Nested lists; None for NaN."""
    return [[float(value) if np.isfinite(value) else None for value in row] for row in values]
