"""Weight files of detectors."""

from dataclasses import dataclass
from pathlib import Path

import torch

from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.weight_file import description_of, expect_kind, fill, read_weights, save_weights
from g2sd_export.edge.dense.task import DenseTask


@dataclass(frozen=True)
class DetectorFile:
    """A detector with all that is needed to use it on an image."""

    model: Detector
    task: DenseTask
    class_names: tuple[str, ...]


def save_detector(path: Path, file: DetectorFile, dtype: torch.dtype = torch.float32) -> None:
    """Write a detector with its task and class names."""
    described = {
        "kind": "detector",
        "detector": file.model.spec.to_dict(),
        "task": file.task.to_dict(),
        "class_names": list(file.class_names),
    }
    save_weights(path, file.model.state_dict(), described, dtype)


def load_detector(path: Path) -> DetectorFile:
    """Read a detector, float32, in evaluation mode.

    Raises:
        UserError: Missing or damaged file, another kind of model, or weights of another shape.
    """
    described, weights = read_weights(path)
    expect_kind(path, described, "detector")
    with description_of(path):
        task, names = DenseTask.from_dict(described["task"]), tuple(described["class_names"])
        model = Detector(DetectorSpec.from_dict(described["detector"]))
        if len(names) != model.spec.num_classes:
            raise ValueError(f"{len(names)} class names for {model.spec.num_classes} classes")
    return DetectorFile(fill(path, model, weights), task, names)
