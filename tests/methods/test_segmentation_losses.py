"""A segmenter's losses against the numbers of the originals, against formulas of their own, and what it would take to be wrong."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from g2sd_deploy.data.dense import annotations
from g2sd_deploy.methods.segmentation import (
    IGNORED,
    SegmentationLearner,
    SegmentationViews,
    channel_wise_distillation_loss,
    pixel_cross_entropy,
)
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.randomness import uniform

THEIRS = json.loads((Path(__file__).parents[1] / "fixtures" / "segmentation_losses.json").read_text(encoding="utf-8"))
NAMES = (
    (r"encoder\.blocks\.(\d+)\.attn\.positions\.table", r"backbone.blocks.\1.attn.relative_position_bias_table"),
    (r"encoder\.blocks\.(\d+)\.attn\.gamma", r"backbone.blocks.\1.gamma_1"),
    (r"encoder\.blocks\.(\d+)\.mlp\.gamma", r"backbone.blocks.\1.gamma_2"),
    (r"encoder\.", "backbone."),
    (r"levels\.levels\.0\.", "backbone.fpn1."),
    (r"levels\.levels\.1\.", "backbone.fpn2."),
    (r"head\.cells\.(\d)\.", r"decode_head.psp_modules.\1.1."),
    (r"head\.context\.", "decode_head.bottleneck."),
    (r"head\.laterals\.", "decode_head.lateral_convs."),
    (r"head\.outputs\.", "decode_head.fpn_convs."),
    (r"head\.fusion\.", "decode_head.fpn_bottleneck."),
    (r"head\.classify\.", "decode_head.conv_seg."),
    (r"aux_head\.conv\.", "auxiliary_head.convs.0."),
    (r"aux_head\.classify\.", "auxiliary_head.conv_seg."),
)


class DisagreementError(AssertionError):
    """Our number is not the original's."""


