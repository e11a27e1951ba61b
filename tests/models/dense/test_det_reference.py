"""The detector against torchvision's Mask R-CNN with the same weights, and against loops."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign, poolers, roi_align

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.dense.detector import Detector

NAMES = ("0", "1", "2", "3")
EVERYTHING = {"anchors_per_image": 10_000, "anchor_positive_share": 1.0, "regions_per_image": 10_000, "region_positive_share": 1.0}
Truths = tuple[ImageTruth, ...]
Make = Callable[..., Detector]


class BackgroundFirst(nn.Module):
    """torchvision counts the background as class 0, and gives it box codes and a mask."""

    def __init__(self, ours: Detector) -> None:
        super().__init__()
        self.heads = ours.regions

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = self.heads.class_logits(hidden), self.heads.box_codes(hidden)
        return torch.cat([logits[:, -1:], logits[:, :-1]], dim=1), F.pad(codes, (4, 0))


class MaskBackgroundFirst(BackgroundFirst):
    def forward(self, hidden: Tensor) -> Tensor:
        return F.pad(self.heads.mask_logits(hidden), (0, 0, 0, 0, 1, 0))


@pytest.fixture
def truths(make_truth: Callable[..., ImageTruth]) -> Truths:
    crowded = make_truth([[3, 4, 30, 40], [20, 8, 60, 60], [0, 30, 12, 50]], [0, 2, 2])
    return (crowded, make_truth([[10, 10, 26, 24]], [1], size=(64, 40)))


@pytest.fixture(autouse=True)
def _half_pixel_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poolers, "roi_align", partial(roi_align, aligned=True))


def torchvision_rpn(ours: Detector) -> RegionProposalNetwork:
    spec = ours.spec
    generator = AnchorGenerator(tuple((spec.anchor_scale * stride,) for stride in (4, 8, 16, 32, 64)), (spec.anchor_ratios,) * 5)
    before = {"training": spec.train_level_proposals, "testing": spec.level_proposals}
    behind = {"training": spec.train_proposals, "testing": spec.num_proposals}
    return RegionProposalNetwork(generator, ours.rpn.head, 0.7, 0.3, spec.anchors_per_image, 1.0, before, behind, spec.proposal_nms)


def torchvision_heads(ours: Detector) -> RoIHeads:
    spec, heads = ours.spec, ours.regions
    pool, mask_pool = (MultiScaleRoIAlign(NAMES, side, 0, canonical_scale=spec.canonical_px) for side in (7, 14))
    box = (pool, heads.box_head, BackgroundFirst(ours), 0.5, 0.5, spec.regions_per_image, 1.0, (10.0, 10.0, 5.0, 5.0))
    return RoIHeads(*box, spec.min_score, 0.5, spec.max_detections, mask_pool, heads.mask_head, MaskBackgroundFirst(ours))


def run_torchvision(ours: Detector, images: Tensor, sizes: list[tuple[int, int]], targets: list[dict[str, Tensor]] | None) -> Any:
    features = OrderedDict((str(index), level) for index, level in enumerate(ours.levels(images)[0]))
    rpn, heads = torchvision_rpn(ours), torchvision_heads(ours)
    for part in (rpn, heads):
        part.train(targets is not None)
    proposals, first = rpn(ImageList(images, sizes), features, targets)
    found, second = heads(features, proposals, sizes, targets)
    return first | second if targets is not None else found


def test_losses_are_those_of_torchvision_when_everything_is_sampled(make_detector: Make, truths: Truths) -> None:
    ours, images = make_detector(**EVERYTHING, box_beta=1 / 9), torch.randn(2, 3, 64, 64)
    targets = [{"boxes": one.boxes, "labels": one.labels + 1, "masks": one.masks} for one in truths]
    wanted = run_torchvision(ours, images, [one.size for one in truths], targets)
    got, features, objectness = ours.losses(
        images, truths, None, torch.rand(2, ours.spec.num_anchors), torch.rand(2, ours.spec.num_region_draws)
    )
    pairs = {
        "rpn_objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "region_class": "loss_classifier",
        "region_box": "loss_box_reg",
        "region_mask": "loss_mask",
    }
    assert list(got) == list(pairs) and all(got[name] > 1e-3 for name in got)
    for mine, theirs in pairs.items():
        torch.testing.assert_close(got[mine], wanted[theirs], rtol=1e-5, atol=1e-6, msg=mine)
    for kept, seen in zip((features, objectness), ours.levels(images), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(kept, seen, strict=True))


@pytest.mark.parametrize("sizes", [[(64, 64), (64, 64)], [(64, 40), (50, 64)]])
def test_proposals_are_those_of_torchvision_and_the_other_rows_are_not_valid(make_detector: Make, sizes: list[tuple[int, int]]) -> None:
    ours, images = make_detector(proposal_nms=0.1, num_proposals=60), torch.randn(2, 3, 64, 64)
    features = ours.levels(images)[0]
    names = {str(index): level for index, level in enumerate(features)}
    wanted, _ = torchvision_rpn(ours).eval()(ImageList(images, sizes), names)
    limits = torch.tensor([[columns, rows, columns, rows] for rows, columns in sizes]).float()
    got = ours.rpn.proposals(ours.rpn(features), limits, training=False)
    assert not got.valid.all()
    for boxes, valid, theirs in zip(got.boxes, got.valid, wanted, strict=True):
        torch.testing.assert_close(boxes[valid], theirs, rtol=1e-4, atol=1e-4)


def test_detections_are_those_of_torchvision(make_detector: Make) -> None:
    ours, images = make_detector(max_detections=40, detection_candidates=10_000, min_score=0.36), torch.randn(3, 3, 64, 64)
    wanted = run_torchvision(ours, images, [(64, 64)] * 3, None)
    got = ours(images)
    counts = [len(one["scores"]) for one in wanted]
    assert min(counts) >= 5 and max(counts) < 40
    for image, (count, one) in enumerate(zip(counts, wanted, strict=True)):
        torch.testing.assert_close(got.scores[image, :count], one["scores"])
        torch.testing.assert_close(got.boxes[image, :count], one["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(got.labels[image, :count], one["labels"] - 1)
        torch.testing.assert_close(got.masks[image, :count], one["masks"][:, 0], rtol=1e-4, atol=1e-5)
        assert not any(part[image, count:].any() for part in got)


def area(box: list[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(one: list[float], other: list[float]) -> float:
    both = area(
        [*(max(pair) for pair in zip(one[:2], other[:2], strict=True)), *(min(pair) for pair in zip(one[2:], other[2:], strict=True))]
    )
    return both / (area(one) + area(other) - both)


def test_box_losses_are_plain_l1_over_the_sampled_anchors(make_detector: Make, truths: Truths) -> None:
    ours = make_detector(**{**EVERYTHING, "anchors_per_image": 2})
    boxes, anchors = truths[0].boxes.tolist(), ours.rpn.anchors.double().tolist()
    answers = ours.rpn(ours.levels(torch.randn(1, 3, 64, 64))[0])
    draws = torch.rand(1, ours.spec.num_anchors)
    overlaps = [[overlap(box, anchor) for box in boxes] for anchor in anchors]
    best_of_box = [max(row[index] for row in overlaps) for index in range(len(boxes))]
    objects = [
        index for index, row in enumerate(overlaps) if max(row) >= 0.7 or any(row[box] == best_of_box[box] for box in range(len(boxes)))
    ]
    sampled = sorted(objects, key=lambda index: float(draws[0, index]))[:2]
    assert len(objects) > 2
    codes = torch.cat([level[0].unflatten(0, (3, 4)).permute(2, 3, 0, 1).reshape(-1, 4) for level in answers.deltas])
    total = 0.0
    for index in sampled:
        box, anchor = boxes[max(range(len(boxes)), key=lambda one: overlaps[index][one])], anchors[index]
        width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
        target = torch.tensor(
            [
                (box[0] + box[2] - anchor[0] - anchor[2]) / 2 / width,
                (box[1] + box[3] - anchor[1] - anchor[3]) / 2 / height,
                torch.tensor((box[2] - box[0]) / width).log(),
                torch.tensor((box[3] - box[1]) / height).log(),
            ]
        )
        total += float((codes[index].detach() - target).abs().sum())
    assert float(ours.rpn.losses(answers, truths[:1], draws)[1].detach()) == pytest.approx(total / 2, rel=1e-5)
