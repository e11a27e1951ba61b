"""From a torch classifier to one ONNX file that says how it wants its images."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .edge.errors import UserError
from .edge.files import record_of, write_whole
from .edge.preprocess import Preprocessing
from .edge.runner import INPUT_NAME, OUTPUT_NAME
from .onnx_graph import fold_constants

if TYPE_CHECKING:
    import onnx
    import torch

# 20 is the first opset with a Gelu operator and the last that TensorRT 10.3 (JetPack 6) reads; 23's Attention was no faster on a CPU.
DEFAULT_OPSET = 20

# Tracing with 1 would let the exporter take the batch for a constant or for a broadcast.
_TRACED_BATCH = 2

# One protobuf message holds at most 2 GiB; a larger model would need its weights in a second file.
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxInfo:
    """What was written.

    Attributes:
        path: The file.
        sha256: Digest of its content; the same model gives the same digest.
        bytes: Its size.
        opset: Version of the ONNX operator set.
        num_classes: Length of a row of logits.
    """

    path: Path
    sha256: str
    bytes: int
    opset: int
    num_classes: int


def export_onnx(
    model: torch.nn.Module,
    *,
    image_px: int,
    num_channels: int,
    path: Path,
    opset: int = DEFAULT_OPSET,
    metadata: Mapping[str, str] | None = None,
) -> OnnxInfo:
    """Write a classifier as a single ONNX file whose batch size is free.

    Args:
        model: float32 [B, C, H, W] normalised images to logits [B, num_classes]; exported as in evaluation, left in the
            mode (training or evaluation, module by module) in which it came.
        image_px: H and W.
        num_channels: C.
        path: The file to write, whole or not at all.
        opset: Version of the ONNX operator set.
        metadata: Written to the file's ``metadata_props``; see ``model_metadata``.

    Returns:
        Digest, size and shapes of the file, which has input ``images`` and output ``logits``.

    Raises:
        UserError: The model does not map a batch of images to a batch of logits, fixes the batch size, or exceeds 2 GiB.
    """
    with _evaluation_mode(model):
        _refuse_other_than_logits(model, _traced_images(model, image_px=image_px, num_channels=num_channels))
    proto = traced_graph(model, image_px=image_px, num_channels=num_channels, outputs=(OUTPUT_NAME,), opset=opset)
    _check_shapes(proto, image_px=image_px, num_channels=num_channels)
    return write_onnx(proto, path, metadata=metadata or {})


def traced_graph(
    model: torch.nn.Module, *, image_px: int, num_channels: int, outputs: Sequence[str], opset: int = DEFAULT_OPSET
) -> onnx.ModelProto:
    """A network as a graph whose batch size is free, without the exporter's notes and with constants computed.

    Args:
        model: float32 [B, C, H, W] normalised images to a tensor, or a tuple of them, whose first dimension is B; exported as in
            evaluation, left in the mode in which it came.
        image_px: H and W.
        num_channels: C.
        outputs: Names of what it gives, in order.
        opset: Version of the ONNX operator set.

    Returns:
        The graph, with input ``images``.
    """
    import torch

    with _evaluation_mode(model), torch.no_grad(), warnings.catch_warnings(), _without_remarks():
        warnings.filterwarnings("ignore", module="torchvision")  # of names inside torch that will change
        program = torch.onnx.export(
            model,
            (_traced_images(model, image_px=image_px, num_channels=num_channels),),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip_traces(proto)
    fold_constants(proto)
    return proto


def write_onnx(proto: onnx.ModelProto, path: Path, *, metadata: Mapping[str, str]) -> OnnxInfo:
    """Check a classifier's graph and write it.

    Args:
        proto: The model; its metadata is replaced by ``metadata``.
        path: The file to write, whole or not at all.
        metadata: Written to the file's ``metadata_props``, by key.

    Returns:
        Digest, size and shapes of the file; the same graph and metadata give the same digest.

    Raises:
        UserError: The model exceeds 2 GiB.
    """
    import onnx

    if proto.ByteSize() > _MAX_BYTES:
        raise UserError(
            f"the model takes {proto.ByteSize() / 2**30:.1f} GiB; a single ONNX file holds at most 2 GiB; choose a smaller student"
        )
    onnx.checker.check_model(proto, full_check=True)
    del proto.metadata_props[:]
    for key, value in sorted(metadata.items()):
        proto.metadata_props.add(key=key, value=value)
    write_whole(path, proto.SerializeToString(deterministic=True))
    record = record_of(path)
    opset = next(item.version for item in proto.opset_import if item.domain in ("", "ai.onnx"))
    num_classes = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return OnnxInfo(path=path, sha256=record.sha256, bytes=record.bytes, opset=opset, num_classes=num_classes)


def model_metadata(preprocessing: Preprocessing, class_names: Sequence[str], *, weights_sha256: str, recipe: str) -> dict[str, str]:
    """What makes an ONNX file usable on its own.

    Args:
        preprocessing: How the model wants its images.
        class_names: One per logit, in order.
        weights_sha256: Digest of the weights file that was exported.
        recipe: Name of the recipe that made the model.

    Returns:
        Strings for ``export_onnx``: ``preprocessing`` and ``class_names`` are JSON; ``precision`` and ``input`` describe the file
        that ``export_onnx`` writes, and the passes that derive a file from it put their own there.
    """
    return {
        "precision": "fp32",
        "input": "float32 NCHW, normalised as in preprocessing",
        "preprocessing": json.dumps(preprocessing.to_dict()),
        "class_names": json.dumps(list(class_names), ensure_ascii=False),
        "weights_sha256": weights_sha256,
        "recipe": recipe,
        "torch": version("torch"),
        "onnx": version("onnx"),
        "onnxscript": version("onnxscript"),
    }


def count_parameters(content: bytes) -> int:
    """Weights stored in an ONNX file.

    Args:
        content: The file's bytes.

    Returns:
        Floating-point numbers in its initialisers: the parameters, give or take a few constants. Tensors that are equal to
        the last bit, such as norms that were never trained, are stored and counted once.
    """
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    initialisers = onnx.load_model_from_string(content).graph.initializer
    eight_bits = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT8E4M3FN)  # matrices; zero points are smaller
    return sum(
        math.prod(item.dims) for item in initialisers if item.data_type in floats or (item.data_type in eight_bits and len(item.dims) > 1)
    )


@contextmanager
def _without_remarks() -> Iterator[None]:
    """What the exporter's library remarks on its own nodes (empty lists of attributes) is nothing that a person could change."""
    logger = logging.getLogger("onnx_ir._convenience")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _traced_images(model: torch.nn.Module, *, image_px: int, num_channels: int) -> torch.Tensor:
    import torch

    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return torch.zeros(_TRACED_BATCH, num_channels, image_px, image_px, device=device)


