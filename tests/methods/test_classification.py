"""Soft labels and their cross-entropy against loops over Python's floats."""

import math
from inspect import unwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2sd_deploy.methods.classification import smoothed_one_hot, soft_cross_entropy


def cross_entropy_by_hand(logits: Tensor, targets: Tensor) -> float:
    losses = []
    for row, weights in zip(logits.double().tolist(), targets.double().tolist(), strict=True):
        top = max(row)
        total = top + math.log(math.fsum(math.exp(value - top) for value in row))
        losses.append(-math.fsum(weight * (value - total) for weight, value in zip(weights, row, strict=True)))
    return math.fsum(losses) / len(losses)


@given(st.integers(2, 6), st.floats(0.0, 1.0), st.lists(st.integers(0, 1), min_size=1, max_size=4))
def test_smoothing_takes_its_share_from_the_label_and_spreads_it_over_all_classes(
    num_classes: int, smoothing: float, labels: list[int]
) -> None:
    rows = smoothed_one_hot(torch.tensor(labels), num_classes, smoothing).tolist()
    for row, label in zip(rows, labels, strict=True):
        expected = [smoothing / num_classes + (1 - smoothing if c == label else 0) for c in range(num_classes)]
        assert row == pytest.approx(expected, abs=1e-6)
        assert math.fsum(row) == pytest.approx(1.0, abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.1, 30.0))
def test_soft_cross_entropy_is_the_mean_over_the_batch_of_weighted_log_probabilities(seed: int, scale: float) -> None:
    random = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(5, 4, generator=random) * scale, torch.rand(5, 4, generator=random).softmax(dim=-1)
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(cross_entropy_by_hand(logits, targets), rel=1e-5)


def test_not_knowing_costs_the_logarithm_of_the_number_of_classes() -> None:
    targets = smoothed_one_hot(torch.tensor([0, 3, 9]), 10, 0.1)
    assert soft_cross_entropy(torch.zeros(3, 10), targets).item() == pytest.approx(math.log(10), rel=1e-6)


def test_the_gradient_is_probabilities_minus_targets() -> None:
    logits, targets = torch.randn(5, 4, requires_grad=True), torch.rand(5, 4).softmax(dim=-1)
    soft_cross_entropy(logits, targets).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(dim=-1) - targets) / 5)


def test_extreme_and_half_precision_logits_are_computed_in_float32() -> None:
    logits, targets = torch.tensor([[300.0, -300.0, 0.3]]), torch.tensor([[0.2, 0.5, 0.3]])
    for dtype in (torch.float32, torch.bfloat16):
        loss = soft_cross_entropy(logits.to(dtype), targets)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(cross_entropy_by_hand(logits.to(dtype), targets), rel=1e-6)


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \(2, 3\) and targets \(2, 4\) must have one shape"):
        unwrap(soft_cross_entropy)(torch.zeros(2, 3), torch.zeros(2, 4))  # as users run it: without the annotations, which refuse it too
