"""Which training images a quantiser sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from ..edge.errors import UserError

_PIXELS_OF_AN_IMAGE = 224**2
_LEAST = 8


@dataclass(frozen=True)
class CalibrationSet:
    """Images picked for calibration.

    Attributes:
        indices: Where they stand in the training set, in the order in which they are fed.
        ids: Their names, in the same order.
        per_class: How many of each class, by class number; differ by one at most unless a class has too few images.
        sha256: Digest of the ids, one a line: two exports with this digest saw the same images.
    """

    indices: tuple[int, ...]
    ids: tuple[str, ...]
    per_class: dict[int, int]
    sha256: str


def pick_calibration(labels: Int64[np.ndarray, " num"], ids: Sequence[str], *, count: int) -> CalibrationSet:
    """Pick training images, the same number of each class, without a random draw.

    The order inside a class is that of a digest of the id, so that neither the order of the data set nor its neighbours decide, and a
    larger pick contains a smaller one.

    Args:
        labels: Class of each training image.
        ids: Its name, for example the path below the data folder; each once.
        count: Images wanted; all there are if there are fewer.

    Returns:
        The pick; the classes take turns.

    Raises:
        UserError: There are no images, a name occurs twice, or ``count`` is below 1.
    """
    if len(labels) != len(ids) or len(set(ids)) != len(ids):
        raise UserError(f"calibration: {len(labels)} labels, {len(ids)} ids, {len(set(ids))} of them different; wanted one per image")
    if count < 1 or not len(labels):
        raise UserError(f"calibration: {count} of {len(labels)} training images asked for; wanted at least one of at least one")
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in ids]
    order = sorted(range(len(ids)), key=digests.__getitem__)
    turn: dict[int, int] = {}
    ranked = []
    for at in order:
        label = int(labels[at])
        turn[label] = turn.get(label, -1) + 1
        ranked.append((turn[label], label, at))
    chosen = sorted(ranked)[:count]
    names = tuple(ids[at] for _, _, at in chosen)
    counts: dict[int, int] = {}
    for _, label, _ in chosen:
        counts[label] = counts.get(label, 0) + 1
    digest = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    return CalibrationSet(tuple(at for _, _, at in chosen), names, dict(sorted(counts.items())), digest)


def inputs_of(num_images: int, image_px: int) -> int:
    """How many inputs of a network have the pixels of some images of 224 px: a map of features has a sample of a range in every place.

    Args:
        num_images: Images of 224 px, as a target counts them.
        image_px: Side of an input.

    Returns:
        No more than ``num_images``, and no fewer than 8 unless ``num_images`` is less.
    """
    same = round(num_images * _PIXELS_OF_AN_IMAGE / image_px**2)
    return min(num_images, max(_LEAST, same))
