"""What a method is given at each step: without labels, and with them."""

from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """Images of one step and the random numbers that belong to them; all are functions of (seed, epoch, sample index).

    Attributes:
        images: Augmented, normalised images.
        student_images: The same, with colour jitter where the method asks for it.
        mask_noise: Uniform numbers in [0, 1) that rank the patches; see `models.masked.mask_from_noise`.
        drop_draws: Uniform numbers in [0, 1) for the two branches of each student block; see `models.vit.survival_scales`.
    """

    images: Float[Tensor, "batch channels height width"]
    student_images: Float[Tensor, "batch channels height width"]
    mask_noise: Float64[Tensor, "batch patches"]
    drop_draws: Float64[Tensor, "batch depth 2"]


@dataclass(frozen=True)
class LabelledViews:
    """Images of one step with what a classifier is to say of them.

    Attributes:
        images: Augmented, normalised and (where the recipe asks for it) mixed.
        targets: Soft labels; rows sum to 1.
        survival: Factors of each block's residual branches (drop path); None for 1.
    """

    images: Float[Tensor, "batch channels height width"]
    targets: Float[Tensor, "batch classes"]
    survival: Float[Tensor, "batch depth 2"] | None = None
