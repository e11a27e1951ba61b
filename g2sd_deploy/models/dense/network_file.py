"""Weight files of either task: a segmenter's or a detector's."""

from pathlib import Path

import torch

from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_file import DetectorFile, load_detector, save_detector
from g2sd_deploy.models.dense.segmenter import Segmenter
from g2sd_deploy.models.dense.segmenter_file import SegmenterFile, load_segmenter, save_segmenter
from g2sd_export.edge.dense.task import DenseTask

DenseNetwork = Segmenter | Detector
DenseFile = SegmenterFile | DetectorFile

NETWORK_OF = {"segmentation": "segmenter", "detection": "detector"}
"""What answers a task."""
FILES = {network: f"{network}.safetensors" for network in NETWORK_OF.values()}
"""Weight file of a finished stage, by what it holds."""


def load_network(path: Path, network: str) -> DenseFile:
    """Read a network of a task, float32, in evaluation mode.

    Args:
        path: The file.
        network: `segmenter` or `detector`.

    Raises:
        UserError: It is missing, damaged or another one.
    """
    return load_segmenter(path) if network == "segmenter" else load_detector(path)


def save_network(
    path: Path, network: DenseNetwork, task: DenseTask, class_names: tuple[str, ...], dtype: torch.dtype = torch.float32
) -> None:
    """Write a network with all that is needed to use it on an image."""
    if isinstance(network, Segmenter):
        save_segmenter(path, SegmenterFile(network, task, class_names), dtype)
    else:
        save_detector(path, DetectorFile(network, task, class_names), dtype)
