"""What a classifier becomes when it is only asked, never trained: the same answers from less work.

Shape letters: B batch, D width.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2sd_deploy.models.vit import Classifier


def merged_heads(classifier: Classifier) -> nn.Module:
    """The classifier with its two heads as one.

    The mean of two linear heads is linear: (a W + b + c V + d) / 2 = [a, c] [W; V] / 2 + (b + d) / 2. Halving is exact in floating
    point, so the answers differ by the rounding of one sum.

    Args:
        classifier: Left as it is; the result has weights of its own.

    Returns:
        A module from normalised images [B, C, H, W] to logits [B, classes]; the classifier itself where it has one head.
    """
    return classifier if classifier.head_dist is None else MergedHeads(classifier)


def as_shipped(module: nn.Module) -> nn.Module:
    """The network as it is exported: of a classifier of ours the heads that are averaged become one; others stay as they are."""
    return merged_heads(module) if isinstance(module, Classifier) else module


class MergedHeads(nn.Module):
    """A classifier with two averaged heads, as one norm and one linear layer over both tokens side by side."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        first, second = classifier.head, classifier.head_dist
        assert second is not None
        self.classifier = copy.deepcopy(classifier)
        self.norm = self.classifier.encoder.norm
        with torch.no_grad():
            self.head = nn.Linear(2 * first.in_features, classifier.num_classes).to(first.weight)
            self.head.weight.copy_(torch.cat([first.weight, second.weight], dim=1) / 2)
            self.head.bias.copy_((first.bias + second.bias) / 2)
        # What is left of the classifier hands out the tokens that its heads would have read.
        self.classifier.head = self.classifier.head_dist = self.classifier.encoder.norm = nn.Identity()  # type: ignore[assignment]
        self.train(classifier.training)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        pooled, last = self.classifier.forward_heads(images)
        assert last is not None
        logits: Tensor = self.head(self.norm(torch.stack((pooled, last), dim=1)).flatten(1))
        return logits
