"""Weight files of segmenters: written and read."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.models.weight_file import description_of, expect_kind, fill, read_weights, save_weights
from g2sd_export.edge.dense.task import DenseTask


@dataclass(frozen=True)
class SegmenterFile:
    """A segmenter with all that is needed to use it on an image."""

    model: Segmenter
    task: DenseTask
    class_names: tuple[str, ...]


def save_segmenter(path: Path, file: SegmenterFile, dtype: torch.dtype = torch.float32) -> None:
    """Write a segmenter with its task and class names."""
    shape = dataclasses.asdict(file.model.spec)
    described = {
        "kind": "segmenter",
        "encoder": shape.pop("encoder"),
        "segmenter": shape,
        "task": file.task.to_dict(),
        "class_names": list(file.class_names),
    }
    save_weights(path, file.model.state_dict(), described, dtype)


def load_segmenter(path: Path) -> SegmenterFile:
    """Read a segmenter, float32, in evaluation mode.

    Raises:
        UserError: Missing or damaged file, another kind of model, or weights, a task or names that are not those of the model.
    """
    described, weights = read_weights(path)
    expect_kind(path, described, "segmenter")
    with description_of(path):
        shape: dict[str, Any] = described["segmenter"]
        spec = SegmenterSpec(encoder=EncoderSpec(**described["encoder"]), **{**shape, "taps": tuple(shape["taps"])})
        task, names = DenseTask.from_dict(described["task"]), tuple(described["class_names"])
        model = Segmenter(spec)
    held = (task.kind, task.image_px, task.num_channels, len(names))
    if held != (wanted := ("segmentation", spec.encoder.image_px, spec.encoder.num_channels, spec.num_classes)):
        raise UserError(
            f"{path}: its task and class names are for (kind, image_px, channels, classes) {held}, and its model is for {wanted}; "
            "make the file again"
        )
    return SegmenterFile(fill(path, model, weights), task, names)
