"""G2SD's generic distillation: features of the teacher under a shared mask."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.masked import FeatureStudent, GenericStudent, Mask, mask_from_noise


def hidden_feature_loss(
    student: Float[Tensor, "batch tokens dim"],
    teacher: Float[Tensor, "batch tokens dim"],
    *,
    mask: Bool[Tensor, "batch tokens"] | None = None,
    beta: float = 2.0,
) -> Float[Tensor, ""]:
    """Smooth-L1 distance from student features to layer-normed teacher features.

    Args:
        student: Predicted features; any float dtype, computed in float32.
        teacher: Teacher hidden states; receives no gradient.
        mask: True where a token is scored, of which there must be some; None scores every token.
        beta: Width of the quadratic zone, in standard deviations of the normed target.

    Returns:
        Mean over the scored elements, float32, dimensionless.

    Raises:
        ValueError: The shapes differ.

    Source: arXiv 2302.14771; pengzhiliang/G2SD@6146adf, engine_distill.py.
    Differs: no encoder term (the authors multiply theirs by zero).
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student features {tuple(student.shape)} and teacher features {tuple(teacher.shape)} must have one shape")
    target = F.layer_norm(teacher.detach().float(), teacher.shape[-1:], eps=1e-6)
    if mask is None:
        return F.smooth_l1_loss(student.float(), target, beta=beta)
    per_token = F.smooth_l1_loss(student.float(), target, beta=beta, reduction="none").mean(dim=-1)
    return per_token.where(mask, 0.0).sum() / mask.sum()  # not `per_token[mask]`: how many those are, the host would have to wait for


class G2sdLearner(nn.Module):
    """A student that predicts what the teacher makes of the same visible patches.

    Args:
        student: Predicts features of the class token and the patches; with a decoder (G2SD) or without (encoder target).
        target: The frozen teacher: images and mask to the features to predict.
        mask_ratio: Share of the patches that neither encoder sees.
        masked_only: Compare the patches that were hidden, and nothing else.
    """

    def __init__(
        self,
        student: GenericStudent | FeatureStudent,
        target: Callable[[Tensor, Mask], Tensor],
        *,
        mask_ratio: float,
        masked_only: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.target = target
        self.mask_ratio = mask_ratio
        self.masked_only = masked_only

    def forward(self, views: Views) -> dict[str, Tensor]:
        mask = mask_from_noise(views.mask_noise, self.mask_ratio)
        if self.masked_only:
            mask.require_hidden()
        with torch.no_grad():
            target = self.target(views.images, mask)
        predicted = self.student(views.student_images, mask)
        scored = F.pad(mask.hidden, (1, 0)) if self.masked_only else None  # the class token is first, and not a hidden patch
        return {"features": hidden_feature_loss(predicted, target, mask=scored)}
