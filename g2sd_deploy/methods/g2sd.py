"""The two losses of G2SD: generic (decoder features) and specific (task predictions)."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from g2sd_deploy.methods.classification import soft_cross_entropy


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
        mask: True where a token is scored; None scores every token.
        beta: Width of the quadratic zone, in standard deviations of the normed target.

    Returns:
        Mean over the scored elements, float32, dimensionless.

    Raises:
        ValueError: The shapes differ, or the mask selects no token.

    Source: arXiv 2302.14771; pengzhiliang/G2SD@6146adf, engine_distill.py.
    Differs: no encoder term (the authors multiply theirs by zero).
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student features {tuple(student.shape)} and teacher features {tuple(teacher.shape)} must have one shape")
    target = F.layer_norm(teacher.detach().float(), teacher.shape[-1:], eps=1e-6)
    if mask is None:
        return F.smooth_l1_loss(student.float(), target, beta=beta)
    if not bool(mask.any()):
        raise ValueError("the mask selects no token to compare")
    return F.smooth_l1_loss(student.float()[mask], target[mask], beta=beta)


def hard_distillation_loss(
    cls_logits: Float[Tensor, "batch classes"],
    dist_logits: Float[Tensor, "batch classes"],
    targets: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
) -> Float[Tensor, ""]:
    """Half cross-entropy of the class head to the (mixed) labels, half of the distillation head to the teacher's decisions.

    Args:
        cls_logits: Student's class head; computed in float32.
        dist_logits: Student's distillation head; computed in float32.
        targets: Soft labels, rows sum to 1.
        teacher_logits: Teacher on the same (mixed) images; only its argmax counts, no gradient.

    Returns:
        Mean over the batch in nats, float32.

    Source: arXiv 2302.14771; pengzhiliang/G2SD@6146adf, engine_finetune_dis.py (equal weights, no temperature).
    """
    labelled = soft_cross_entropy(cls_logits, targets)
    distilled = F.cross_entropy(dist_logits.float(), teacher_logits.detach().argmax(dim=-1))
    return (labelled + distilled) / 2