def draw(stream: str, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    drawn = uniform(THEIRS["seed"], stream, 0, np.arange(math.prod(shape)), 1)[:, 0]
    return torch.from_numpy((low + (high - low) * drawn).astype(np.float32)).view(shape)


def classes_of(stream: str, shape: tuple[int, ...], num_classes: int = 5) -> Tensor:
    classes = draw(stream, shape, 0, num_classes).floor().long()
    return torch.where(draw(f"{stream}/ignored", shape, 0, 1) < 0.3, torch.tensor(IGNORED), classes)


def agree(name: str, expected: Any, ours: Tensor, tolerance: float = 1e-5) -> None:
    """Compare with a number, or with the shape, norm and some values of a tensor; raises DisagreementError."""
    if isinstance(expected, float):
        if not abs(float(ours.detach()) - expected) <= tolerance * abs(expected):
            raise DisagreementError(f"{name}: {float(ours.detach())} of ours against {expected}")
        return
    flat = ours.detach().double().flatten()
    if list(ours.shape) != expected["shape"]:
        raise DisagreementError(f"{name} has the shape {list(ours.shape)}, the original's {expected['shape']}")
    agree(f"norm of {name}", expected["norm"], flat.norm(), tolerance)
    size = expected["norm"] / math.sqrt(len(flat))
    for theirs, own in zip(expected["sample"], flat[:: expected["stride"]].tolist(), strict=True):
        if not abs(own - theirs) <= tolerance * max(abs(theirs), size):
            raise DisagreementError(f"{name}: {own} of ours against {theirs}")


def original_name(ours: str) -> str:
    for pattern, theirs in NAMES:
        renamed, count = re.subn(f"^{pattern}", theirs, ours)
        if count:
            if renamed.startswith(("decode_head.", "auxiliary_head.")) and "conv_seg" not in renamed:
                renamed = re.sub(r"\.0\.(weight|bias)$", r".conv.\1", renamed)
                renamed = re.sub(r"\.1\.(weight|bias)$", r".gn.\1", renamed)
            return renamed
    return ours


def weight_range(name: str, parameter: Tensor) -> tuple[float, float]:
    last = name.rpartition(".")[2]
    if last in ("gamma_1", "gamma_2") or (last == "weight" and parameter.ndim == 1):
        return 0.5, 1.5
    if last == "bias":
        return -0.4, 0.4
    if last in ("cls_token", "pos_embed", "relative_position_bias_table"):
        return -1.0, 1.0
    limit = (1.5 if name.endswith("qkv.weight") else 1.0) * math.sqrt(3.0 / math.prod(parameter.shape[1:]))
    return -limit, limit


def model_of(name: str, sha256: str) -> Segmenter:
    """Our segmenter with the weights that one of the original's had."""
    shape = THEIRS["models"][name]
    encoder = EncoderSpec(shape["image_px"], shape["patch_px"], 3, shape["width"], shape["depth"], shape["heads"])
    spec = SegmenterSpec(encoder, shape["num_classes"], tuple(shape["taps"]), shape["channels"], shape["aux_channels"], True, 1.0)
    model, digest = Segmenter(spec), hashlib.sha256()
    trained = {original_name(ours): parameter for ours, parameter in model.named_parameters() if parameter.requires_grad}
    for theirs, parameter in sorted(trained.items()):
        drawn = draw(f"{name}/{theirs}", tuple(parameter.shape), *weight_range(theirs, parameter))
        digest.update(theirs.encode() + drawn.numpy().tobytes())
        parameter.data.copy_(drawn)
    assert digest.hexdigest() == sha256, f"these are not the weights that the original's {name} had"
    return model


def step(name: str, student: nn.Module, teacher: nn.Module | None) -> dict[str, Tensor]:
    px = THEIRS["models"][THEIRS["cases"][name]["student"]]["image_px"]
    views = SegmentationViews(draw(f"{name}/images", (2, 3, px, px), -2, 2), classes_of(f"{name}/classes", (2, px, px)))
    return SegmentationLearner(student, teacher)(views)


@pytest.mark.parametrize("name", ["ce", "ce_uneven", "ce_one_image_ignored", "ce_aux"])
def test_the_cross_entropy_is_that_of_mmsegmentation_ignored_pixels_included_in_the_mean(name: str) -> None:
    case, weight = THEIRS["cases"][name], 0.4 if name == "ce_aux" else 1.0
    logits = draw(f"{name}/logits", tuple(case["logits"]), -4, 4).requires_grad_()
    classes = classes_of(f"{name}/classes", tuple(case["classes"]))
    if case["all_ignored"] is not None:
        classes[case["all_ignored"]] = IGNORED
    assert int((classes == IGNORED).sum()) == case["num_ignored"]
    loss = weight * pixel_cross_entropy(logits, classes)
    loss.backward()
    agree("loss", case["loss"], loss)
    assert logits.grad is not None
    agree("gradient", case["gradient"], logits.grad)
    with pytest.raises(DisagreementError):
        asked = classes != IGNORED
        agree("loss", case["loss"], loss * asked.numel() / asked.sum())


@pytest.mark.parametrize("name", ["cwd", "cwd_softened"])
def test_the_distillation_is_the_authors_and_differs_from_torch_distillers_by_the_teachers_entropy(name: str) -> None:
    case = THEIRS["cases"][name]
    student = draw(f"{name}/student", tuple(case["logits"]), -4, 4).requires_grad_()
    teacher = draw(f"{name}/teacher", tuple(case["logits"]), -6, 6)
    plain = channel_wise_distillation_loss(student, teacher, tau=case["tau"])
    (case["weight"] * plain).backward()
    agree("loss", case["loss"], case["weight"] * plain)
    assert student.grad is not None
    agree("gradient", case["gradient"], student.grad)
    own = channel_wise_distillation_loss(teacher, teacher, tau=case["tau"])
    agree(
        "divergence", case["divergence"], (plain.double() - own.double()), 1e-4
    )  # a difference of numbers that are a hundred times larger
    agree("its gradient", case["divergence_gradient"], student.grad / case["weight"])


@pytest.mark.parametrize("name", ["step", "step_patches_of_8"])
def test_a_whole_step_has_the_authors_logits_losses_and_gradients(name: str) -> None:
    case = THEIRS["cases"][name]
    student = model_of(case["student"], case["weights_sha256"][case["student"]])
    teacher = model_of("teacher", case["weights_sha256"]["teacher"]).requires_grad_(False) if case["teacher"] else None
    terms = step(name, student, teacher)
    assert terms.keys() == case["losses"].keys()
    for term, loss in terms.items():
        agree(term, case["losses"][term], loss)
    px = student.spec.encoder.image_px
    images = draw(f"{name}/images", (2, 3, px, px), -2, 2)
    logits, aux = student.forward_train(images)
    assert aux is not None
    agree("logits", case["logits"], logits)
    agree("logits", case["logits"], student(images))
    agree("logits of the other head", case["aux_logits"], aux)
    if teacher is not None:
        agree("the teacher's logits", case["teacher_logits"], teacher(images))
    sum(terms.values(), torch.zeros(())).backward()
    found = {original_name(ours): parameter.grad for ours, parameter in student.named_parameters() if parameter.grad is not None}
    assert found.keys() == case["gradients"].keys()
    for theirs, gradient in found.items():
        agree(f"gradient of {theirs}", case["gradients"][theirs], gradient, 5e-5)


@pytest.mark.parametrize("broken", ["positions", "attn.gamma", "mlp.gamma"])
def test_a_step_without_one_of_the_parts_is_not_the_authors(broken: str) -> None:
    case = THEIRS["cases"]["step"]
    student = model_of("student", case["weights_sha256"]["student"])
    for name, parameter in student.named_parameters():
        if broken in name:
            parameter.data.fill_(1.0 if "gamma" in broken else 0.0)
    with pytest.raises(DisagreementError):
        agree("ce", case["losses"]["ce"], step("step", student, None)["ce"])


def test_the_cross_entropy_is_a_formula_in_float64() -> None:
    logits, classes = torch.randn(2, 3, 2, 2), torch.tensor([0, 2, IGNORED, 1, 1, 0, 2, IGNORED]).view(2, 2, 2)
    total = 0.0
    for image, y, x in np.ndindex(2, 2, 2):
        values = [float(v) for v in logits[image, :, y, x]]
        if classes[image, y, x] != IGNORED:
            total += math.log(sum(math.exp(v) for v in values)) - values[int(classes[image, y, x])]
    assert float(pixel_cross_entropy(logits, classes)) == pytest.approx(total / 8, rel=1e-6)


def test_the_distillation_is_a_formula_in_float64() -> None:
    student, teacher, tau = torch.randn(2, 3, 2, 3), torch.randn(2, 3, 2, 3), 2.5
    total = 0.0
    for s, t in zip(student.flatten(2).flatten(0, 1).tolist(), teacher.flatten(2).flatten(0, 1).tolist(), strict=True):
        weights, log_sum = [math.exp(v / tau) for v in t], math.log(sum(math.exp(v / tau) for v in s))
        total -= sum(w / sum(weights) * (v / tau - log_sum) for w, v in zip(weights, s, strict=True))
    assert float(channel_wise_distillation_loss(student, teacher, tau=tau)) == pytest.approx(tau**2 * total / 6, rel=1e-6)


def test_a_batch_without_a_pixel_that_is_asked_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 16, 16), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0.0 and logits.grad is not None and not logits.grad.any()


