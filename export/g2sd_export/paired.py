"""Two models on the same images: how much accuracy the second one lost, and whether chance would explain it.

Images on which both are right, or both wrong, say nothing about the difference; pairing leaves them out, so a regression shows with
far fewer images than the interval of either accuracy would suggest.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %


@dataclass(frozen=True)
class PairedDrop:
    """Accuracy before minus accuracy after, on the same images.

    Attributes:
        num_images: Images that both answered.
        lost: Right before, wrong after.
        gained: Wrong before, right after.
        drop: ``(lost - gained) / num_images``: a share in [-1, 1], above 0 where accuracy was lost.
        interval: 95 % interval of the drop on endlessly many images.
        p_value: Of the exact McNemar test that both are equally accurate, two-sided.
    """

    num_images: int
    lost: int
    gained: int
    drop: float
    interval: tuple[float, float]
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "interval": list(self.interval)}


def paired_drop(before: Bool[np.ndarray, "num"], after: Bool[np.ndarray, "num"]) -> PairedDrop:
    """Compare two models image by image.

    Args:
        before: Whether the reference was right, per image; at least one.
        after: Whether the candidate was right, for the same images in the same order.

    Returns:
        The drop with its interval and test.

    Raises:
        ValueError: There is no image.
    """
    if not len(before):
        raise ValueError("there are no images to compare")
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    return PairedDrop(
        num_images=len(before),
        lost=lost,
        gained=gained,
        drop=(lost - gained) / len(before),
        interval=score_interval(lost, gained, len(before)),
        p_value=mcnemar_p(lost, gained),
    )


def mcnemar_p(lost: int, gained: int) -> float:
    """Two-sided p of the exact McNemar test: would a fair coin share out the images that changed sides as unevenly?

    Args:
        lost: Images that were right and are wrong.
        gained: Images that were wrong and are right.

    Returns:
        0 to 1; 1 where no image changed sides. Computed in whole numbers, so it is exact however many did.

    Source: McNemar 1947; the exact binomial form, as in Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91.
    """
    changed, fewer = lost + gained, min(lost, gained)
    ways = total = 1
    for chosen in range(fewer):
        ways = ways * (changed - chosen) // (chosen + 1)
        total += ways
    return min(1.0, 2 * total / (1 << changed))


def score_interval(lost: int, gained: int, num_images: int) -> tuple[float, float]:
    """95 % interval of ``(lost - gained) / num_images``.

    Args:
        lost: Images that were right and are wrong.
        gained: Images that were wrong and are right; with ``lost`` at most ``num_images``.
        num_images: Images that both answered, at least 1.

    Returns:
        Low and high in [-1, 1]: the drops that a score test does not reject. It does not shrink to nothing where no image
        changed sides, as Wald's interval does.

    Raises:
        ValueError: There is no image, or more changed sides than there are.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design".
    """
    if num_images < 1 or min(lost, gained) < 0 or lost + gained > num_images:
        raise ValueError(f"{lost} lost and {gained} gained of {num_images} images are no counts of a comparison")
    drop = (lost - gained) / num_images
    return _limit(lost, gained, num_images, inside=drop, outside=-1.0), _limit(lost, gained, num_images, inside=drop, outside=1.0)


def _limit(lost: int, gained: int, num: int, *, inside: float, outside: float) -> float:
    """The drop farthest from ``inside`` that is not rejected, by bisection: the score falls steadily from the one to the other."""
    for _ in range(60):
        middle = (inside + outside) / 2
        if abs(drop_score(lost, gained, num, middle)) <= NORMAL_QUANTILE:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2


def drop_score(lost: int, gained: int, num: int, drop: float) -> float:
    """Tango's z: the counts against a true drop, with the share of gained images at its likeliest under that drop.

    Args:
        lost: Images that were right and are wrong.
        gained: Images that were wrong and are right.
        num: Images that both answered, at least 1.
        drop: A share in [-1, 1].

    Returns:
        Standard deviations by which the counts lie above what the drop lets expect.

    Source: Tango 1998, as in `score_interval`.
    """
    linear = -lost - gained + (2 * num - lost + gained) * drop
    constant = -gained * drop * (1 - drop)
    share_gained = (math.sqrt(linear**2 - 8 * num * constant) - linear) / (4 * num)
    variance = num * (2 * share_gained + drop * (1 - drop))
    difference = lost - gained - num * drop
    return difference / math.sqrt(variance) if difference else 0.0
