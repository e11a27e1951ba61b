"""A balanced choice of examples, as a function of uniform numbers.

Shape letters: B batch, N candidates of an image.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

IGNORED, BACKGROUND, OBJECT = -1, 0, 1
"""What a candidate is: neither, an example of the background, an example of an object."""


def balanced_choice(
    kinds: Int64[Tensor, "B N"], draws: Float[Tensor, "B N"], num: int, positive_share: float
) -> tuple[Bool[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Choose up to `num` candidates of each image, at most a share of them objects; background fills the rest.

    Args:
        kinds: IGNORED, BACKGROUND or OBJECT.
        draws: Uniform numbers in [0, 1): the smallest are chosen.
        num: Candidates that are wanted of an image.
        positive_share: Largest share of objects among them.

    Returns:
        Chosen objects, chosen background.

    Source: torchvision.models.detection._utils.BalancedPositiveNegativeSampler, and detectron2's subsample_labels.
    Differs: the draws are an argument, so that a step is a function of its counters.
    """
    most = int(num * positive_share)
    objects = kinds == OBJECT
    num_objects = objects.sum(dim=1).clamp(max=most)
    chosen = _smallest(objects, draws, num_objects, most)
    return chosen, _smallest(kinds == BACKGROUND, draws, num - num_objects, num)


def _smallest(among: Bool[Tensor, "B N"], draws: Float[Tensor, "B N"], quota: Int64[Tensor, " B"], most: int) -> Bool[Tensor, "B N"]:
    """The `quota` (at most `most`) candidates of each image with the smallest draws."""
    keys, index = torch.where(among, draws, torch.inf).topk(min(most, draws.shape[1]), largest=False)
    taken = (torch.arange(keys.shape[1], device=keys.device) < quota.unsqueeze(1)) & (keys < torch.inf)
    return torch.zeros_like(among).scatter(1, index, taken)
