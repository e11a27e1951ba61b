"""What the activations of a float graph look like on real images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ..edge.errors import UserError
from .feeding import feed_of

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import HistogramCollector

Calibrator = Literal["minmax", "percentile", "entropy"]
Range = tuple[float, float]

# Images whose activations are held in memory at a time: those of a ViT-S/16 take 45 MiB each.
_CHUNK = 4

# The library's own defaults: 128 bins leave entropy nothing to choose from, and 2048 take it minutes for a network.
_BINS = {"percentile": 2048, "entropy": 512}
_PERCENTILE = 99.99
_QUANTISED_BINS = 128


def observed(
    model: onnx.ModelProto, tensors: Collection[str], images: npt.NDArray[np.uint8]
) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    """Run the graph and look at tensors inside it.

    Args:
        model: A float graph.
        tensors: Names of what to look at.
        images: uint8 [N, H, W, C].

    Yields:
        Name to value, for a few images at a time.

    Raises:
        UserError: There are no images, or an activation is NaN or infinite.
    """
    import onnx
    import onnxruntime

    if not len(images):
        raise UserError("calibration: there are no images; wanted at least one")
    names = sorted(set(tensors) - {model.graph.input[0].name})
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    told = {item.name for item in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in told)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = feed_of(model)
    for start in range(0, len(images), _CHUNK):
        inputs = feed.of(images[start : start + _CHUNK])
        found = dict(zip(names, session.run(names, inputs), strict=True))
        if feed.name in tensors:
            found[feed.name] = inputs[feed.name]
        for name, value in found.items():
            if not np.isfinite(value).all():
                raise UserError(f"the float file gives NaN or infinity in {name!r} on a calibration image; quantise a sound model")
        yield found


def activation_ranges(
    model: onnx.ModelProto, tensors: Collection[str], images: npt.NDArray[np.uint8], calibrators: Sequence[Calibrator]
) -> dict[Calibrator, dict[str, Range]]:
    """Lowest and highest value of each tensor that a quantiser should represent.

    Args:
        model: A float graph.
        tensors: Names of float activations.
        images: uint8 [N, H, W, C].
        calibrators: "minmax" takes the extremes, "percentile" leaves out 0.01 % of the values, "entropy" minimises the divergence
            of the quantised histogram, as TensorRT's calibrator did. The graph is run once for all.

    Returns:
        Calibrator to name to (low, high).

    Raises:
        UserError: There are no images, or an activation is NaN or infinite.
    """
    collectors = {kind: _collector(kind) for kind in calibrators if kind != "minmax"}
    extremes: dict[str, Range] = {}
    for values in observed(model, tensors, images):
        for name, value in values.items():
            low, high = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = min(low, float(value.min())), max(high, float(value.max()))
        with _silence():
            for collector in collectors.values():
                collector.collect(values)
    found: dict[Calibrator, dict[str, Range]] = {}
    for kind in calibrators:
        if kind == "minmax":
            found[kind] = extremes
        else:
            with _silence():
                results = collectors[kind].compute_collection_result()
            found[kind] = {name: (float(result[0]), float(result[1])) for name, result in results.items()}
    return found


def channel_maxima(model: onnx.ModelProto, tensors: Collection[str], images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """Largest magnitude of each channel (the last axis) of each tensor.

    Raises:
        UserError: There are no images, or an activation is NaN or infinite.
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    for values in observed(model, tensors, images):
        for name, value in values.items():
            largest = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0)
            found[name] = np.maximum(found.get(name, largest), largest)
    return found


def _collector(kind: Calibrator) -> HistogramCollector:
    from onnxruntime.quantization.calibrate import HistogramCollector

    return HistogramCollector(kind, False, _BINS[kind], _QUANTISED_BINS, _PERCENTILE, "same")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The library prints, and divides by the zero counts of empty bins."""
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(divide="ignore", invalid="ignore"):
        yield
