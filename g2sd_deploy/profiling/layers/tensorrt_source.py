"""Layers by TensorRT's profiler, which tells the time of each, and its inspector, which tells what each is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.layers.executed import ExecutedLayer
from g2sd_deploy.profiling.layers.onnxruntime_source import middle_mean
from g2sd_deploy.profiling.layers.subjects import Running
from g2sd_export.tensorrt_layers import EngineLayer, Operand, layers_from_json

_BITS = {"fp32": 32, "int32": 32, "int64": 64, "fp16": 16, "bf16": 16, "int8": 8, "uint8": 8, "fp8": 8, "bool": 8, "int4": 4, "fp4": 4}
_WARM_CALLS = 3
_MB = 1e6


class TensorRTProbe:
    """An engine whose execution context reports to a profiler.

    Args:
        running: With a TensorRT runner, whose context is watched from now on.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._times: dict[str, list[float]] = {}
        self._runner = running.runner
        self._watch = _profiler_of(self._runner.trt, self._times)

    def call(self) -> None:
        """One batch; TensorRT reports when it is done."""
        self._runner.watched_by(self._watch)
        try:
            self._running.call()
        finally:
            self._runner.watched_by(None)

    def layers(self) -> list[ExecutedLayer]:
        """Layers in the order of execution.

        Raises:
            UserError: The engine was built without the details of its layers.
        """
        told = layers_from_json(self._runner.inspected())
        if not told:
            raise UserError("the engine tells nothing of its layers; build it again here, with the details that the exporter asks for")
        return [self._layer(layer, told[number + 1 :]) for number, layer in enumerate(told)]

    def _layer(self, layer: EngineLayer, behind: Sequence[EngineLayer]) -> ExecutedLayer:
        times = self._times.get(layer.name, [])
        counted = times[_WARM_CALLS:] or times
        operands = (*layer.inputs, *(layer.constants or ()), *layer.outputs)
        return ExecutedLayer(
            name=layer.name,
            op=layer.kind,
            precision=_precision(layer),
            ms=middle_mean(counted) if counted else 0.0,
            mbyte=sum(_bytes_of(operand) for operand in operands) / _MB,
            nodes=layer.nodes,
            feeds=(behind[0].name,) if behind else (),
        )


def _profiler_of(trt: Any, times: dict[str, list[float]]) -> Any:
    class Watch(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    return Watch()


def _precision(layer: EngineLayer) -> str:
    """Of the first matrix that comes in."""
    matrices = [operand for operand in (*layer.inputs, *(layer.constants or ())) if operand.is_matrix]
    return matrices[0].precision if matrices else ""


def _bytes_of(operand: Operand) -> float:
    return max(0, math.prod(operand.shape)) * _BITS.get(operand.precision, 32) / 8
