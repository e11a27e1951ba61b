"""Outliers of a few channels moved from the activations into the weights, where each output channel has a scale of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..onnx_graph import Graph
from .graph import Product, array_of, products, set_array
from .observing import channel_maxima

if TYPE_CHECKING:
    import onnx

# Factors outside are a channel that is dead on the calibration images, not an outlier.
_FACTORS = (1e-2, 1e2)


def smoothed(model: onnx.ModelProto, images: npt.NDArray[np.uint8], *, strength: float = 0.5) -> onnx.ModelProto:
    """The same function with flatter inputs to the products that follow a LayerNormalization.

    Channel j of a norm's output is divided by ``s_j = max|x_j|^a / max|w_j|^(1-a)`` (brought to a geometric mean of 1) and row j of the
    weights is multiplied by it. The division goes into the norm's scale and bias, so no operator is added.

    Args:
        model: A prepared float graph; not changed.
        images: uint8 [N, H, W, C], to find the outliers.
        strength: a, in [0, 1]: 0 flattens the weights, 1 the activations.

    Returns:
        A new graph; equal to the old up to rounding.

    Raises:
        ValueError: ``strength`` is outside [0, 1].

    Source: SmoothQuant, arXiv 2211.10438, equation 4.
    """
    import onnx

    if not 0 <= strength <= 1:
        raise ValueError(f"smoothing: strength is {strength}; wanted a number in [0, 1]")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    pairs = _foldable(result.graph)
    maxima = channel_maxima(model, [norm.output[0] for norm, _ in pairs], images) if pairs else {}
    for norm, readers in pairs:
        _migrate(result.graph, norm, readers, maxima[norm.output[0]], strength)
    return result


def _foldable(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, list[Product]]]:
    """Norms over the last axis with scale and bias whose every reader is a product with constant weights."""
    consumers = Graph(graph).consumers
    by_name = {product.name: product for product in products(graph)}
    told = {item.name for item in graph.output}
    found = []
    for node in graph.node:
        if node.op_type == "LayerNormalization" and len(node.input) == 3 and node.output[0] not in told:
            readers = consumers.get(node.output[0], [])
            reading = [by_name.get(reader.name) for reader in readers if reader.op_type in ("MatMul", "Gemm")]
            fitting = [product for product in reading if product and product.weight and set(product.activations) == {0}]
            if fitting and len(fitting) == len(readers):
                found.append((node, fitting))
    return found


def _migrate(
    graph: onnx.GraphProto, norm: onnx.NodeProto, readers: list[Product], largest: npt.NDArray[np.float32], strength: float
) -> None:
    weights = []
    for product in readers:
        assert product.weight is not None
        value = array_of(graph, product.weight[1]).astype(np.float64)
        weights.append(value if product.channel_axis == 1 else value.T)  # [in, out]
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factor = smoothing_factors(largest, rows, strength)
    for name in norm.input[1:]:
        set_array(graph, name, (array_of(graph, name).astype(np.float64) / factor).astype(np.float32))
    for product, weight in zip(readers, weights, strict=True):
        assert product.weight is not None
        scaled = (weight * factor[:, None]).astype(np.float32)
        set_array(graph, product.weight[1], np.ascontiguousarray(scaled if product.channel_axis == 1 else scaled.T))


def smoothing_factors(activations: npt.NDArray[np.floating], weights: npt.NDArray[np.floating], strength: float) -> npt.NDArray[np.float64]:
    """Factor by which each channel's activations are divided and its weights multiplied.

    Args:
        activations: Largest magnitude of each channel.
        weights: Largest magnitude of the weights that read it.
        strength: In [0, 1].

    Returns:
        float64 [channels], geometric mean 1 over the channels that are neither dead nor unread, within [0.01, 100].
    """
    seen, read = (np.asarray(value, np.float64) for value in (activations, weights))
    alive = (seen > 0) & (read > 0)
    factor = np.ones_like(seen)
    if alive.any():
        raw = seen[alive] ** strength / read[alive] ** (1 - strength)
        factor[alive] = np.clip(raw / np.exp(np.log(raw).mean()), *_FACTORS)
    return factor
