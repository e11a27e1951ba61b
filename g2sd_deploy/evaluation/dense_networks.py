"""torch models behind the one interface by which dense networks are scored."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from g2sd_deploy.evaluation.dense_scoring import Answer, Infer
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.segmenter import Segmenter


def segmenter_infer(model: Segmenter, device: torch.device, mean: Sequence[float], std: Sequence[float]) -> Infer:
    """A segmenter as a function of uint8 images.

    Args:
        model: Put into evaluation mode and onto the device.
        device: Where to compute.
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255.

    Returns:
        Of uint8 [batch, px, px, channels]: logits, float32 [batch, classes, px / 4, px / 4].
    """
    return _infer(model, lambda images: (model(images),), device, mean, std)


def detector_infer(model: Detector, device: torch.device, mean: Sequence[float], std: Sequence[float]) -> Infer:
    """A detector as a function of uint8 images.

    Args:
        model: Put into evaluation mode and onto the device.
        device: Where to compute.
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255.

    Returns:
        Of uint8 [batch, px, px, channels]: boxes [batch, K, 4], scores [batch, K], labels [batch, K] and masks [batch, K, m, m].
    """

    def asked(images: Tensor) -> tuple[Tensor, ...]:
        found = model(images)
        return found.boxes, found.scores, found.labels, found.masks

    return _infer(model, asked, device, mean, std)


def _infer(
    model: nn.Module, asked: Callable[[Tensor], tuple[Tensor, ...]], device: torch.device, mean: Sequence[float], std: Sequence[float]
) -> Infer:
    model.eval().to(device)
    centre, width = (torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in (mean, std))

    def infer(images: UInt8[np.ndarray, "batch px px channels"]) -> Answer:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            return tuple(_array(of) for of in asked((pixels.permute(0, 3, 1, 2).float() / 255 - centre) / width))

    return infer


def _array(output: Tensor) -> np.ndarray:
    """On the host; floats as float32."""
    told: np.ndarray = (output.float() if output.is_floating_point() else output).cpu().numpy()
    return told
