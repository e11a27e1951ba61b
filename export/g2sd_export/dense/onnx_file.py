"""From a torch segmenter or detector to one ONNX file that says what it does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..edge.dense.outputs import CLASSES, DETECTION_OUTPUTS, LOGITS
from ..edge.dense.task import MASK_PX, DenseTask
from ..edge.errors import UserError
from ..edge.runner import INPUT_NAME
from ..onnx_file import DEFAULT_OPSET, OnnxInfo, model_metadata, traced_graph, write_onnx

if TYPE_CHECKING:
    import onnx
    import torch

PixelOutput = Literal["logits", "classes"]
"""What a segmenter's file gives: float32 logits at the network's own stride, or the uint8 class of each pixel of its input."""

_TASK = "task"


def export_dense_onnx(
    model: torch.nn.Module,
    task: DenseTask,
    *,
    num_classes: int,
    path: Path,
    output: PixelOutput = "logits",
    opset: int = DEFAULT_OPSET,
    metadata: Mapping[str, str] | None = None,
) -> OnnxInfo:
    """Write a segmenter or a detector as a single ONNX file whose batch size is free.

    Args:
        model: float32 [B, C, H, W] normalised images to logits [B, classes, s, s] or classes uint8 [B, H, W]; or to boxes [B, K, 4],
            scores [B, K], labels [B, K] and masks [B, K, 28, 28], with all that belongs to the answer inside, non-maximum suppression among
            it. Exported as in evaluation.
        task: What it does; gives the size of the images.
        num_classes: Classes that have a name.
        path: The file to write, whole or not at all.
        output: Of a segmenter: which of the two it gives.
        opset: Version of the ONNX operator set.
        metadata: Written to the file's ``metadata_props``; see ``dense_metadata``.

    Returns:
        Digest and size of the file, which has input ``images`` and the outputs ``logits``, ``classes`` or the four of a detector.

    Raises:
        UserError: The model gives something else, fixes the batch size, or exceeds 2 GiB; or classes are asked for where windows slide.
    """
    if output == CLASSES and task.inference == "slide":
        raise UserError("windows that slide are averaged as logits, and the file is to give classes; export the logits")
    names: Sequence[str] = (output,) if task.kind == "segmentation" else DETECTION_OUTPUTS
    sizes = {"image_px": task.image_px, "num_channels": task.num_channels}
    proto = traced_graph(model, outputs=names, opset=opset, **sizes)
    _check_outputs(proto, task, num_classes)
    return write_onnx(proto, path, metadata=metadata or {})


def dense_metadata(task: DenseTask, class_names: Sequence[str], *, weights_sha256: str, recipe: str) -> dict[str, str]:
    """What makes such a file usable on its own: what a classifier's says, and the task.

    Args:
        task: What the network does.
        class_names: In the order of the classes.
        weights_sha256: Digest of the weights file that was exported.
        recipe: Name of the recipe that made the model.
    """
    told = model_metadata(task.preprocessing(), class_names, weights_sha256=weights_sha256, recipe=recipe)
    return {**told, _TASK: json.dumps(task.to_dict())}


def _check_outputs(proto: onnx.ModelProto, task: DenseTask, num_classes: int) -> None:
    """Raise UserError unless input and outputs are what the task asks for, with a free batch."""
    found = {item.name: _dims(item) for item in (*proto.graph.input, *proto.graph.output)}
    wanted = [["batch", task.num_channels, task.image_px, task.image_px]]
    kept = found[DETECTION_OUTPUTS[1]][1:2] if task.kind == "detection" else []
    if task.kind == "detection":
        wanted += [["batch", *kept, 4], ["batch", *kept], ["batch", *kept], ["batch", *kept, MASK_PX, MASK_PX]]
    elif CLASSES in found:
        wanted += [["batch", task.image_px, task.image_px]]
    else:
        wanted += [["batch", num_classes, *found[LOGITS][2:]]]
    told = dict(zip(found, wanted, strict=True))
    fixed = all(isinstance(dim, int) for dims in found.values() for dim in dims[1:])
    if found != told or not fixed:
        shown = "; ".join(f"{name} {dims}" for name, dims in found.items())
        asked = "; ".join(f"{name} {dims}" for name, dims in told.items())
        raise UserError(f"the exported graph has {shown}; wanted {asked}, and nothing free but the batch; look at what the model returns")
    assert proto.graph.input[0].name == INPUT_NAME


def _dims(item: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
