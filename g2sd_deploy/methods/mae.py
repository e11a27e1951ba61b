"""MAE: reconstruction of hidden patches."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.masked import MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import patchify


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
        hidden: True where the encoder did not see the patch; only these count, and there must be some.
        norm_pix: Compare with pixels standardised within their patch (unbiased variance, eps 1e-6).

    Returns:
        Mean over hidden patches and their pixels, float32.

    Source: arXiv 2111.06377; facebookresearch/mae@efb2a80, models_mae.py (forward_loss).
    """
    target = pixels.float()
    if norm_pix:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    per_patch = (predicted.float() - target).square().mean(-1)
    return (per_patch * hidden).sum() / hidden.sum()


class MaeLearner(nn.Module):
    """A masked autoencoder that learns to reconstruct the patches that its encoder did not see."""

    def __init__(self, student: MaskedAutoencoder, *, mask_ratio: float, norm_pix: bool) -> None:
        super().__init__()
        self.student = student
        self.mask_ratio = mask_ratio
        self.norm_pix = norm_pix

    def forward(self, views: Views) -> dict[str, Tensor]:
        mask = mask_from_noise(views.mask_noise, self.mask_ratio)
        mask.require_hidden()
        pixels = patchify(views.student_images, self.student.encoder.spec.patch_px)
        predicted = self.student(views.student_images, mask)
        return {"pixels": masked_pixel_loss(predicted, pixels, mask.hidden, norm_pix=self.norm_pix)}
