"""MAE's pixel loss against a loop over Python's floats."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from g2sd_deploy.methods.mae import masked_pixel_loss


def pixel_loss_by_hand(predicted: Tensor, pixels: Tensor, hidden: Tensor, *, norm_pix: bool) -> float:
    terms = []
    for image, patch in hidden.nonzero().tolist():
        row = pixels[image, patch].double().tolist()
        if norm_pix:
            mean = math.fsum(row) / len(row)
            variance = math.fsum((value - mean) ** 2 for value in row) / (len(row) - 1)
            row = [(value - mean) / math.sqrt(variance + 1e-6) for value in row]
        terms.append(math.fsum((a - b) ** 2 for a, b in zip(predicted[image, patch].double().tolist(), row, strict=True)) / len(row))
    return math.fsum(terms) / len(terms)


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted pixels, real pixels, and hidden patches (another number of them in each image)."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.rand(3, 6, generator=random) < 0.6
    hidden[0, 0] = True
    return torch.randn(3, 6, 5, generator=random), torch.randn(3, 6, 5, generator=random) * 0.3 + 2, hidden


@pytest.mark.parametrize("norm_pix", [True, False])
@given(seed=st.integers(0, 1000))
def test_the_pixel_loss_is_the_squared_error_of_the_hidden_patches(norm_pix: bool, seed: int) -> None:
    predicted, pixels, hidden = drawn(seed)
    loss = masked_pixel_loss(predicted, pixels, hidden, norm_pix=norm_pix)
    assert loss.item() == pytest.approx(pixel_loss_by_hand(predicted, pixels, hidden, norm_pix=norm_pix), rel=2e-5)


def test_visible_patches_cost_nothing_and_get_no_gradient() -> None:
    predicted, pixels, hidden = drawn(1)
    predicted.requires_grad_()
    loss = masked_pixel_loss(predicted, pixels, hidden, norm_pix=False)
    loss.backward()
    assert predicted.grad is not None
    assert not predicted.grad[~hidden].any()
    expected = 2 * (predicted.detach() - pixels) / 5 / hidden.sum()
    torch.testing.assert_close(predicted.grad[hidden], expected[hidden])


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_gradient_is_the_slope_of_the_formula(numeric_gradient: Callable[..., Tensor], norm_pix: bool) -> None:
    predicted, pixels, hidden = drawn(4)
    predicted.requires_grad_()
    masked_pixel_loss(predicted, pixels, hidden, norm_pix=norm_pix).backward()
    expected = numeric_gradient(lambda x: pixel_loss_by_hand(x, pixels, hidden, norm_pix=norm_pix), predicted)
    assert predicted.grad is not None
    torch.testing.assert_close(predicted.grad, expected.float(), rtol=1e-4, atol=1e-6)


def test_normed_pixels_have_no_brightness_and_no_contrast() -> None:
    predicted, pixels, hidden = drawn(5)
    change = torch.rand(3, 6, 1) * 4 + 0.5
    loss = masked_pixel_loss(predicted, pixels, hidden, norm_pix=True)
    torch.testing.assert_close(masked_pixel_loss(predicted, pixels * change + change, hidden, norm_pix=True), loss, rtol=1e-4, atol=1e-5)
    assert not torch.isclose(masked_pixel_loss(predicted, pixels * change + change, hidden, norm_pix=False), loss)


def test_a_patch_of_one_colour_has_a_finite_loss() -> None:
    flat = torch.full((1, 2, 5), 0.7)
    loss = masked_pixel_loss(torch.zeros(1, 2, 5), flat, torch.ones(1, 2, dtype=torch.bool), norm_pix=True)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_half_precision_predictions_are_compared_in_float32(norm_pix: bool) -> None:
    predicted, pixels, hidden = drawn(2)
    loss = masked_pixel_loss(predicted.bfloat16(), pixels.bfloat16(), hidden, norm_pix=norm_pix)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pixel_loss_by_hand(predicted.bfloat16(), pixels.bfloat16(), hidden, norm_pix=norm_pix), rel=1e-4)
