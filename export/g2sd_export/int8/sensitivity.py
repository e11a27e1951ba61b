"""Which layers eight bits hurt: measured one by one, so that the few that matter can stay in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..edge.errors import UserError
from .feeding import feed_of
from .observing import Calibrator
from .packing import Scheme
from .qdq import with_qdq
from .quantise import ACTIVATIONS, Images, Source, Tick

if TYPE_CHECKING:
    import onnx

_BATCH = 16


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one group of layers alone does.

    Attributes:
        group: Its name, as ``candidates`` takes it in ``keep``.
        error: Root mean square of the change of the logits, over that of the float logits; both without their mean over the classes,
            which changes no probability.
        flipped: Share of images in [0, 1] whose decision changed.
    """

    group: str
    error: float
    flipped: float


def sensitivities(
    source: Source,
    images: Images,
    *,
    scheme: Scheme,
    calibrator: Calibrator = "percentile",
    tick: Tick | None = None,
) -> list[Sensitivity]:
    """Quantise each group of layers of a classifier alone and compare the answers with the float model's.

    Args:
        source: The float model with its calibration images.
        images: uint8 [N, H, W, C] to ask both about, of the training set; a few dozen do.
        scheme: Who computes.
        calibrator: How ranges are chosen.
        tick: Told (done, total, group).

    Returns:
        As ``costs_of_groups``; the error is that of ``relative_error``, infinite for NaN or infinite answers.

    Raises:
        UserError: There are no images, or the float model gives the same answer for every class.
    """
    if not len(images):
        raise UserError("sensitivity: there are no images; wanted at least one")
    reference = logits_of(source.model, images)

    def cost(model: onnx.ModelProto) -> tuple[float, float]:
        answers = logits_of(model, images)
        return relative_error(reference, answers), float((answers.argmax(axis=1) != reference.argmax(axis=1)).mean())

    return costs_of_groups(source, cost, scheme=scheme, calibrator=calibrator, tick=tick)


def costs_of_groups(
    source: Source,
    cost: Callable[[onnx.ModelProto], tuple[float, float]],
    *,
    scheme: Scheme,
    calibrator: Calibrator = "percentile",
    tick: Tick | None = None,
) -> list[Sensitivity]:
    """Quantise each group of layers alone and ask what that costs.

    Args:
        source: The float model with its calibration images.
        cost: From a quantised graph to its error and the share of decisions that it changes; squares of errors should add up.
        scheme: Who computes.
        calibrator: How ranges are chosen.
        tick: Told (done, total, group).

    Returns:
        One for each group, the worst first.
    """
    ranges = source.ranges(calibrator)[calibrator]
    groups = source.groups
    found = []
    for done, group in enumerate(groups):
        if tick is not None:
            tick(done, len(groups), group)
        others = [*source.always_float, *(other for other in groups if other != group)]
        found.append(Sensitivity(group, *cost(with_qdq(source.model, ranges, activations=ACTIVATIONS[scheme], keep=others))))
    if tick is not None:
        tick(len(groups), len(groups), "")
    return sorted(found, key=lambda each: (-each.error, each.group))


def relative_error(reference: npt.NDArray[np.floating], answers: npt.NDArray[np.floating]) -> float:
    """Root mean square change of logits, in units of that of the reference; both centred per image.

    Raises:
        UserError: The reference's logits do not differ between the classes, or are not finite.
    """
    one, other = (value.astype(np.float64) - value.astype(np.float64).mean(axis=1, keepdims=True) for value in (reference, answers))
    size = float(np.sqrt(np.mean(one**2)))
    if not np.isfinite(size) or size == 0:
        raise UserError("sensitivity: the float model gives NaN or one and the same logit for every class; wanted a trained model")
    change = float(np.sqrt(np.mean((other - one) ** 2)))
    return change / size if np.isfinite(change) else float("inf")


def worst(found: Sequence[Sensitivity], most: int) -> tuple[str, ...]:
    """The groups to keep in float first, at most ``most``; those after which little is left to gain are not among them.

    A group counts while it holds at least a hundredth of what all groups' squared errors add up to.
    """
    total = sum(each.error**2 for each in found)
    return tuple(each.group for each in found[:most] if each.error**2 >= total / 100)


def logits_of(model: onnx.ModelProto, images: Images) -> npt.NDArray[np.float32]:
    """The answers of a classifier's graph, float32 [N, num_classes]; as ``outputs_of``."""
    logits: npt.NDArray[np.float32] = outputs_of(model, images)[0]
    return logits


def outputs_of(model: onnx.ModelProto, images: Images, *, batch_size: int = _BATCH) -> tuple[npt.NDArray[Any], ...]:
    """Ask a graph in ONNX Runtime on the CPU.

    Args:
        model: Float or quantised.
        images: uint8 [N, H, W, C], N at least 1.
        batch_size: Images per call.

    Returns:
        Each of its outputs, of all images.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if any(item.data_type == model.graph.initializer[0].FLOAT8E4M3FN for item in model.graph.initializer):
        # Its rewrites move a Transpose between Q and DQ, and its CPU has none for eight-bit floats.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = feed_of(model)
    parts = [session.run(None, feed.of(images[at : at + batch_size])) for at in range(0, len(images), batch_size)]
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))
