"""What the heads of a detector are to say of each region in training.

Shape letters: B batch, N sampled regions of an image, R regions of all images, P proposals of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import box_iou, roi_align

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.dense.detector_spec import MASK_PX, DetectorSpec
from g2sd_deploy.models.dense.proposals import Proposals
from g2sd_deploy.models.dense.sampling import BACKGROUND, IGNORED, OBJECT, balanced_choice


@dataclass(frozen=True)
class Sampled:
    """Regions that the heads are trained on, with what they are; objects first.

    Attributes:
        boxes: The regions.
        labels: Classes; their number (one more than the last class) where a region is background.
        truths: True box of each region; undefined unless it is an object.
        instances: Number of that box in its image.
        objects: Which regions cover an object.
        valid: Which rows hold a region.
    """

    boxes: Float[Tensor, "B N 4"]
    labels: Int64[Tensor, "B N"]
    truths: Float[Tensor, "B N 4"]
    instances: Int64[Tensor, "B N"]
    objects: Bool[Tensor, "B N"]
    valid: Bool[Tensor, "B N"]


def sampled_regions(proposals: Proposals, truths: Sequence[ImageTruth], draws: Float[Tensor, "B draws"], spec: DetectorSpec) -> Sampled:
    """Choose among each image's proposals and true boxes.

    Args:
        proposals: P of each image.
        truths: One for each image; its first `max_instances` boxes join the proposals.
        draws: P + `max_instances` uniform numbers of each image.
        spec: Counts and thresholds.
    """
    boxes, present = _with_true_boxes(proposals, truths, spec.max_instances)
    matched = [_matched(found, truth, spec.region_iou) for found, truth in zip(boxes, truths, strict=True)]
    kinds, instances = (torch.stack(part) for part in zip(*matched, strict=True))
    kinds = torch.where(present, kinds, IGNORED)
    objects, background = balanced_choice(kinds, draws, spec.regions_per_image, spec.region_positive_share)
    order = 2 * objects.int() + background.int()
    rank, index = order.topk(min(spec.regions_per_image, order.shape[1]), dim=1)
    instances = instances.gather(1, index)
    labels = torch.stack([_picked(truth.labels, own) for truth, own in zip(truths, instances, strict=True)])
    real = torch.stack([_picked(truth.boxes, own) for truth, own in zip(truths, instances, strict=True)])
    chosen = boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4))
    return Sampled(chosen, torch.where(rank == 2, labels, spec.num_classes), real, instances, rank == 2, rank > 0)


def mask_targets(sampled: Sampled, truths: Sequence[ImageTruth]) -> Float[Tensor, "R 28 28"]:
    """The true mask within each object region, 1 where at least half of a cell is covered, in the order of the regions.

    Source: detectron2, structures/masks.py (BitMasks.crop_and_resize).
    """
    parts = []
    for boxes, instances, objects, truth in zip(sampled.boxes, sampled.instances, sampled.objects, truths, strict=True):
        used, own = instances[objects].unique(return_inverse=True)
        regions = torch.cat([own.unsqueeze(1).to(boxes.dtype), boxes[objects]], dim=1)
        masks = truth.masks[used].unsqueeze(1).float()
        parts.append(roi_align(masks, regions, MASK_PX, 1.0, sampling_ratio=0, aligned=True).squeeze(1) >= 0.5)
    return torch.cat(parts).float()


def _with_true_boxes(proposals: Proposals, truths: Sequence[ImageTruth], num: int) -> tuple[Tensor, Tensor]:
    """Proposals and room for `num` true boxes; which of the rows are filled."""
    batch = len(truths)
    room, filled = proposals.boxes.new_zeros(batch, num, 4), proposals.valid.new_zeros(batch, num)
    for index, truth in enumerate(truths):
        own = truth.boxes[:num]
        room[index, : len(own)], filled[index, : len(own)] = own, True
    return torch.cat([proposals.boxes, room], dim=1), torch.cat([proposals.valid, filled], dim=1)


def _matched(boxes: Float[Tensor, "N 4"], truth: ImageTruth, least: float) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
    """Object or background, and the true box of largest overlap."""
    if not len(truth.boxes):
        nothing = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return nothing + BACKGROUND, nothing
    overlap, instance = box_iou(truth.boxes, boxes).max(dim=0)
    return torch.where(overlap >= least, OBJECT, BACKGROUND), instance


def _picked(values: Tensor, index: Int64[Tensor, " N"]) -> Tensor:
    """Rows of a truth; zeros where it has none."""
    return values[index] if len(values) else values.new_zeros(len(index), *values.shape[1:])
