"""Losses with a teacher of the task against loops over Python's floats."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2sd_deploy.methods.specific import hard_distillation_loss, nkd_loss, soft_distillation_loss


def logits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Class head, distillation head, soft labels and teacher."""
    random = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(6, 4, generator=random) * 3 for _ in range(4)]
    return drawn[0], drawn[1], drawn[2].softmax(dim=-1), drawn[3]


def log_probabilities(row: list[float]) -> list[float]:
    top = max(row)
    total = math.log(math.fsum(math.exp(value - top) for value in row)) + top
    return [value - total for value in row]


def rows_of(*values: Tensor) -> list[tuple[list[float], ...]]:
    """The rows of one sample after another, in float64."""
    return list(zip(*(value.detach().double().tolist() for value in values), strict=True))


def cross_entropy_by_hand(targets: list[float], row: list[float]) -> float:
    return -math.fsum(weight * value for weight, value in zip(targets, log_probabilities(row), strict=True))


def distillation_by_hand(cls: Tensor, dist: Tensor, targets: Tensor, teacher: Tensor) -> float:
    terms = []
    for cls_row, dist_row, target_row, teacher_row in rows_of(cls, dist, targets, teacher):
        decision = max(range(len(teacher_row)), key=lambda label: teacher_row[label])
        terms.append(0.5 * cross_entropy_by_hand(target_row, cls_row) - 0.5 * log_probabilities(dist_row)[decision])
    return math.fsum(terms) / len(terms)


@given(st.integers(0, 1000))
def test_the_specific_loss_is_half_labels_and_half_the_teachers_decisions(seed: int) -> None:
    cls, dist, targets, teacher = logits(seed)
    got = hard_distillation_loss(cls, dist, targets, teacher)
    assert got.item() == pytest.approx(distillation_by_hand(cls, dist, targets, teacher), rel=1e-5)


def test_only_the_teachers_decision_counts_and_not_its_certainty() -> None:
    cls, dist, targets, teacher = logits(0)
    assert torch.equal(hard_distillation_loss(cls, dist, targets, teacher), hard_distillation_loss(cls, dist, targets, teacher * 100))
    assert not torch.equal(hard_distillation_loss(cls, dist, targets, teacher), hard_distillation_loss(cls, dist, targets, -teacher))


def test_each_head_learns_from_its_own_half_and_the_teacher_from_neither() -> None:
    cls, dist, targets, teacher = (values.requires_grad_() for values in logits(1))
    hard_distillation_loss(cls, dist, targets.detach(), teacher).backward()
    assert teacher.grad is None
    assert cls.grad is not None
    assert dist.grad is not None
    decisions = torch.nn.functional.one_hot(teacher.detach().argmax(dim=-1), 4)
    torch.testing.assert_close(cls.grad, (cls.detach().softmax(dim=-1) - targets.detach()) / 12)
    torch.testing.assert_close(dist.grad, (dist.detach().softmax(dim=-1) - decisions) / 12)


