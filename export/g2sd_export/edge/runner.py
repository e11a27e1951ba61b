"""One interface for everything that predicts, and the ONNX Runtime behind it.

Accuracy, robustness, parity and latency all take a ``Runner``, so the number that is reported belongs to the file that ships.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .preprocess import Preprocessing, normalise

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider"]

_ORT_LOG_ERROR = 3  # ONNX Runtime's scale: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal


@runtime_checkable
class Runner(Protocol):
    """Something that turns images into logits."""

    @property
    def name(self) -> str:
        """The runtime, for example ``onnxruntime``."""
        ...

    @property
    def version(self) -> str:
        """Version of the runtime."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How this model wants its images."""
        ...

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to the network's float32 [B, C, H, W]."""
        ...

    def forward(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [B, C, H, W] to float32 logits [B, num_classes]; returns when the work is done."""
        ...

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]."""
        ...


class OnnxRunner:
    """An ONNX classifier on ONNX Runtime.

    Args:
        model: Path of the .onnx file, or its bytes (a caller that checked a digest passes the bytes it checked).
        preprocessing: How the model wants its images; compared with the graph's input shape.
        threads: Threads inside an operator; None takes one per CPU this process may use.
        provider: The execution provider to run on; no other one is fallen back to.

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
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; it must be at least 1")
        self.preprocessing = preprocessing
        self.threads = threads or available_cpus()
        self.provider = provider
        self.version, self._session = _open_session(model, self.threads, provider)
        self.num_classes = _checked_num_classes(self._session, preprocessing)

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to the network's float32 [B, C, H, W]."""
        return normalise(images, self.preprocessing)

    def forward(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [B, C, H, W] to float32 logits [B, num_classes]."""
        (logits,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: inputs})
        return np.asarray(logits, dtype=np.float32)

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]."""
        return self.forward(self.prepare(images))


def describe(runner: Runner) -> str:
    """Runtime, version and, where there is a choice of it, provider: ``onnxruntime 1.31.1 CPUExecutionProvider``."""
    return " ".join(part for part in (runner.name, runner.version, getattr(runner, "provider", "")) if part)


def available_cpus() -> int:
    """CPUs this process may run on (a container's affinity counts, the machine's total does not)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open_session(model: Path | bytes, threads: int, provider: Provider) -> tuple[str, Any]:
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
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # the runtime's own exception types share no public base class
        raise UserError(f"{name}: ONNX Runtime {onnxruntime.__version__} cannot load it ({' '.join(str(error).split())})") from error
    if (active := session.get_providers()[0]) != provider:
        raise UserError(
            f"{name}: asked for {provider} and ONNX Runtime chose {active}; install the runtime and drivers that {provider} needs"
        )
    return str(onnxruntime.__version__), session


def _checked_num_classes(session: Any, pre: Preprocessing) -> int:
    inputs = {item.name: (item.type, list(item.shape)) for item in session.get_inputs()}
    outputs = {item.name: (item.type, list(item.shape)) for item in session.get_outputs()}
    wanted = [pre.num_channels, pre.image_px, pre.image_px]
    kind, shape = inputs.get(INPUT_NAME, ("", []))
    if len(inputs) != 1 or kind != "tensor(float)" or shape[1:] != wanted:
        raise UserError(
            f"the ONNX model takes {inputs}; wanted one float input {INPUT_NAME!r} of shape [batch, {', '.join(map(str, wanted))}]"
        )
    kind, shape = outputs.get(OUTPUT_NAME, ("", []))
    if kind != "tensor(float)" or len(shape) != 2 or not isinstance(shape[1], int):
        raise UserError(f"the ONNX model gives {outputs}; wanted a float output {OUTPUT_NAME!r} of shape [batch, num_classes]")
    return shape[1]
