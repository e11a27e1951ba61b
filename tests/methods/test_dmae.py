"""DMAE's alignment loss against loops over Python's floats."""

import math
from collections.abc import Callable
from inspect import unwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2sd_deploy.methods.dmae import Distance, normalized_feature_loss

BOTH = pytest.mark.parametrize("distance", ["l1", "l2"])


def unit(row: list[float]) -> list[float]:
    """The same direction with length 1."""
    length = math.sqrt(math.fsum(value**2 for value in row))
    return [value / length for value in row]


def alignment_by_hand(student: Tensor, teacher: Tensor, distance: Distance) -> float:
    terms = []
    for ours, theirs in zip(student.flatten(0, 1).double().tolist(), teacher.flatten(0, 1).double().tolist(), strict=True):
        for one, two in zip(unit(ours), unit(theirs), strict=True):
            terms.append(abs(one - two) if distance == "l1" else (one - two) ** 2)
    return math.fsum(terms) / len(terms)


def features(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Features of quite different lengths."""
    random = torch.Generator().manual_seed(seed)
    student = torch.randn(2, 4, 6, generator=random) * torch.rand(2, 4, 1, generator=random) * 5
    return student.to(dtype), (torch.randn(2, 4, 6, generator=random) * 9 + 2).to(dtype)


@BOTH
@given(st.integers(0, 1000))
def test_the_loss_is_the_mean_distance_of_directions(distance: Distance, seed: int) -> None:
    student, teacher = features(seed)
    loss = normalized_feature_loss(student, teacher, distance=distance)
    assert loss.item() == pytest.approx(alignment_by_hand(student, teacher, distance), rel=1e-5)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_of_any_format_are_compared_in_float32(distance: Distance, dtype: torch.dtype) -> None:
    student, teacher = features(0, dtype)
    loss = normalized_feature_loss(student, teacher, distance=distance)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(alignment_by_hand(student, teacher, distance), rel=1e-5)


def test_the_distance_is_absolute_by_default() -> None:
    student, teacher = features(1)
    assert torch.equal(normalized_feature_loss(student, teacher), normalized_feature_loss(student, teacher, distance="l1"))


@BOTH
def test_the_gradient_is_the_slope_of_the_formula_and_the_teacher_gets_none(
    numeric_gradient: Callable[..., Tensor], distance: Distance
) -> None:
    student, teacher = (values.requires_grad_() for values in features(2))
    normalized_feature_loss(student, teacher, distance=distance).backward()
    expected = numeric_gradient(lambda x: alignment_by_hand(x, teacher, distance), student)
    assert teacher.grad is None
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.float(), rtol=1e-3, atol=1e-6)


@BOTH
def test_lengths_do_not_count_and_directions_do(distance: Distance) -> None:
    student, teacher = features(3)
    loss = normalized_feature_loss(student, teacher, distance=distance)
    stretched = torch.rand(2, 4, 1) * 10 + 0.1
    torch.testing.assert_close(normalized_feature_loss(student * stretched, teacher * stretched.flip(1), distance=distance), loss)
    assert normalized_feature_loss(teacher * stretched, teacher, distance=distance).item() < 1e-6
    assert not torch.isclose(normalized_feature_loss(-student, teacher, distance=distance), loss)


def test_random_directions_of_the_papers_teacher_are_as_far_apart_as_the_docstring_says() -> None:
    assert normalized_feature_loss(torch.randn(8, 50, 1024), torch.randn(8, 50, 1024)).item() == pytest.approx(0.035, abs=5e-4)


@BOTH
def test_a_feature_of_zeros_has_a_finite_loss_and_gradient(distance: Distance) -> None:
    student = torch.zeros(1, 2, 4, requires_grad=True)
    loss = normalized_feature_loss(student, torch.randn(1, 2, 4), distance=distance)
    loss.backward()
    assert loss.isfinite() and student.grad is not None and student.grad.isfinite().all()


def test_features_of_another_width_or_number_are_refused() -> None:
    student, teacher = features(4)
    for other in (teacher[:, :3], teacher[..., :5], teacher[:1]):
        shape = str(tuple(other.shape)).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=rf"student features \(2, 4, 6\) and teacher features {shape} must have one shape"):
            unwrap(normalized_feature_loss)(student, other)  # as users run it: without the annotations, which refuse it too
