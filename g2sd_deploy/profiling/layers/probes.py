"""A second copy of a model that tells the time of each layer, opened with the settings of the one that is timed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.layers.executed import ExecutedLayer
from g2sd_deploy.profiling.layers.graph import unique_names
from g2sd_deploy.profiling.layers.subjects import LayerSubject, Running, probed_model

WARM_CALLS = 3
_CPU_PROVIDER = "CPUExecutionProvider"


class Probe(Protocol):
    """A model under a profiler."""

    def call(self) -> None:
        """One batch."""
        ...

    def layers(self) -> list[ExecutedLayer]:
        """What the profiler tells of the calls so far; nothing is called afterwards."""
        ...


@contextmanager
def open_probe(subject: LayerSubject, running: Running, threads: int) -> Iterator[Probe]:
    """The subject under its runtime's profiler.

    Args:
        subject: The model.
        running: The copy that is timed.
        threads: Of a runtime on the CPU.

    Raises:
        UserError: The runtime has no profiler that tells the time of layers.
    """
    match subject.runtime:
        case "onnxruntime":
            with tempfile.TemporaryDirectory() as folder:
                yield _OnnxRuntimeProbe(subject, running, threads, folder)
        case "openvino":
            yield _OpenVINOProbe(subject, running, threads)
        case "tensorrt" | "tensorrt_rtx":
            from g2sd_deploy.profiling.layers.tensorrt_source import TensorRTProbe

            yield TensorRTProbe(running)
        case _:
            raise UserError(f"{subject.runtime} has no profiler here that tells layers; look at the ONNX file of this model on onnxruntime")


class _OnnxRuntimeProbe:
    def __init__(self, subject: LayerSubject, running: Running, threads: int, folder: str) -> None:
        from g2sd_export.edge.onnx_runner import OPTIMISED_GRAPH, open_session

        provider = subject.settings.get("provider", _CPU_PROVIDER)
        if provider != _CPU_PROVIDER:
            raise UserError(f"ONNX Runtime's profiler sees the launches of {provider}'s kernels and not their work")
        _, self._session = open_session(_with_names(subject.graph), threads, provider, folder, traced=True)
        self._feeds = dict(running.feeds)
        self._optimised = Path(folder, OPTIMISED_GRAPH)

    def call(self) -> None:
        self._session.run(None, self._feeds)

    def layers(self) -> list[ExecutedLayer]:
        from g2sd_deploy.profiling.layers.onnxruntime_source import layers_of_profile

        return layers_of_profile(Path(self._session.end_profiling()), self._optimised, skip=WARM_CALLS)


def _with_names(graph: Path | bytes) -> Path | bytes:
    """The file, where its nodes have names of their own; else its content with such names, by which alone the profiler tells of them."""
    import onnx

    model = onnx.load_model_from_string(graph if isinstance(graph, bytes) else graph.read_bytes())
    names = unique_names(model.graph)
    if all(node.name == name for node, name in zip(model.graph.node, names, strict=True)):
        return graph
    if any(item.external_data for item in model.graph.initializer):
        return graph  # its weights are found from where it lies alone
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    content: bytes = model.SerializeToString()
    return content


class _OpenVINOProbe:
    def __init__(self, subject: LayerSubject, running: Running, threads: int) -> None:
        from g2sd_export.edge.openvino_runner import compile_model

        self._feeds = dict(running.feeds)
        precision = subject.settings["inference_precision"]
        model = probed_model(subject.graph, running.feeds)
        self._compiled = compile_model(model, threads=threads, inference_precision=precision, counters=True)
        self._request = self._compiled.create_infer_request()

    def call(self) -> None:
        self._request.infer(self._feeds, share_inputs=True)

    def layers(self) -> list[ExecutedLayer]:
        from g2sd_deploy.profiling.layers.openvino_source import layers_of_request

        return layers_of_request(self._compiled, self._request)
