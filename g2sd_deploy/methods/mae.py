"""MAE's pixel loss."""

from jaxtyping import Bool, Float
from torch import Tensor


def masked_pixel_loss(
    predicted: Float[Tensor, "batch patches dim"],
    pixels: Float[Tensor, "batch patches dim"],
    hidden: Bool[Tensor, "batch patches"],
    *,
    norm_pix: bool,
) -> Float[Tensor, ""]:
    """Mean squared error to the pixels of the hidden patches.

    Args:
        predicted: Predicted pixels of each patch; any float dtype, computed in float32.
        pixels: Normalised input pixels of each patch.
        hidden: True where the encoder did not see the patch; only these count.
        norm_pix: Compare with pixels standardised within their patch (unbiased variance, eps 1e-6).

    Returns:
        Mean over hidden patches and their pixels, float32.

    Raises:
        ValueError: No patch is hidden.

    Source: arXiv 2111.06377; facebookresearch/mae@efb2a80, models_mae.py (forward_loss).
    """
    if not bool(hidden.any()):
        raise ValueError("the mask hides no patch, so there is nothing to reconstruct; raise mask_ratio")
    target = pixels.float()
    if norm_pix:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    per_patch = (predicted.float() - target).square().mean(-1)
    return (per_patch * hidden).sum() / hidden.sum()
