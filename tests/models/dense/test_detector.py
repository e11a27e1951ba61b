"""The detector's sizes, its behaviour in training, and what it starts from."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.adapt import at_image_size
from g2sd_deploy.models.checkpoint import load_encoder
from g2sd_deploy.models.dense.detector import LOSS_TERMS, Detector, start_detector_from
from g2sd_deploy.models.dense.detector_file import DetectorFile, load_detector, save_detector
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.dense.proposals import Proposals
from g2sd_deploy.models.dense.region_targets import Sampled, mask_targets, sampled_regions
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_export.edge.dense.task import DenseTask

Make = Callable[..., Detector]
MakeTruth = Callable[..., ImageTruth]
TASK = DenseTask("detection", 64, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def losses(model: Detector, truths: tuple[ImageTruth, ...], seed: int = 1, images: Tensor | None = None) -> dict[str, Tensor]:
    torch.manual_seed(5)
    pictures = torch.randn(len(truths), 3, 64, 64) if images is None else images
    torch.manual_seed(seed)
    draws = torch.rand(len(truths), model.spec.num_anchors), torch.rand(len(truths), model.spec.num_region_draws)
    return model.losses(pictures, truths, None, *draws)[0]


@pytest.mark.parametrize(("width", "heads", "millions"), [(768, 12, 110.9), (384, 6, 44.5), (192, 3, 27.7)])
def test_full_size_detectors_have_the_published_number_of_parameters(width: int, heads: int, millions: float) -> None:
    with torch.device("meta"):
        model = Detector(DetectorSpec(EncoderSpec(1024, 16, 3, width, 12, heads), num_classes=80))
    num = sum(parameter.numel() for parameter in model.parameters())
    num -= (64**2 - 14**2) * width  # the authors keep the positions of 224 px and enlarge them at every step
    assert num / 1e6 == pytest.approx(millions, abs=0.05)  # ViTDet's paper: 111 million with ViT-B
    assert model.spec.num_anchors == model.rpn.anchors.shape[0] == 261_888
    assert model.spec.num_region_draws == 1100


def test_images_without_an_object_give_finite_losses_and_a_gradient_for_every_parameter(make_detector: Make, make_truth: MakeTruth) -> None:
    model = make_detector(relative_positions=True)
    terms = losses(model, (make_truth([], []), make_truth([], [])))
    assert tuple(terms) == LOSS_TERMS and all(term.shape == () and torch.isfinite(term) for term in terms.values())
    assert terms["rpn_objectness"] > 0 and terms["region_class"] > 0
    assert not any(terms[name] for name in ("rpn_box", "region_box", "region_mask"))
    torch.stack(list(terms.values())).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_an_image_without_objects_changes_nothing_but_the_background_of_its_batch(make_detector: Make, make_truth: MakeTruth) -> None:
    model, full = make_detector(), make_truth([[3, 4, 40, 50]], [2])
    alone, beside = losses(model, (full,)), losses(model, (full, make_truth([], [])))
    torch.testing.assert_close(beside["region_mask"], alone["region_mask"])
    torch.testing.assert_close(beside["region_box"], alone["region_box"] / 2)


def test_the_same_draws_give_the_same_losses_and_others_do_not(make_detector: Make, make_truth: MakeTruth) -> None:
    model, truths = make_detector(anchors_per_image=20), (make_truth([[3, 4, 40, 50]], [2]),)
    first, again, other = losses(model, truths), losses(model, truths), losses(model, truths, seed=2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["rpn_objectness"] != other["rpn_objectness"] and first["region_class"] != other["region_class"]


def test_drop_path_reaches_the_losses_and_the_levels(make_detector: Make, make_truth: MakeTruth) -> None:
    model, images, truths = make_detector(), torch.randn(1, 3, 64, 64), (make_truth([[3, 4, 40, 50]], [2]),)
    draws = torch.rand(1, model.spec.num_anchors), torch.rand(1, model.spec.num_region_draws)
    whole, dropped = (model.losses(images, truths, torch.full((1, 2, 2), scale), *draws) for scale in (1.0, 0.0))
    assert whole[0]["rpn_objectness"] != dropped[0]["rpn_objectness"]
    assert torch.equal(model.levels(images, torch.zeros(1, 2, 2))[0][0], dropped[1][0])


def test_a_detector_in_half_precision_has_losses_in_float32(make_detector: Make, make_truth: MakeTruth) -> None:
    model, truths = make_detector(), (make_truth([[3, 4, 40, 50], [8, 8, 20, 30]], [2, 0]),)
    whole = losses(model, truths)
    with torch.autocast("cpu", torch.bfloat16):
        half = losses(model, truths)
    for name, term in half.items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, whole[name], rtol=0.15, atol=0.02)


def test_proposals_of_a_padded_image_end_where_the_image_ends(make_detector: Make) -> None:
    model = make_detector()
    answers = model.rpn(model.levels(torch.randn(2, 3, 64, 64))[0])
    found = model.rpn.proposals(answers, torch.tensor([[64.0, 64, 64, 64], [30, 50, 30, 50]]), training=True)
    assert found.boxes.shape == (2, model.spec.train_proposals, 4) and found.valid[1].sum() > 5
    right, bottom = found.boxes[1][found.valid[1]].amax(dim=0)[2:].tolist()
    assert (right, bottom) == (30, 50) and found.boxes[0].max() == 64


def proposals() -> Proposals:
    boxes = torch.tensor([[[0.0, 0, 20, 20], [2, 0, 20, 20], [40, 40, 60, 60], [0, 40, 9, 60], [0, 0, 0, 0]]])
    return Proposals(boxes, torch.tensor([[True, True, True, True, False]]))


def test_true_boxes_join_the_proposals_and_objects_come_first(make_detector: Make, make_truth: MakeTruth) -> None:
    spec = make_detector(max_instances=2, regions_per_image=8, region_positive_share=0.5).spec
    truth = make_truth([[0, 0, 20, 20], [40, 20, 60, 60], [30, 0, 60, 10]], [1, 0, 2])
    found = sampled_regions(proposals(), (truth,), torch.arange(7.0).flip(0).unsqueeze(0) / 7, spec)
    # Objects: two proposals of the first truth, one of half the second (exactly 0.5), and the first two truths. Four fit; the draws
    # drop the first proposal. The third truth is no region: there is room for two.
    objects = found.boxes[0][found.objects[0]].tolist()
    assert sorted(objects) == [[0, 0, 20, 20], [2, 0, 20, 20], [40, 20, 60, 60], [40, 40, 60, 60]]
    assert found.objects[0].tolist() == [True] * 4 + [False] * 3
    assert found.valid[0].tolist() == [True] * 5 + [False] * 2
    for box, label, real, instance in zip(found.boxes[0, :4], found.labels[0], found.truths[0], found.instances[0], strict=False):
        assert (int(label), int(instance)) == ((1, 0) if box[0] < 30 else (0, 1))
        assert real.tolist() == truth.boxes[int(instance)].tolist()
    assert int(found.labels[0, 4]) == spec.num_classes and found.boxes[0, 4].tolist() == [0, 40, 9, 60]


def test_mask_targets_are_the_mask_within_the_box_and_true_where_half_of_a_cell_is() -> None:
    masks = torch.rand(2, 64, 64) > 0.4
    truth = ImageTruth(torch.tensor([[0.0, 0, 9, 9], [0, 0, 64, 64]]), torch.tensor([0, 1]), masks, (64, 64))
    boxes = torch.tensor([[[5.0, 3, 33, 31], [1, 2, 57, 58], [0, 0, 1, 1]]])
    every = torch.tensor([[True, True, False]])
    sampled = Sampled(boxes, torch.tensor([[0, 1, 2]]), boxes, torch.tensor([[0, 1, 0]]), every, every)
    got = mask_targets(sampled, (truth,))
    assert torch.equal(got[0], masks[0, 3:31, 5:33].float())
    halves = masks[1, 2:58, 1:57].unflatten(0, (28, 2)).unflatten(2, (28, 2)).float().mean(dim=(1, 3)) >= 0.5
    assert torch.equal(got[1], halves.float())


def test_an_answer_is_sorted_padded_with_zeros_and_free_of_overlap_within_a_class(make_detector: Make) -> None:
    model = make_detector(max_detections=90, detection_candidates=60, min_score=0.3)
    found = model(torch.randn(2, 3, 64, 64))
    assert [tuple(part.shape) for part in found] == [(2, 90, 4), (2, 90), (2, 90), (2, 90, 28, 28)]
    real = found.scores > 0
    assert 0 < real.sum() <= 120 and not (found.scores.diff(dim=1) > 0).any() and found.scores[real].min() > 0.3
    assert not any(part[~real].any() for part in found)
    assert found.boxes.min() >= 0 and found.boxes.max() <= 64 and (found.boxes[real][:, 2:] > found.boxes[real][:, :2]).all()
    assert found.masks[real].min() > 0 and found.masks.max() < 1 and set(found.labels[real].tolist()) <= {0, 1, 2}


def test_rows_that_hold_no_proposal_give_no_detection(make_detector: Make) -> None:
    model = make_detector(min_score=0.1)
    features = model.levels(torch.randn(2, 3, 64, 64))[0]
    boxes = proposals().boxes.expand(2, -1, -1)
    found = model.regions.detections(features, Proposals(boxes, torch.tensor([[True] * 4 + [False], [False] * 5])))
    assert (found.scores[0] > 0).any() and not any(part[1].any() for part in found)


@pytest.mark.parametrize("image_px", [64, 32])
def test_a_detector_starts_from_a_student_of_any_image_size(make_detector: Make, image_px: int) -> None:
    model = make_detector()
    student = Encoder(replace(model.spec.encoder, image_px=image_px))
    start_detector_from(model, student)
    resized = at_image_size(student, 64).state_dict()
    assert all(torch.equal(resized[name], value) for name, value in model.encoder.state_dict().items() if "rel_pos" not in name)
    assert model.encoder.pos_embed.requires_grad
    if image_px == 64:
        images = torch.randn(1, 3, 64, 64)
        assert not torch.equal(model.encoder(images), make_detector().encoder(images))


def test_a_detector_does_not_start_from_another_network(make_detector: Make) -> None:
    model = make_detector()
    with pytest.raises(ValueError, match="the image size alone may differ"):
        start_detector_from(model, Encoder(replace(model.spec.encoder, heads=4)))


@pytest.mark.parametrize(
    ("encoder", "changes", "message"),
    [
        ({"patch_px": 32}, {}, "patches of 4, 8 or 16 px"),
        ({"image_px": 48}, {}, "a multiple of 32"),
        ({}, {"global_blocks": (1, 2)}, "global blocks are \\[2\\]; the encoder has the blocks 0 to 1"),
        ({}, {"window": 0}, "wanted at least 1"),
        ({}, {"num_classes": 0}, "wanted at least 1"),
    ],
)
def test_a_detector_that_cannot_be_built_is_refused(
    make_detector: Make, encoder: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    spec = make_detector().spec
    with pytest.raises(ValueError, match=message):
        replace(spec, encoder=replace(spec.encoder, **encoder), **changes)


def test_a_file_gives_the_same_detector_again(make_detector: Make, tmp_path: Path) -> None:
    model, images = make_detector(), torch.randn(1, 3, 64, 64)
    save_detector(tmp_path / "a", DetectorFile(model, TASK, ("cat", "dog", "cow")))
    read = load_detector(tmp_path / "a")
    assert read.model.spec == model.spec and read.task == TASK and read.class_names == ("cat", "dog", "cow")
    assert not read.model.training
    assert all(torch.equal(one, other) for one, other in zip(read.model(images), model(images), strict=True))


def test_a_file_with_too_few_class_names_or_of_another_kind_is_refused(make_detector: Make, tmp_path: Path) -> None:
    save_detector(tmp_path / "a", DetectorFile(make_detector(), TASK, ("cat", "dog")))
    with pytest.raises(UserError, match="2 class names for 3 classes"):
        load_detector(tmp_path / "a")
    with pytest.raises(UserError):
        load_encoder(tmp_path / "a")


def test_small_steps_downhill_lower_the_losses(make_detector: Make, make_truth: MakeTruth) -> None:
    model, truths = make_detector(), (make_truth([[4, 4, 28, 30], [30, 32, 60, 60]], [0, 2]),)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = {name: float(term.detach()) for name, term in losses(model, truths).items()}
    for _ in range(12):
        optimizer.zero_grad()
        torch.stack(list(losses(model, truths).values())).sum().backward()
        optimizer.step()
    after = {name: float(term.detach()) for name, term in losses(model, truths).items()}
    assert all(math.isfinite(value) for value in after.values())
    lowered = {name for name in LOSS_TERMS if after[name] < before[name]}
    assert lowered >= {*LOSS_TERMS} - {"region_box"}  # better proposals are more regions whose boxes are to be refined


def test_a_detectors_encoder_is_no_plain_one(make_detector: Make, tmp_path: Path) -> None:
    save_detector(tmp_path / "a", DetectorFile(make_detector(), TASK, ("cat", "dog", "cow")))
    with pytest.raises(UserError, match="neither class token nor final norm, so it is no plain encoder; name the student"):
        load_encoder(tmp_path / "a")
