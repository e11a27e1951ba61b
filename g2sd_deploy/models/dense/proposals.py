"""The region proposal network: where objects may be, whatever they are.

Shape letters: B batch, A anchors of an image (of all levels), K ratios of a cell, C channels, P proposals of an image, G true boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead, permute_and_flatten
from torchvision.ops import box_iou

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.dense.detector_spec import LEVEL_STRIDES, DetectorSpec
from g2sd_deploy.models.dense.sampling import BACKGROUND, IGNORED, OBJECT, balanced_choice
from g2sd_deploy.models.dense.suppression import survivors

_CONVOLUTIONS = 2


class LevelAnswers(NamedTuple):
    """What the network's head says of each level."""

    objectness: list[Tensor]
    """Logits [B, K, height, width] of each level."""
    deltas: list[Tensor]
    """Box codes [B, 4 K, height, width] of each level."""


@dataclass(frozen=True)
class Proposals:
    """Boxes that may hold an object, best first; rows that are not valid hold no proposal."""

    boxes: Float[Tensor, "B P 4"]
    valid: Bool[Tensor, "B P"]


class ProposalNetwork(nn.Module):
    """Two convolutions over every level, then objectness and box codes of each anchor.

    Source: arXiv 1506.01497; the losses as detectron2, modeling/proposal_generator/rpn.py, has them.
    Differs: torchvision's anchors, whose sides are rounded to even pixels; the losses are divided by the anchors that were sampled, which
    detectron2 takes to be `anchors_per_image` of each image.
    """

    anchors: Tensor

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.head = RPNHead(spec.channels, len(spec.anchor_ratios), conv_depth=_CONVOLUTIONS)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
        low, high = spec.anchor_iou
        self.matcher = Matcher(high, low, allow_low_quality_matches=True)
        self.register_buffer("anchors", torch.cat(anchors_of(spec)), persistent=False)

    def forward(self, features: Sequence[Float[Tensor, "B C _ _"]]) -> LevelAnswers:
        """Objectness and box codes of the levels p2 .. p6."""
        return LevelAnswers(*self.head(list(features)))

    def proposals(self, answers: LevelAnswers, limits: Float[Tensor, "B 4"], *, training: bool) -> Proposals:
        """The best boxes of each image.

        Args:
            answers: Of `forward`; receives no gradient.
            limits: Right, bottom, right, bottom of each image: boxes are clipped to it.
            training: Which of the two sets of counts holds.
        """
        before, behind = self.spec.proposals_of(training=training)
        logits, codes = (_by_anchor([level.detach() for level in part], len(self.spec.anchor_ratios)) for part in answers)
        scores, places, level_of, first = [], [], [], 0
        for level, rows in enumerate(logits):
            best, index = rows.squeeze(2).topk(min(before, rows.shape[1]))
            scores.append(best)
            places.append(index + first)
            level_of.append(torch.full_like(index, level))
            first += rows.shape[1]
        place = torch.cat(places, dim=1)
        chosen = torch.cat(codes, dim=1).gather(1, place.unsqueeze(2).expand(-1, -1, 4))
        boxes = self.coder.decode_single(chosen.flatten(0, 1), self.anchors[place.flatten()]).view(chosen.shape)
        return self._best(clipped(boxes, limits), torch.cat(scores, dim=1), torch.cat(level_of, dim=1), behind)

    def losses(
        self, answers: LevelAnswers, truths: Sequence[ImageTruth], draws: Float[Tensor, "B A"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of the objectness and L1 distance of the box codes, over the sampled anchors of all images.

        Args:
            answers: Of `forward`.
            truths: One for each image.
            draws: Uniform numbers that sample the anchors.
        """
        logits, codes = (torch.cat(_by_anchor(part, len(self.spec.anchor_ratios)), dim=1) for part in answers)
        found = [self._match(truth) for truth in truths]
        kinds, boxes = torch.stack([kind for kind, _ in found]), torch.stack([box for _, box in found])
        objects, background = balanced_choice(kinds, draws, self.spec.anchors_per_image, self.spec.anchor_positive_share)
        sampled = objects | background
        num = sampled.sum().clamp(min=1)
        surprise = F.binary_cross_entropy_with_logits(logits.squeeze(2), objects.to(logits.dtype), reduction="none")
        targets = self.coder.encode_single(boxes[objects], self.anchors.expand_as(boxes)[objects])
        distance = F.smooth_l1_loss(codes[objects], targets, beta=self.spec.box_beta, reduction="sum")
        return (surprise * sampled).sum() / num, distance / num

    def _best(self, boxes: Tensor, scores: Tensor, level_of: Tensor, num: int) -> Proposals:
        valid = not_empty(boxes) & torch.isfinite(scores)
        settings = self.spec
        kept = survivors(boxes, scores, level_of, valid, threshold=settings.proposal_nms, image_px=settings.encoder.image_px)
        _, index = torch.where(kept, scores, torch.finfo(scores.dtype).min).topk(num)
        return Proposals(boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4)), kept.gather(1, index))

    def _match(self, truth: ImageTruth) -> tuple[Int64[Tensor, " A"], Float[Tensor, "A 4"]]:
        """What each anchor is, and its true box (its own where there is no true box at all)."""
        if not len(truth.boxes):
            return torch.full_like(self.anchors[:, 0], BACKGROUND, dtype=torch.int64), self.anchors
        index = self.matcher(box_iou(truth.boxes, self.anchors))
        kinds = torch.where(index >= 0, OBJECT, BACKGROUND)
        kinds = torch.where(index == Matcher.BETWEEN_THRESHOLDS, IGNORED, kinds)
        return kinds, truth.boxes[index.clamp(min=0)]


def anchors_of(spec: DetectorSpec) -> list[Float[Tensor, "anchors 4"]]:
    """Anchors of each level: cells row by row, the ratios of a cell side by side; a cell's anchors lie around its top left corner."""
    sizes = tuple((spec.anchor_scale * stride,) for stride in LEVEL_STRIDES)
    with torch.device("cpu"):  # real numbers also where a model is built without storage
        generator = AnchorGenerator(sizes, (spec.anchor_ratios,) * len(sizes))
        strides = [[torch.tensor(stride)] * 2 for stride in LEVEL_STRIDES]
        found: list[Tensor] = generator.grid_anchors([[grid, grid] for grid in spec.level_grids], strides)
    return found


def clipped(boxes: Float[Tensor, "B N 4"], limits: Float[Tensor, "B 4"]) -> Float[Tensor, "B N 4"]:
    """Boxes cut off at their image's border."""
    return torch.minimum(boxes.clamp(min=0), limits.unsqueeze(1))


def not_empty(boxes: Float[Tensor, "B N 4"]) -> Bool[Tensor, "B N"]:
    """Which boxes have an area."""
    left, top, right, bottom = boxes.unbind(2)
    return (right > left) & (bottom > top)


def _by_anchor(levels: Sequence[Tensor], num_ratios: int) -> list[Float[Tensor, "B anchors numbers"]]:
    """Maps of K x numbers channels as rows in the order of `anchors_of`, float32."""
    rows = []
    for level in levels:
        batch, channels, height, width = level.shape
        rows.append(permute_and_flatten(level.float(), batch, num_ratios, channels // num_ratios, height, width))
    return rows
