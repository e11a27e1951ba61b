"""What a segmenter becomes when it is exported: no head of training, and answers in one of two forms.

Shape letters: B batch, C channels, H and W sides of the network's input, h and w a quarter of them.
"""

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from g2sd_deploy.models.dense.segmenter import Segmenter, tapped_maps
from g2sd_deploy.models.dense.upernet import resize

Output = Literal["logits", "classes"]


def as_shipped(segmenter: Segmenter, output: Output) -> nn.Module:
    """The network as it is exported; its weights are the segmenter's own.

    Args:
        segmenter: Left as it is.
        output: "logits": float [B, classes, H / 4, W / 4]; what averages windows needs them. "classes": uint8 [B, H, W], the class of
            each pixel of the network's input.

    Returns:
        A module from normalised images [B, C, H, W].
    """
    logits = ShippedLogits(segmenter)
    match output:
        case "logits":
            shipped: nn.Module = logits
        case "classes":
            shipped = ShippedClasses(logits, segmenter.spec.encoder.image_px)
    return shipped.train(segmenter.training)


class ShippedLogits(nn.Module):
    """Logits at stride 4."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.taps = segmenter.spec.taps
        self.encoder, self.levels, self.head = segmenter.encoder, segmenter.levels, segmenter.head

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes h w"]:
        logits: Tensor = self.head(self.levels(tapped_maps(self.encoder, images, self.taps)))
        return logits


class ShippedClasses(nn.Module):
    """The class of each pixel: logits enlarged to the input's size, of which the largest counts."""

    def __init__(self, logits: ShippedLogits, image_px: int) -> None:
        super().__init__()
        self.logits = logits
        self.image_px = image_px

    def forward(self, images: Float[Tensor, "B C H W"]) -> UInt8[Tensor, "B H W"]:
        return resize(self.logits(images), (self.image_px, self.image_px)).argmax(dim=1).to(torch.uint8)
