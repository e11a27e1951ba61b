"""The task of a student that answers for every pixel or every object."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from g2sd_deploy.settings.base import Fraction, Positive, Settings
from g2sd_deploy.settings.dense_augment import DetectionAugmentSettings, SegmentationAugmentSettings


class SegmentationSettings(Settings):
    """A class for every pixel: UperNet on four blocks of the encoder."""

    kind: Literal["segmentation"]
    """Semantic segmentation."""
    channels: PositiveInt | None = None
    """Channels of the head; the encoder's width when left out, so the teacher's head is as wide as the teacher."""
    aux_channels: PositiveInt | None = 256
    """Channels of the auxiliary head, which helps while training (weight 0.4) and is not shipped; null for none."""
    relative_positions: bool = True
    """Add a trained relative position bias to the attention of every block."""
    layer_scale: Positive | None = 1.0
    """Start of the trained factor of each channel of a residual branch; null for none."""
    inference: Literal["whole", "slide"] = "slide"
    """whole: the image is fitted into one square; slide: its short side is fitted, and the answers of windows are averaged."""
    stride: PositiveInt | None = None
    """Pixels between windows; two thirds of data.image_px when left out."""
    augment: SegmentationAugmentSettings = SegmentationAugmentSettings()
    """Scale, crop, flip and colours of training images."""
    output: Literal["logits", "classes"] | None = None
    """What the exported file answers: logits at a quarter of the size, or the class of each pixel. logits with inference slide, whose
    windows are averaged, else classes."""


class DetectionSettings(Settings):
    """Objects with boxes and masks: ViTDet with a Mask R-CNN."""

    kind: Literal["detection"]
    """Detection and instance segmentation."""
    window: PositiveInt = 14
    """Side of the attention windows, in patches; four blocks attend to the whole image."""
    relative_positions: bool = True
    """Add trained, decomposed relative positions to the attention of every block."""
    channels: PositiveInt = 256
    """Channels of the feature pyramid and of the heads' convolutions."""
    box_width: PositiveInt = 1024
    """Width of the box head's linear layer."""
    anchor_scale: Positive = 8.0
    """Side of a square anchor over the stride of its level."""
    region_samples: PositiveInt = 512
    """Regions of each image that the heads learn from at a step."""
    proposals: PositiveInt = 1000
    """Most proposals of an image that the heads are asked about, and of a level before suppression (twice as many in training)."""
    max_detections: PositiveInt = 100
    """Most objects that are reported for an image."""
    min_score: Fraction = 0.05
    """Smallest score of an object that is reported."""
    augment: DetectionAugmentSettings = DetectionAugmentSettings()
    """Large-scale jitter and flip of training images."""


TaskSettings = Annotated[SegmentationSettings | DetectionSettings, Field(discriminator="kind")]