def test_half_precision_logits_are_computed_in_float32() -> None:
    cls, dist, targets, teacher = logits(2)
    loss = hard_distillation_loss(cls.bfloat16(), dist.bfloat16(), targets, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(distillation_by_hand(cls.bfloat16(), dist.bfloat16(), targets, teacher), rel=1e-5)


def divergence_by_hand(learner: list[float], teacher: list[float], temperature: float) -> float:
    """KL(teacher || learner) of softened probabilities, times temperature squared."""
    ours = log_probabilities([value / temperature for value in learner])
    theirs = log_probabilities([value / temperature for value in teacher])
    return temperature**2 * math.fsum(math.exp(wanted) * (wanted - got) for wanted, got in zip(theirs, ours, strict=True))


def soft_by_hand(cls: Tensor, dist: Tensor | None, targets: Tensor, teacher: Tensor, temperature: float, alpha: float) -> float:
    terms = []
    for cls_row, learner_row, target_row, teacher_row in rows_of(cls, cls if dist is None else dist, targets, teacher):
        divergence = divergence_by_hand(learner_row, teacher_row, temperature)
        terms.append((1 - alpha) * cross_entropy_by_hand(target_row, cls_row) + alpha * divergence)
    return math.fsum(terms) / len(terms)


@pytest.mark.parametrize("with_token", [False, True])
@given(st.integers(0, 1000), st.floats(0.5, 8.0), st.floats(0.0, 1.0))
def test_the_soft_loss_is_labels_and_a_divergence_in_their_shares(with_token: bool, seed: int, temperature: float, alpha: float) -> None:
    cls, dist, targets, teacher = logits(seed)
    learner = dist if with_token else None
    got = soft_distillation_loss(cls, learner, targets, teacher, temperature=temperature, alpha=alpha)
    assert got.item() == pytest.approx(soft_by_hand(cls, learner, targets, teacher, temperature, alpha), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("with_token", [False, True])
def test_the_gradient_of_the_soft_loss_is_the_slope_of_the_formula(numeric_gradient: Callable[..., Tensor], with_token: bool) -> None:
    cls, dist, targets, teacher = (values.requires_grad_() for values in logits(3))
    learner = dist if with_token else None
    soft_distillation_loss(cls, learner, targets.detach(), teacher, temperature=3.0, alpha=0.7).backward()
    assert teacher.grad is None and cls.grad is not None
    expected = numeric_gradient(lambda x: soft_by_hand(x, learner, targets, teacher, 3.0, 0.7), cls)
    torch.testing.assert_close(cls.grad, expected.float(), rtol=1e-3, atol=1e-6)
    assert (dist.grad is not None) == with_token
    if dist.grad is not None:
        expected = numeric_gradient(lambda x: soft_by_hand(cls, x, targets, teacher, 3.0, 0.7), dist)
        torch.testing.assert_close(dist.grad, expected.float(), rtol=1e-3, atol=1e-6)


def test_at_a_high_temperature_the_divergence_is_half_the_variance_of_the_differences() -> None:
    """Hinton, Vinyals and Dean: the second order of the exponential is all that is left, and the squared temperature keeps its size."""
    cls, _, targets, teacher = logits(4)
    got = soft_distillation_loss(cls, None, targets, teacher, temperature=100.0, alpha=1.0)
    differences = (cls - teacher).double()
    assert got.item() == pytest.approx(differences.var(dim=1, unbiased=False).mean().item() / 2, rel=0.02)


def test_a_student_that_agrees_with_its_teacher_costs_nothing_but_the_labels() -> None:
    cls, _, targets, _ = logits(5)
    same = cls + torch.randn(6, 1)  # an offset of all logits is no disagreement
    assert soft_distillation_loss(cls, None, targets, same, temperature=2.0, alpha=1.0).item() == pytest.approx(0.0, abs=1e-5)


def test_at_temperature_one_the_gradient_is_the_difference_of_probabilities() -> None:
    cls, _, targets, teacher = logits(6)
    cls.requires_grad_()
    soft_distillation_loss(cls, None, targets, teacher, temperature=1.0, alpha=1.0).backward()
    assert cls.grad is not None
    torch.testing.assert_close(cls.grad, (cls.detach().softmax(dim=-1) - teacher.softmax(dim=-1)) / 6)


def nkd_by_hand(student: Tensor, targets: Tensor, teacher: Tensor, temperature: float, gamma: float) -> float:
    """-T_label log S_label - gamma t^2 sum over the others of N(T) log N(S), N being probabilities divided by 1 minus the label's."""
    terms = []
    for row, target_row, teacher_row in rows_of(student, targets, teacher):
        label = max(range(len(row)), key=lambda place: target_row[place])
        terms.append(-math.exp(log_probabilities(teacher_row)[label]) * log_probabilities(row)[label])
        ours, theirs = ([math.exp(value) for value in log_probabilities([v / temperature for v in one])] for one in (row, teacher_row))
        for place in set(range(len(row))) - {label}:
            wanted, got = theirs[place] / (1 - theirs[label]), ours[place] / (1 - ours[label])
            terms[-1] -= gamma * temperature**2 * wanted * math.log(got)
    return math.fsum(terms) / len(terms)


@given(st.integers(0, 1000), st.floats(0.5, 4.0), st.floats(0.1, 3.0))
def test_nkd_is_the_published_formula(seed: int, temperature: float, gamma: float) -> None:
    cls, _, targets, teacher = logits(seed)
    got = nkd_loss(cls, targets, teacher, temperature=temperature, gamma=gamma)
    assert got.item() == pytest.approx(nkd_by_hand(cls, targets, teacher, temperature, gamma), rel=1e-5)


def test_the_gradient_of_nkd_is_the_slope_of_the_formula(numeric_gradient: Callable[..., Tensor]) -> None:
    cls, _, targets, teacher = (values.requires_grad_() for values in logits(7))
    nkd_loss(cls, targets.detach(), teacher, temperature=2.0, gamma=1.5).backward()
    expected = numeric_gradient(lambda x: nkd_by_hand(x, targets, teacher, 2.0, 1.5), cls)
    assert teacher.grad is None and cls.grad is not None
    torch.testing.assert_close(cls.grad, expected.float(), rtol=1e-3, atol=1e-6)


def test_the_label_of_a_mixed_row_is_its_largest_share() -> None:
    cls, _, targets, teacher = logits(8)
    hard = torch.nn.functional.one_hot(targets.argmax(dim=-1), 4).float()
    assert torch.equal(nkd_loss(cls, targets, teacher), nkd_loss(cls, hard, teacher))
    assert not torch.equal(nkd_loss(cls, targets, teacher), nkd_loss(cls, hard.roll(1, dims=1), teacher))


def test_what_the_student_thinks_of_the_label_does_not_change_what_it_thinks_of_the_others() -> None:
    cls, _, targets, teacher = logits(9)
    label = torch.nn.functional.one_hot(targets.argmax(dim=-1), 4).float()
    cls.requires_grad_()
    (nkd_loss(cls, targets, teacher, gamma=2.0) - nkd_loss(cls, targets, teacher, gamma=1.0)).backward()
    assert cls.grad is not None
    assert cls.grad[label == 1].abs().max() < 1e-6 and cls.grad[label == 0].abs().max() > 1e-2


def test_a_certain_student_and_teacher_have_a_finite_nkd() -> None:
    certain = torch.tensor([[80.0, -80.0, 0.0]], requires_grad=True)  # 1 minus the label's probability is 0
    loss = nkd_loss(certain, torch.tensor([[1.0, 0.0, 0.0]]), certain.detach())
    loss.backward()
    assert loss.isfinite() and certain.grad is not None and certain.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_soft_losses_of_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    cls, dist, targets, teacher = logits(10)
    cls, dist, teacher = cls.to(dtype), dist.to(dtype), teacher.to(dtype)
    soft, nkd = soft_distillation_loss(cls, dist, targets, teacher, temperature=2.0, alpha=0.5), nkd_loss(cls, targets, teacher)
    assert (soft.dtype, nkd.dtype) == (torch.float32, torch.float32)
    assert soft.item() == pytest.approx(soft_by_hand(cls, dist, targets, teacher, 2.0, 0.5), rel=1e-5)
    assert nkd.item() == pytest.approx(nkd_by_hand(cls, targets, teacher, 1.0, 1.0), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    cls, dist, targets, teacher = logits(11)
    for loss in (
        lambda: soft_distillation_loss(cls, dist, targets, teacher, temperature=temperature, alpha=0.5),
        lambda: nkd_loss(cls, targets, teacher, temperature=temperature),
    ):
        with pytest.raises(ValueError, match=f"temperature is {temperature}; it must be above 0"):
            loss()


def test_nkd_needs_another_class_than_the_label() -> None:
    with pytest.raises(ValueError, match="there is one class only, so there are no other classes to compare"):
        nkd_loss(torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, 1))
