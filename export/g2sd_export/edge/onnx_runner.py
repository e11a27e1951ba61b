"""ONNX Runtime behind the interface that accuracy, parity and latency share."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .image_input import ImageInput, Layout, as_logits, choose_output, filled_up, in_parts, read_image_input
from .preprocess import Preprocessing
from .runner import Choices, available_cpus

Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]

OPTIMISED_GRAPH = "optimised.onnx"
"""Name of the file in which a traced session leaves the graph that it runs."""

_ORT_LOG_ERROR = 3  # ONNX Runtime's scale: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal
_CPU = "CPUExecutionProvider"
# Parts of the names of operators that do the work; shapes and the like belong on the CPU even where a GPU computes.
_WORK = ("MatMul", "Gemm", "Conv", "Attention")
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


class OnnxRunner:
    """An ONNX classifier on ONNX Runtime; ``infer`` may be called by several threads at once.

    Args:
        model: Path of the .onnx file, or its bytes (a caller that checked a digest passes the bytes it checked).
        preprocessing: How the model wants its images; compared with the graph's input shape.
        threads: Threads inside an operator; None takes one per CPU this process may use.
        provider: The execution provider to run on; no other one is fallen back to.
        choices: What the file leaves open; nothing for a file of ours.

    Attributes:
        metadata: What the file says of itself, by key.
        output_names: Of every output, in the order of ``run_all``.

    Raises:
        UserError: ONNX Runtime is absent, the file cannot be loaded, the graph does not fit ``preprocessing``, or the
            provider is not available.
    """

    name = "onnxruntime"

    def __init__(
        self,
        model: Path | bytes,
        preprocessing: Preprocessing,
        *,
        threads: int | None = None,
        provider: Provider = "CPUExecutionProvider",
        choices: Choices = Choices(),  # noqa: B008 (frozen)
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; it must be at least 1")
        self.preprocessing = preprocessing
        self.threads = threads or available_cpus()
        self.provider = provider
        with tempfile.TemporaryDirectory() as folder:
            self.version, self._session = open_session(model, self.threads, provider, folder)
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
            self.image_input = _image_input_of(self._session, choices.layout)
            self.image_input.check(preprocessing)
            self.output_names = tuple(str(item.name) for item in self._session.get_outputs())
            self._output, num_classes = ("", 0) if choices.every else _logits_of(self._session, choices.output)
            self._probabilities = choices.probabilities
            self.num_classes: int = self._counted_classes() if num_classes is None else num_classes
            if provider != _CPU:
                self.run_all(filled_up(self.prepare(self._blank()), self.image_input.batch or 1))
                refuse_work_on_the_cpu(json.loads(Path(self._session.end_profiling()).read_bytes()), provider)

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 [B, H, W, C] to the network's input: normalised or not, its channels where the file wants them."""
        return self.image_input.prepared(images, self.preprocessing)

    def forward(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """What ``prepare`` gave to float32 logits [B, num_classes]; a fixed batch size is met by parts that are filled up."""
        batch = self.image_input.batch
        if batch is None:
            return self._run(inputs)
        return in_parts(inputs, batch, lambda part: self._run(filled_up(part, batch))[: len(part)])

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]."""
        return self.forward(self.prepare(images))

    def run_all(self, inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """What ``prepare`` gave to every output as it is; the batch has to be the one that the file takes."""
        return self._outputs_of(inputs, self.output_names)

    def _run(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        (found,) = self._outputs_of(inputs, (self._output,))
        return as_logits(found, probabilities=self._probabilities)

    def _outputs_of(self, inputs: npt.NDArray[Any], names: Sequence[str]) -> tuple[npt.NDArray[Any], ...]:
        found = self._session.run(list(names), {self.image_input.name: inputs})
        _refuse_another_provider(self._session, self.provider, "ran on")  # ONNX Runtime may change it when a run fails
        return tuple(found)

    def _counted_classes(self) -> int:
        """Length of a row of logits where the graph does not say it."""
        return int(self.infer(self._blank()).shape[1])

    def _blank(self) -> npt.NDArray[np.uint8]:
        pre = self.preprocessing
        return np.zeros((1, pre.image_px, pre.image_px, pre.num_channels), np.uint8)


def refuse_work_on_the_cpu(profile: Iterable[Mapping[str, Any]], provider: str) -> None:
    """Raise UserError if ONNX Runtime gave work to its CPU provider, which it does without a word where another one lacks an operator.

    Args:
        profile: Events of a profiled run, as ONNX Runtime writes them.
        provider: The provider that was asked for.
    """
    nodes = [event["args"] for event in profile if event.get("cat") == "Node" and "provider" in event.get("args", {})]
    strayed = sorted({node["op_name"] for node in nodes if node["provider"] == _CPU and any(part in node["op_name"] for part in _WORK)})
    if strayed or not any(node["provider"] == provider for node in nodes):
        what = f"left {', '.join(strayed)} to {_CPU}" if strayed else "ran nothing on it"
        raise UserError(f"asked for {provider} and ONNX Runtime {what}; install the runtime and drivers that {provider} needs")


def open_session(model: Path | bytes, threads: int, provider: Provider, folder: str, *, traced: bool = False) -> tuple[str, Any]:
    """Version of ONNX Runtime, and a session on one provider and no other.

    Args:
        model: Path of the .onnx file, or its bytes.
        threads: Threads inside an operator.
        provider: The execution provider; where it is not the CPU's, the session writes a profile for ``refuse_work_on_the_cpu``.
        folder: Where that profile is written.
        traced: Also on the CPU, write a profile, and the graph as it was optimised (``OPTIMISED_GRAPH``).

    Raises:
        UserError: ONNX Runtime is absent or does not have the provider, or the file cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"ONNX Runtime cannot be imported ({error}); install it with: pip install onnxruntime") from error
    name = "the ONNX model in memory" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not model.is_file():
        raise UserError(f"{name}: no such ONNX file")
    if provider not in onnxruntime.get_available_providers():
        have = ", ".join(onnxruntime.get_available_providers())
        raise UserError(f"ONNX Runtime {onnxruntime.__version__} has no {provider} on this machine; it offers {have}")
    onnxruntime.set_default_logger_severity(_ORT_LOG_ERROR)  # device discovery warns on machines without a GPU
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ORT_LOG_ERROR
    options.intra_op_num_threads = threads  # explicit: the default also pins threads, which containers refuse noisily
    options.inter_op_num_threads = 1
    options.enable_profiling = traced or provider != _CPU
    options.profile_file_prefix = str(Path(folder, "profile"))
    if traced:
        options.optimized_model_filepath = str(Path(folder, OPTIMISED_GRAPH))
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # the runtime's own exception types share no public base class
        raise UserError(f"{name}: ONNX Runtime {onnxruntime.__version__} cannot load it ({' '.join(str(error).split())})") from error
    session.disable_fallback()
    _refuse_another_provider(session, provider, "chose")
    return str(onnxruntime.__version__), session


def _refuse_another_provider(session: Any, provider: Provider, did: str) -> None:
    if (active := session.get_providers()[0]) != provider:
        raise UserError(f"asked for {provider} and ONNX Runtime {did} {active}; install the runtime and drivers that {provider} needs")


def _image_input_of(session: Any, layout: Layout | None) -> ImageInput:
    inputs = {item.name: (item.type, list(item.shape)) for item in session.get_inputs()}
    if len(inputs) != 1:
        raise UserError(f"the ONNX model takes {len(inputs)} inputs ({', '.join(inputs)}); wanted one, of images")
    ((name, (kind, shape)),) = inputs.items()
    return read_image_input(name, shape, layout, _DTYPES.get(kind, kind))


def _logits_of(session: Any, asked: str | None) -> tuple[str, int | None]:
    outputs = {item.name: (item.type, list(item.shape)) for item in session.get_outputs()}
    name = choose_output({name: shape for name, (_, shape) in outputs.items()}, asked)
    kind, shape = outputs[name]
    if kind not in ("tensor(float)", "tensor(float16)"):
        raise UserError(f"the ONNX model's output {name!r} is a {kind}; wanted tensor(float) of shape [batch, num_classes]")
    return name, shape[1] if isinstance(shape[1], int) else None