def _refuse_other_than_logits(model: torch.nn.Module, images: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        try:
            shape = list(model(images).shape)
        except (RuntimeError, AssertionError) as error:  # timm asserts the image size
            raise UserError(f"the model refuses images of shape {list(images.shape)}: {error}") from error
    if len(shape) != 2 or shape[0] != _TRACED_BATCH:
        raise UserError(f"the model maps {_TRACED_BATCH} images to shape {shape}; wanted logits of shape [{_TRACED_BATCH}, num_classes]")


def _strip_traces(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold source lines and paths of the machine that exported."""
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _check_shapes(proto: onnx.ModelProto, *, image_px: int, num_channels: int) -> None:
    inputs = {item.name: _dims(item) for item in proto.graph.input}
    outputs = {item.name: _dims(item) for item in proto.graph.output}
    assert list(inputs) == [INPUT_NAME] and list(outputs) == [OUTPUT_NAME]
    wanted = ["batch", num_channels, image_px, image_px]
    logits = outputs[OUTPUT_NAME]
    if inputs[INPUT_NAME] != wanted or logits[0] != "batch" or not isinstance(logits[1], int):
        found = f"the exported graph maps {inputs[INPUT_NAME]} to {logits}; wanted {wanted} to ['batch', num_classes]"
        raise UserError(f"{found}; look in the model for a number where images.shape[0] belongs")


def _dims(item: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