def test_a_class_that_is_ignored_is_the_one_that_the_data_writes() -> None:
    assert annotations.IGNORED == IGNORED


def test_logits_that_do_not_fit_and_a_tau_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=r"student's logits are \(1, 3, 4, 4\) and the teacher's \(1, 2, 4, 4\); wanted one shape"):
        channel_wise_distillation_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"tau is 0\.0; it must be above 0"):
        channel_wise_distillation_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), tau=0.0)


def tiny(aux_channels: int | None = 4) -> Segmenter:
    return Segmenter(SegmenterSpec(EncoderSpec(32, 16, 3, 8, 2, 2), 3, (0, 0, 1, 1), 8, aux_channels, False, None))


def test_the_teacher_learns_nothing_and_is_no_part_of_the_learner() -> None:
    student, teacher = tiny(), tiny()
    learner = SegmentationLearner(student, teacher, tau=2.0, distill_weight=5.0)
    assert {name for name, _ in learner.named_parameters()} == {f"model.{name}" for name, _ in student.named_parameters()}
    images, classes = torch.randn(2, 3, 32, 32), torch.randint(3, (2, 32, 32))
    terms = learner(SegmentationViews(images, classes))
    sum(terms.values(), torch.zeros(())).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    agree("cwd", float(5 * channel_wise_distillation_loss(student(images), teacher(images), tau=2.0).detach()), terms["cwd"].detach())


def test_terms_are_those_that_the_model_and_the_teacher_give() -> None:
    views = SegmentationViews(torch.randn(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=torch.long))
    assert list(SegmentationLearner(tiny(None))(views)) == ["ce"]
    assert list(SegmentationLearner(tiny())(views)) == ["ce", "aux"]
    assert list(SegmentationLearner(tiny(None), tiny())(views)) == ["ce", "cwd"]


def test_drop_path_and_channel_draws_reach_the_model() -> None:
    model = tiny()
    images, classes = torch.randn(1, 3, 32, 32), torch.randint(3, (1, 32, 32))
    draws = torch.full((1, model.num_dropout_draws), 0.5, dtype=torch.float64)
    draws[:, :8] = 0.05  # every channel of the head is left out: all that is left is the bias of its class layer, zero
    learner = SegmentationLearner(model)
    with torch.no_grad():
        base = learner(SegmentationViews(images, classes))
        skipped = learner(SegmentationViews(images, classes, survival=torch.zeros(1, 2, 2)))
        dropped = learner(SegmentationViews(images, classes, dropout=draws))
    assert float(dropped["ce"]) == pytest.approx(math.log(3), rel=1e-6) and float(base["ce"]) != float(dropped["ce"])
    assert float(dropped["aux"]) != float(base["aux"])  # those that are kept are scaled
    assert float(skipped["ce"]) != float(base["ce"])
