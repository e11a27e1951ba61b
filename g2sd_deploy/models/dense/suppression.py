"""Non-maximum suppression in batches, within groups (levels or classes).

Shape letters: B batch, N boxes of an image.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import nms


def survivors(
    boxes: Float[Tensor, "B N 4"],
    scores: Float[Tensor, "B N"],
    groups: Int64[Tensor, "B N"],
    valid: Bool[Tensor, "B N"],
    *,
    threshold: float,
    image_px: int,
) -> Bool[Tensor, "B N"]:
    """Which boxes overlap no better box of the same image and group by more than the threshold.

    Args:
        boxes: Left, top, right, bottom in pixels, within the image.
        scores: The order of the boxes.
        groups: Boxes of different groups never suppress each other.
        valid: Boxes that take part; the others are not survivors.
        threshold: Intersection over union.
        image_px: Side of the image.

    Source: torchvision.ops.batched_nms (groups are moved apart, then suppressed together).
    Differs: images are moved apart too, along the other axis; an exported graph suppresses the whole batch in one node.
    """
    lowest = torch.finfo(scores.dtype).min
    ordered = torch.where(valid, scores, lowest)
    if torch.compiler.is_exporting():
        return _survivors(boxes, ordered, groups, threshold, image_px) & valid
    rows = [slice(index, index + 1) for index in range(len(boxes))]
    return torch.cat([_survivors(boxes[row], ordered[row], groups[row], threshold, image_px) for row in rows]) & valid


def _survivors(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, image_px: int) -> Tensor:
    """All images at once: each has its own column of the plane, each group its own row."""
    image = torch.arange(boxes.shape[0], device=boxes.device).unsqueeze(1).expand_as(groups)
    shift = torch.stack([image, groups, image, groups], dim=2) * (image_px + 1.0)
    kept = nms((boxes + shift).flatten(0, 1), scores.flatten(), threshold)
    chosen = torch.zeros_like(scores).flatten().index_fill(0, kept, 1.0)
    return chosen.view_as(scores) > 0
