"""A detector that is small enough for tests, and truths for it."""

from dataclasses import replace
from typing import Any, Protocol

import pytest
import torch
from torch import nn

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.vit import EncoderSpec

SPEC = DetectorSpec(
    EncoderSpec(image_px=64, patch_px=8, num_channels=3, width=32, depth=2, heads=2),
    num_classes=3,
    window=3,
    global_blocks=(1,),
    channels=16,
    box_width=32,
    mask_channels=8,
    anchor_scale=2.0,
    canonical_px=32,
    train_level_proposals=40,
    train_proposals=50,
    level_proposals=30,
    num_proposals=40,
    max_instances=5,
    regions_per_image=24,
    detection_candidates=60,
    max_detections=10,
)


class MakeDetector(Protocol):
    def __call__(self, **changes: Any) -> Detector: ...


class MakeTruth(Protocol):
    def __call__(self, boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (64, 64)) -> ImageTruth: ...


@pytest.fixture(scope="session")
def make_detector() -> MakeDetector:
    """Settings to a small detector whose heads say something: at the start their answers are nearly the same everywhere."""
    return _detector


@pytest.fixture(scope="session")
def make_truth() -> MakeTruth:
    """Boxes, labels and size of the image to objects that fill the whole image, whatever their boxes."""
    return _truth


def _detector(**changes: Any) -> Detector:
    torch.manual_seed(0)
    made = Detector(replace(SPEC, **changes)).eval()
    heads: Any = (made.rpn.head.cls_logits, made.rpn.head.bbox_pred, made.regions.class_logits, made.regions.box_codes)
    for head in (*heads, made.regions.mask_logits[-1]):
        nn.init.normal_(head.weight, std=0.3)
        nn.init.normal_(head.bias, std=0.3)
    convolutions: Any = made.rpn.head.conv
    for layer in convolutions:
        nn.init.normal_(layer[0].weight, std=0.1)
    return made


def _truth(boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (64, 64)) -> ImageTruth:
    places, masks = torch.tensor(boxes).reshape(-1, 4).float(), torch.ones(len(labels), 64, 64, dtype=torch.bool)
    return ImageTruth(places, torch.tensor(labels, dtype=torch.int64), masks, size)
