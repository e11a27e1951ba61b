"""Shape of a ViTDet Mask R-CNN, and how many anchors, proposals and regions it works with."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from g2sd_deploy.models.vit import EncoderSpec

LEVEL_STRIDES = (4, 8, 16, 32, 64)
"""Pixels between neighbouring cells of the levels p2 .. p6."""

MASK_PX = 28
"""Side of the mask that is predicted for each box."""


@dataclass(frozen=True)
class DetectorSpec:
    """A ViTDet Mask R-CNN; the defaults are those of its authors.

    Attributes:
        encoder: The plain encoder; its image is the square input, padding included.
        num_classes: Kinds of objects, without the background.
        window: Side, in tokens, of the windows of the blocks that do not attend to the whole image.
        global_blocks: Blocks that do, counted from 0.
        relative_positions: Whether every block has decomposed relative positions.
        channels: Of every level of the pyramid and of the box head's convolutions.
        box_width: Of the box head's hidden layer.
        mask_channels: Of the mask head.
        anchor_scale: Side of an anchor in cells of its level.
        anchor_ratios: Height / width of the anchors of a cell.
        canonical_px: A box of this side is pooled from p4; one of half of it from p3.
        box_beta: Width of the quadratic zone of the box losses; 0 is L1.
        anchors_per_image: Anchors that are sampled for the proposal losses.
        anchor_positive_share: At most this share of them covers an object.
        anchor_iou: Below the first an anchor is background, from the second on an object.
        train_level_proposals: Best proposals of a level before non-maximum suppression, in training.
        train_proposals: Proposals of an image behind it, in training.
        level_proposals: As `train_level_proposals`, at inference.
        num_proposals: As `train_proposals`, at inference.
        proposal_nms: Overlap above which the worse of two proposals is dropped.
        max_instances: True boxes of an image that are added to its proposals in training; the others are targets only.
        regions_per_image: Regions that are sampled for the losses of the heads.
        region_positive_share: At most this share of them covers an object.
        region_iou: From this overlap on a region is an object.
        min_score: Detections below it are dropped.
        detection_candidates: Best class-specific boxes of an image before non-maximum suppression; the authors take all above `min_score`.
        detection_nms: Overlap above which the worse of two boxes of a class is dropped.
        max_detections: Rows of the answer for an image.

    Raises:
        ValueError: The pyramid or the windows cannot be built on this encoder.

    Source: facebookresearch/detectron2, projects/ViTDet/configs/COCO/mask_rcnn_vitdet_b_100ep.py and
        configs/common/models/{mask_rcnn_fpn,mask_rcnn_vitdet}.py.
    """

    encoder: EncoderSpec
    num_classes: int
    window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    relative_positions: bool = True
    channels: int = 256
    box_width: int = 1024
    mask_channels: int = 256
    anchor_scale: float = 8.0
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    canonical_px: int = 224
    box_beta: float = 0.0
    anchors_per_image: int = 256
    anchor_positive_share: float = 0.5
    anchor_iou: tuple[float, float] = (0.3, 0.7)
    train_level_proposals: int = 2000
    train_proposals: int = 1000
    level_proposals: int = 1000
    num_proposals: int = 1000
    proposal_nms: float = 0.7
    max_instances: int = 100
    regions_per_image: int = 512
    region_positive_share: float = 0.25
    region_iou: float = 0.5
    min_score: float = 0.05
    detection_candidates: int = 1000
    detection_nms: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        if self.encoder.patch_px not in (4, 8, 16):
            raise ValueError(f"patches are {self.encoder.patch_px} px; the pyramid is built from patches of 4, 8 or 16 px")
        if self.encoder.image_px % 32:
            raise ValueError(f"images are {self.encoder.image_px} px; the pyramid needs a multiple of 32")
        if self.window < 1:
            raise ValueError(f"windows are {self.window} tokens wide; wanted at least 1")
        if wrong := [block for block in self.global_blocks if not 0 <= block < self.encoder.depth]:
            raise ValueError(f"global blocks are {wrong}; the encoder has the blocks 0 to {self.encoder.depth - 1}")
        if self.num_classes < 1:
            raise ValueError(f"{self.num_classes} classes; wanted at least 1")

    @property
    def level_grids(self) -> tuple[int, ...]:
        """Cells along one side of each level."""
        return tuple(-(-self.encoder.image_px // stride) for stride in LEVEL_STRIDES)

    @property
    def level_anchors(self) -> tuple[int, ...]:
        """Anchors of each level."""
        return tuple(len(self.anchor_ratios) * grid**2 for grid in self.level_grids)

    @property
    def num_anchors(self) -> int:
        """Anchors of an image: so many uniform numbers sample among them."""
        return sum(self.level_anchors)

    @property
    def num_region_draws(self) -> int:
        """Uniform numbers that sample among an image's proposals and true boxes."""
        return self.proposals_of(training=True)[1] + self.max_instances

    def proposals_of(self, *, training: bool) -> tuple[int, int]:
        """Proposals of a level before, and of an image behind, non-maximum suppression."""
        before, wanted = (self.train_level_proposals, self.train_proposals) if training else (self.level_proposals, self.num_proposals)
        return before, min(wanted, sum(min(before, num) for num in self.level_anchors))

    def to_dict(self) -> dict[str, Any]:
        """Json-able; the inverse of `from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DetectorSpec":
        """Read what `to_dict` wrote; lists become tuples.

        Raises:
            TypeError: A field is unknown.
            ValueError: A value is out of range.
        """
        read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**{**read, "encoder": EncoderSpec(**values["encoder"])})
