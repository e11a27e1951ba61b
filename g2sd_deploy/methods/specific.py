"""Losses that take a teacher's predictions of the task beside the labels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from g2sd_deploy.methods.classification import soft_cross_entropy


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


def soft_distillation_loss(
    cls_logits: Float[Tensor, "batch classes"],
    dist_logits: Float[Tensor, "batch classes"] | None,
    targets: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    *,
    temperature: float,
    alpha: float,
) -> Float[Tensor, ""]:
    """Cross-entropy to the labels, and KL(teacher || student) of softened probabilities times temperature squared.

    Args:
        cls_logits: Student's class head; computed in float32.
        dist_logits: Student's distillation head, which then learns the divergence; None: the class head learns both.
        targets: Soft labels, rows sum to 1.
        teacher_logits: Teacher on the same (mixed) images; no gradient.
        temperature: Divides the logits of both networks.
        alpha: Weight of the divergence; the labels have 1 - alpha.

    Returns:
        Mean over the batch in nats, float32.

    Raises:
        ValueError: The temperature is not above 0.

    Source: arXiv 1503.02531, section 2. Differs from facebookresearch/deit@7e160fe, losses.py, which also divides by the number of classes.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    learner = cls_logits if dist_logits is None else dist_logits
    student = (learner.float() / temperature).log_softmax(dim=-1)
    teacher = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    return (1 - alpha) * soft_cross_entropy(cls_logits, targets) + alpha * divergence


def nkd_loss(
    logits: Float[Tensor, "batch classes"],
    targets: Float[Tensor, "batch classes"],
    teacher_logits: Float[Tensor, "batch classes"],
    *,
    temperature: float = 1.0,
    gamma: float = 1.0,
) -> Float[Tensor, ""]:
    """Normalised knowledge distillation.

    The label's log-probability is weighted by the teacher's probability of the label; the other classes, renormalised without the label,
    are compared by cross-entropy.

    Args:
        logits: Student; computed in float32.
        targets: Soft labels; the largest of a row is the label.
        teacher_logits: Teacher on the same images; no gradient.
        temperature: Divides the logits of the other classes, of both networks.
        gamma: Weight of the other classes.

    Returns:
        Mean over the batch in nats, float32.

    Raises:
        ValueError: The temperature is not above 0, or there are fewer than two classes.

    Source: arXiv 2303.13005; pengzhiliang/G2SD@6146adf, NKD_loss.py (where gamma is called alpha).
    Differs: that code's student keeps a distillation token, which attends and whose head is ignored; our recipes give it none.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if logits.shape[1] < 2:
        raise ValueError("there is one class only, so there are no other classes to compare")
    student, teacher = logits.float(), teacher_logits.detach().float()
    label = targets.argmax(dim=-1, keepdim=True)
    weight = teacher.softmax(dim=-1).gather(1, label)
    labelled = -(weight * student.log_softmax(dim=-1).gather(1, label)).mean()
    places = torch.arange(logits.shape[1] - 1, device=logits.device)
    other = places + (places >= label)  # by index, not by mask: the host would have to wait for how many a mask selects
    others = [(z.gather(1, other) / temperature).log_softmax(dim=-1) for z in (student, teacher)]
    return labelled - gamma * temperature**2 * (others[1].exp() * others[0]).sum(dim=-1).mean()
