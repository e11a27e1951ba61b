"""TinyMIM's relation losses against loops over NumPy's float64."""

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from g2sd_deploy.methods.tinymim import relation_losses

Array = np.ndarray[Any, Any]


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def relation(left: Array, right: Array, query: int) -> Array:
    """Probabilities over the keys of one query of one head."""
    return softmax(np.array([left[query] @ key for key in right]) / np.sqrt(left.shape[1]))


def heads_of(qkv: Array, which: int, heads: int) -> list[Array]:
    """Queries (0), keys (1) or values (2) of one image, cut into heads of neighbouring numbers: [tokens, head width] each."""
    width = qkv.shape[1] // 3
    part = qkv[:, which * width : (which + 1) * width]
    return [part[:, head * width // heads : (head + 1) * width // heads] for head in range(heads)]


def relations_by_hand(student: Tensor, teacher: Tensor, heads: int) -> tuple[float, float]:
    """Both divergences, teacher's probabilities first."""
    found = []
    for left, right in ((0, 1), (2, 2)):
        terms = []
        for ours, theirs in zip(student.detach().double().numpy(), teacher.detach().double().numpy(), strict=True):
            for head in range(heads):
                for query in range(len(ours)):
                    wanted = relation(heads_of(theirs, left, heads)[head], heads_of(theirs, right, heads)[head], query)
                    got = relation(heads_of(ours, left, heads)[head], heads_of(ours, right, heads)[head], query)
                    terms.append(float((wanted * (np.log(wanted) - np.log(got))).sum()))
        found.append(sum(terms) / len(terms))
    return found[0], found[1]


def drawn(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A narrow student and a wide teacher on the same five tokens."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, 3 * 8, generator=random).mul(2).to(dtype), torch.randn(2, 5, 3 * 12, generator=random).mul(2).to(dtype)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_each_loss_is_the_mean_divergence_over_images_heads_and_queries(heads: int, seed: int) -> None:
    losses = relation_losses(*drawn(seed), heads=heads)
    assert [loss.item() for loss in losses] == pytest.approx(relations_by_hand(*drawn(seed), heads), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_relations_of_any_format_are_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = drawn(1, dtype)
    losses = relation_losses(student, teacher, heads=2)
    assert {loss.dtype for loss in losses} == {torch.float32}
    assert [loss.item() for loss in losses] == pytest.approx(relations_by_hand(student, teacher, 2), rel=1e-5)


def test_relations_are_computed_in_float32_where_autocast_would_multiply_in_half_precision() -> None:
    expected = relation_losses(*drawn(1), heads=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16, "autocast is at work"
        found = relation_losses(*drawn(1), heads=2)
    assert [loss.item() for loss in found] == [loss.item() for loss in expected]


@pytest.mark.parametrize("which", [0, 1])
def test_the_gradient_is_the_slope_of_the_formula_and_the_teacher_gets_none(numeric_gradient: Callable[..., Tensor], which: int) -> None:
    student, teacher = (values[:, :3].requires_grad_() for values in drawn(2))
    student.retain_grad()
    relation_losses(student, teacher, heads=2)[which].backward()
    expected = numeric_gradient(lambda x: relations_by_hand(x, teacher, 2)[which], student)
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.float(), rtol=1e-3, atol=1e-6)
    read = student.grad.view(2, 3, 3, 8).abs().sum(dim=(0, 1, 3)) > 0
    assert read.tolist() == ([True, True, False] if which == 0 else [False, False, True])  # of queries, keys and values


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = (values.requires_grad_() for values in drawn(3))
    torch.stack(relation_losses(student, teacher, heads=2)).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_a_student_that_equals_its_teacher_costs_nothing_and_is_left_alone() -> None:
    teacher = drawn(4)[1]
    student = teacher.clone().requires_grad_()
    losses = relation_losses(student, teacher, heads=3)
    torch.stack(losses).sum().backward()
    assert [loss.item() for loss in losses] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max().item() < 1e-6


def test_the_divergence_is_not_symmetric_and_the_teacher_comes_first() -> None:
    student, teacher = drawn(5)
    forward, backward = relation_losses(student, teacher, heads=2), relation_losses(teacher, student, heads=2)
    assert all(abs(one.item() - two.item()) > 0.01 for one, two in zip(forward, backward, strict=True))


def rotated(qkv: Tensor, heads: int) -> Tensor:
    """Turn the features of each head: queries and keys by one rotation, values by another."""
    parts = qkv.unflatten(-1, (3, heads, -1))
    width = parts.shape[-1]
    turns = torch.linalg.qr(torch.randn(2, heads, width, width)).Q
    return torch.einsum("btphd,phde->btphe", parts, turns[[0, 0, 1]]).flatten(2)


def test_turning_the_features_of_a_head_changes_no_relation() -> None:
    student, teacher = drawn(6)
    before = relation_losses(student, teacher, heads=2)
    after = relation_losses(rotated(student, 2), rotated(teacher, 2), heads=2)
    assert [loss.item() for loss in after] == pytest.approx([loss.item() for loss in before], rel=1e-4)
    across = relation_losses(rotated(student, 1), teacher, heads=2)  # over both heads at once
    assert all(abs(one.item() - two.item()) > 1e-3 for one, two in zip(before, across, strict=True))


def test_the_order_of_tokens_does_not_matter_and_the_pairing_does() -> None:
    student, teacher = drawn(7)
    order = torch.tensor([3, 0, 4, 1, 2])
    before = relation_losses(student, teacher, heads=2)
    both = relation_losses(student[:, order], teacher[:, order], heads=2)
    assert [loss.item() for loss in both] == pytest.approx([loss.item() for loss in before], rel=1e-5)
    assert abs(relation_losses(student[:, order], teacher, heads=2)[0].item() - before[0].item()) > 0.01


def test_the_same_offset_on_all_keys_changes_no_relation_of_queries_and_keys() -> None:
    student, teacher = drawn(8)
    moved = student.clone()
    moved[:, :, 8:16] += torch.randn(8)
    assert relation_losses(moved, teacher, heads=2)[0].item() == pytest.approx(
        relation_losses(student, teacher, heads=2)[0].item(), rel=1e-4
    )


def test_peaked_relations_have_a_finite_loss_and_gradient() -> None:
    student, teacher = (values * 40 for values in drawn(9))  # a softmax of these underflows, and its logarithm is minus infinity
    student.requires_grad_()
    losses = relation_losses(student, teacher, heads=2)
    torch.stack(losses).sum().backward()
    assert all(loss.isfinite() and loss > 10 for loss in losses)
    assert student.grad is not None and student.grad.isfinite().all()


def test_other_tokens_and_heads_that_do_not_fit_are_refused() -> None:
    student, teacher = drawn(10)
    unchecked = unwrap(relation_losses)  # as users run it: without the annotations, which refuse some of it too
    with pytest.raises(ValueError, match=r"student \(2, 5\) and teacher \(2, 4\) must have the same tokens"):
        unchecked(student, teacher[:, :4], heads=2)
    with pytest.raises(ValueError, match=r"student \(2, 5\) and teacher \(1, 5\) must have the same tokens"):
        unchecked(student, teacher[:1], heads=2)
    with pytest.raises(ValueError, match="3 heads do not divide the student's width 8"):
        unchecked(student, teacher, heads=3)
    with pytest.raises(ValueError, match="8 heads do not divide the teacher's width 12"):
        unchecked(student, teacher, heads=8)
