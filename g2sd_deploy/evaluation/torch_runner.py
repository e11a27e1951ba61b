"""A torch classifier behind the interface that accuracy, parity and latency share."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from g2sd_export.edge.preprocess import Preprocessing, normalise


class TorchRunner:
    """Eager torch in evaluation mode; `infer` may be called by several threads at once.

    Args:
        model: float32 [B, C, H, W] to logits [B, num_classes].
        preprocessing: How the model wants its images.
        device: Where to compute.
        threads: CPU threads of one forward pass; None leaves torch's setting.
    """

    name = "torch"
    version = torch.__version__

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, *, device: torch.device, threads: int | None = None) -> None:
        self.preprocessing = preprocessing
        self._model = model.eval().to(device)
        self._device = device
        self._threads = threads

    def prepare(self, images: UInt8[np.ndarray, "batch height width channels"]) -> Float32[np.ndarray, "batch channels height width"]:
        """Normalised network input."""
        return normalise(images, self.preprocessing)

    def forward(self, inputs: Float32[np.ndarray, "batch channels height width"]) -> Float32[np.ndarray, "batch classes"]:
        """Logits; returns when the work is done."""
        with torch.inference_mode(), _torch_threads(self._threads):
            logits: Float32[np.ndarray, "batch classes"] = self._model(self._on_device(inputs)).float().cpu().numpy()
        return logits

    def infer(self, images: UInt8[np.ndarray, "batch height width channels"]) -> Float32[np.ndarray, "batch classes"]:
        """Logits of uint8 images."""
        return self.forward(self.prepare(images))

    def _on_device(self, inputs: Float32[np.ndarray, "batch channels height width"]) -> Tensor:
        tensor = torch.from_numpy(inputs)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor.to(self._device)


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """torch keeps the number for each thread that calls it: one that has it already changes nothing that others could see."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
