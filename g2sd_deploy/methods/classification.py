"""Supervised classification: soft labels, their loss, and what trains a classifier."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from g2sd_deploy.methods.views import LabelledViews
from g2sd_deploy.models.fake_quant import QuantisedClassifier
from g2sd_deploy.models.vit import Classifier

ClassifierLoss = Callable[[Tensor, Tensor | None, LabelledViews], Tensor]
"""Loss of the class head's logits, the distillation head's (or None), and what they were given."""


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


def label_loss(logits: Float[Tensor, "batch classes"], _: Tensor | None, views: LabelledViews) -> Float[Tensor, ""]:
    """The (mixed) labels alone, learnt by the class head."""
    return soft_cross_entropy(logits, views.targets)


class ClassifierLearner(nn.Module):
    """A classifier with the loss that it is trained by."""

    def __init__(self, model: Classifier | QuantisedClassifier, loss: ClassifierLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, views: LabelledViews) -> dict[str, Tensor]:
        logits, dist_logits = self.model.forward_heads(views.images, survival=views.survival)
        return {"loss": self.loss(logits, dist_logits, views)}
