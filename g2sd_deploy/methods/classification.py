"""Supervised classification loss on soft labels."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def smoothed_one_hot(labels: Int64[Tensor, "batch"], num_classes: int, smoothing: float) -> Float[Tensor, "batch classes"]:
    """One-hot rows with `smoothing` spread evenly over all classes. Source: arXiv 1512.00567, section 7."""
    off = smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, device=labels.device)
    return targets.scatter_(1, labels.unsqueeze(1), 1.0 - smoothing + off)


def soft_cross_entropy(logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """Cross-entropy to soft labels, mean over the batch in nats; computed in float32.

    Raises:
        ValueError: The shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must have one shape")
    return -(targets * logits.float().log_softmax(dim=-1)).sum(dim=-1).mean()
