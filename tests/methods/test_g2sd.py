"""G2SD's generic loss against loops over Python's floats."""

import math
from collections.abc import Callable
from inspect import unwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2sd_deploy.methods.g2sd import hidden_feature_loss


def normed_by_hand(row: list[float]) -> list[float]:
    """Zero mean and unit (biased) variance, without gain or offset."""
    mean = math.fsum(row) / len(row)
    variance = math.fsum((value - mean) ** 2 for value in row) / len(row)
    return [(value - mean) / math.sqrt(variance + 1e-6) for value in row]


def feature_loss_by_hand(student: Tensor, teacher: Tensor, scored: Tensor, beta: float) -> float:
    terms = []
    for image, token in scored.nonzero().tolist():
        target = normed_by_hand(teacher[image, token].double().tolist())
        for guess, wanted in zip(student[image, token].double().tolist(), target, strict=True):
            error = abs(guess - wanted)
            terms.append(error**2 / (2 * beta) if error < beta else error - beta / 2)
    return math.fsum(terms) / len(terms)


def features(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Student predictions with errors on both sides of beta, and a teacher that is far from normed."""
    random = torch.Generator().manual_seed(seed)
    student = torch.randn(2, 5, 8, generator=random) * 2
    teacher = torch.randn(2, 5, 8, generator=random) * 7 + 3
    return student.to(dtype), teacher.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("beta", [2.0, 0.5])
def test_the_feature_loss_is_smooth_l1_to_the_normed_target_over_all_tokens(dtype: torch.dtype, beta: float) -> None:
    student, teacher = features(0, dtype)
    loss = hidden_feature_loss(student, teacher, beta=beta)
    assert loss.dtype == torch.float32  # half precision is widened before the arithmetic, so the tolerance is float32's
    assert loss.item() == pytest.approx(feature_loss_by_hand(student, teacher, torch.ones(2, 5), beta), rel=1e-5)


def test_the_zone_is_two_standard_deviations_wide_by_default() -> None:
    student, teacher = features(1)
    assert hidden_feature_loss(student, teacher).item() == hidden_feature_loss(student, teacher, beta=2.0).item()
    assert hidden_feature_loss(student, teacher).item() != hidden_feature_loss(student, teacher, beta=1.0).item()


@given(st.integers(0, 1000))
def test_a_mask_scores_only_the_tokens_it_names_and_all_of_them_alike(seed: int) -> None:
    student, teacher = features(seed)
    mask = torch.rand(2, 5, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[0, 0] = True
    loss = hidden_feature_loss(student, teacher, mask=mask)
    assert loss.item() == pytest.approx(feature_loss_by_hand(student, teacher, mask, 2.0), rel=1e-5)
    student[~mask] = 1e9
    assert hidden_feature_loss(student, teacher, mask=mask).item() == loss.item()


def test_predicting_nothing_costs_a_quarter_of_the_targets_variance() -> None:
    teacher = torch.randn(16, 197, 512)
    assert hidden_feature_loss(torch.zeros_like(teacher), teacher).item() == pytest.approx(0.247, abs=1e-3)


def test_a_perfect_prediction_costs_nothing_whatever_scale_and_offset_the_teacher_has() -> None:
    _, teacher = features(2)
    student = torch.tensor([[normed_by_hand(row) for row in image] for image in teacher.tolist()])
    for scaled in (teacher, teacher * 40 - 100):
        assert hidden_feature_loss(student, scaled).item() < 1e-9


def test_the_teacher_gets_no_gradient_and_the_students_is_the_slope_of_smooth_l1() -> None:
    student, teacher = (values.requires_grad_() for values in features(3))
    hidden_feature_loss(student, teacher).backward()
    assert teacher.grad is None
    target = torch.tensor([[normed_by_hand(row) for row in image] for image in teacher.tolist()])
    slope = ((student.detach() - target) / 2.0).clamp(-1.0, 1.0) / student.numel()
    assert student.grad is not None
    assert (slope.abs() * student.numel() == 1.0).any()  # both zones are met
    torch.testing.assert_close(student.grad, slope, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_the_slope_of_the_formula(numeric_gradient: Callable[..., Tensor], masked: bool) -> None:
    student, teacher = features(5)
    mask = torch.tensor([[False, True, True, False, True], [True, False, False, False, False]]) if masked else torch.ones(2, 5).bool()
    student.requires_grad_()
    hidden_feature_loss(student, teacher, mask=mask if masked else None).backward()
    expected = numeric_gradient(lambda x: feature_loss_by_hand(x, teacher, mask, 2.0), student)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.float(), rtol=1e-4, atol=1e-7)
    assert not student.grad[~mask].any()


def test_the_loss_is_the_same_whichever_order_the_tokens_have() -> None:
    student, teacher = features(6)
    order = torch.randperm(5)
    loss = hidden_feature_loss(student, teacher)
    torch.testing.assert_close(hidden_feature_loss(student[:, order], teacher[:, order]), loss)
    assert not torch.isclose(hidden_feature_loss(student[:, order], teacher), loss)


def test_a_token_that_is_not_scored_may_be_anything() -> None:
    student, teacher = features(7)
    mask = torch.tensor([[False, True, True, False, True], [True, False, False, False, False]])
    loss = hidden_feature_loss(student, teacher, mask=mask)
    student[~mask] = math.inf
    student.requires_grad_()
    unscored = hidden_feature_loss(student, teacher, mask=mask)
    unscored.backward()
    assert student.grad is not None
    assert unscored.item() == loss.item() and student.grad[mask].isfinite().all()


def test_features_of_different_shapes_are_refused() -> None:
    student, teacher = features(4)
    with pytest.raises(ValueError, match=r"student features \(2, 5, 8\) and teacher features \(2, 4, 8\) must have one shape"):
        unwrap(hidden_feature_loss)(student, teacher[:, :4])  # as users run it: without the annotations, which refuse it too
