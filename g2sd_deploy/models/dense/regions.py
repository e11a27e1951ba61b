"""The heads that look at regions: which class, which box, which mask.

Shape letters: B batch, P proposals of an image, N sampled regions of an image, R regions of all images, C classes, D channels,
K detections of an image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.dense.detector_spec import MASK_PX, DetectorSpec
from g2sd_deploy.models.dense.pooling import pooled_regions, regions_of
from g2sd_deploy.models.dense.proposals import Proposals, not_empty
from g2sd_deploy.models.dense.region_targets import Sampled, mask_targets, sampled_regions
from g2sd_deploy.models.dense.suppression import survivors

_BOX_CELLS, _MASK_CELLS, _CONVOLUTIONS = 7, 14, 4


class Found(NamedTuple):
    """Detections of a batch, best first; rows without a detection are zero."""

    boxes: Float[Tensor, "B K 4"]
    """Left, top, right, bottom in pixels of the square input."""
    scores: Float[Tensor, "B K"]
    """0 .. 1; 0 where the row holds no detection."""
    labels: Int64[Tensor, "B K"]
    """0 .. classes - 1."""
    masks: Float[Tensor, "B K 28 28"]
    """Probability that a cell of the box belongs to the object."""


class RegionHeads(nn.Module):
    """Box head of four convolutions and one hidden layer, mask head of four convolutions, LayerNorm in both.

    Logits of classes end with the background; box codes and masks are those of a class.

    Source: arXiv 1703.06870, 2203.16527; detectron2, modeling/roi_heads/{roi_heads,fast_rcnn,mask_head}.py.
    Differs: of the boxes above `min_score` the best `detection_candidates` meet in non-maximum suppression, not all.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        channels, masks = spec.channels, spec.mask_channels
        self.box_head = FastRCNNConvFCHead((channels, _BOX_CELLS, _BOX_CELLS), [channels] * _CONVOLUTIONS, [spec.box_width], LayerNorm2d)
        self.class_logits = nn.Linear(spec.box_width, spec.num_classes + 1)
        self.box_codes = nn.Linear(spec.box_width, 4 * spec.num_classes)
        self.mask_head = MaskRCNNHeads(channels, [masks] * _CONVOLUTIONS, 1, LayerNorm2d)
        self.mask_logits = MaskRCNNPredictor(masks, masks, spec.num_classes)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        for layer, std in ((self.class_logits, 0.01), (self.box_codes, 0.001), (self.mask_logits[-1], 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Sequence[Float[Tensor, "B D _ _"]], regions: Float[Tensor, "R 5"]
    ) -> tuple[Float[Tensor, "R classes"], Float[Tensor, "R codes"]]:
        """Logits of the classes and the background, and the box codes of each class side by side, float32."""
        hidden = self.box_head(pooled_regions(features, regions, _BOX_CELLS, self.spec.canonical_px))
        return self.class_logits(hidden).float(), self.box_codes(hidden).float()

    def masks(
        self, features: Sequence[Float[Tensor, "B D _ _"]], regions: Float[Tensor, "R 5"], labels: Int64[Tensor, " R"]
    ) -> Float[Tensor, "R 28 28"]:
        """Logits of the mask of a region's class, float32."""
        hidden = self.mask_head(pooled_regions(features, regions, _MASK_CELLS, self.spec.canonical_px))
        of_class = labels.view(-1, 1, 1, 1).expand(-1, 1, MASK_PX, MASK_PX)
        found: Tensor = self.mask_logits(hidden).float().gather(1, of_class).squeeze(1)
        return found

    def losses(
        self,
        features: Sequence[Float[Tensor, "B D _ _"]],
        proposals: Proposals,
        truths: Sequence[ImageTruth],
        draws: Float[Tensor, "B draws"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the classes, L1 distance of the box codes, cross-entropy of the masks.

        Args:
            features: The pyramid.
            proposals: Of the same images.
            truths: One for each image.
            draws: Uniform numbers that sample the proposals and the true boxes.
        """
        sampled = sampled_regions(proposals, truths, draws, self.spec)
        regions = regions_of(sampled.boxes)
        logits, codes = self(features, regions)
        num = sampled.valid.sum().clamp(min=1)
        labels = torch.where(sampled.valid, sampled.labels, -1).flatten()
        surprise = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        objects = sampled.objects.flatten()
        of_class = codes.view(len(codes), -1, 4)[objects, labels[objects]]
        targets = self.coder.encode_single(sampled.truths.flatten(0, 1)[objects], regions[objects, 1:])
        distance = F.smooth_l1_loss(of_class, targets, beta=self.spec.box_beta, reduction="sum")
        mask = self._mask_loss(features, sampled, truths)
        return {"region_class": surprise / num, "region_box": distance / num, "region_mask": mask}

    def detections(self, features: Sequence[Float[Tensor, "B D _ _"]], proposals: Proposals) -> Found:
        """The best boxes of each image, at most one class for the same place of a class, with their masks."""
        spec, num_classes = self.spec, self.spec.num_classes
        logits, codes = self(features, regions_of(proposals.boxes))
        shares = logits.softmax(dim=1)[:, :num_classes].reshape(*proposals.valid.shape, num_classes)
        shares = torch.where(proposals.valid.unsqueeze(2), shares, 0.0).flatten(1)
        scores, index = shares.topk(min(spec.detection_candidates, shares.shape[1]))
        labels = index % num_classes
        boxes = self._decoded(codes, index, proposals)
        valid = (scores > spec.min_score) & not_empty(boxes)
        kept = survivors(boxes, scores, labels, valid, threshold=spec.detection_nms, image_px=spec.encoder.image_px)
        best, order = torch.where(kept, scores, 0.0).topk(min(spec.max_detections, scores.shape[1]))
        real = best > 0
        boxes = torch.where(real.unsqueeze(2), boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), 0.0)
        return self._with_masks(features, boxes, best, torch.where(real, labels.gather(1, order), 0))

    def _decoded(self, codes: Tensor, index: Tensor, proposals: Proposals) -> Float[Tensor, "B N 4"]:
        """Boxes of some of all proposals' classes, within the square input."""
        num_classes, image_px = self.spec.num_classes, float(self.spec.encoder.image_px)
        wide = index.unsqueeze(2).expand(-1, -1, 4)
        chosen = codes.view(proposals.boxes.shape[0], -1, 4).gather(1, wide)
        around = proposals.boxes.gather(1, wide // num_classes)
        boxes: Tensor = self.coder.decode_single(chosen.flatten(0, 1), around.flatten(0, 1))
        return boxes.view(chosen.shape).clamp(0.0, image_px)

    def _with_masks(self, features: Sequence[Tensor], boxes: Tensor, scores: Tensor, labels: Tensor) -> Found:
        masks = self.masks(features, regions_of(boxes), labels.flatten()).sigmoid().view(*scores.shape, MASK_PX, MASK_PX)
        masks = torch.where((scores > 0)[:, :, None, None], masks, 0.0)
        missing = self.spec.max_detections - scores.shape[1]
        if missing > 0:
            boxes, masks = F.pad(boxes, (0, 0, 0, missing)), F.pad(masks, (0, 0, 0, 0, 0, missing))
            scores, labels = F.pad(scores, (0, missing)), F.pad(labels, (0, missing))
        return Found(boxes, scores, labels, masks)

    def _mask_loss(self, features: Sequence[Tensor], sampled: Sampled, truths: Sequence[ImageTruth]) -> Float[Tensor, ""]:
        objects = sampled.objects.flatten()
        regions, labels = regions_of(sampled.boxes)[objects], sampled.labels.flatten()[objects]
        logits = self.masks(features, regions, labels)
        surprise = F.binary_cross_entropy_with_logits(logits, mask_targets(sampled, truths), reduction="sum")
        return surprise / max(logits.numel(), 1)
