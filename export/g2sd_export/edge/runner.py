"""One interface for everything that predicts, and the ONNX Runtime behind it.

Accuracy, robustness, parity and latency all take a ``Runner``, so the number that is reported belongs to the file that ships.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .preprocess import Preprocessing, normalise

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider"]
Layout = Literal["NCHW", "NHWC"]
"""Order of the input's dimensions: images, channels, rows, columns, or with the channels last."""
Dim = int | str | None
"""A dimension in a graph: a number above 0 is fixed, anything else is free."""

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
        """uint8 [B, H, W, C] to the network's float32 [B, C, H, W], or [B, H, W, C] for a network with the channels last."""
        ...

    def forward(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What ``prepare`` gave to float32 logits [B, num_classes]; returns when the work is done."""
        ...

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]; may be called by several threads at once."""
        ...


@dataclass(frozen=True)
class Choices:
    """What a file that is not ours may leave open.

    Attributes:
        output: Name of the output that holds the logits; None takes the only one with two dimensions.
        layout: Order of the input's dimensions; None reads it off the shape.
        probabilities: The output has gone through a softmax; its logarithm is then taken, whose softmax it is.
    """

    output: str | None = None
    layout: Layout | None = None
    probabilities: bool = False


@dataclass(frozen=True)
class ImageInput:
    """The input of a network; None for what is free.

    Attributes:
        name: Of the tensor.
        layout: Order of its dimensions.
        batch: Images at a time.
        num_channels: 1 (grey) or 3 (RGB).
        image_px: Side of the square image.
    """

    name: str
    layout: Layout
    batch: int | None
    num_channels: int | None
    image_px: int | None

    def check(self, pre: Preprocessing) -> None:
        """Raise UserError unless prepared images fit."""
        if self.num_channels not in (None, pre.num_channels) or self.image_px not in (None, pre.image_px):
            side = "any size" if self.image_px is None else f"{self.image_px} px"
            raise UserError(
                f"the model's input {self.name!r} takes images of {self.num_channels or 'any number of'} channels and {side}; "
                f"the preprocessing makes {pre.num_channels} channels and {pre.image_px} px"
            )

    def arranged(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32 [B, C, H, W] in this input's order, contiguous."""
        return images if self.layout == "NCHW" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def read_image_input(name: str, shape: Sequence[Dim], layout: Layout | None = None) -> ImageInput:
    """What kind of images an input takes.

    Args:
        name: Of the input.
        shape: Its dimensions, as the graph has them.
        layout: Order of the dimensions where it is known.

    Raises:
        UserError: It takes no square images of 1 or 3 channels, or the shape leaves open where the channels are.
    """
    dims = [dim if isinstance(dim, int) and dim > 0 else None for dim in shape]
    readings = []
    for order in ("NCHW", "NHWC") if layout is None and len(dims) == 4 else (layout,) if len(dims) == 4 else ():
        channels, rows, columns = (dims[order.index(letter)] for letter in "CHW")  # type: ignore[union-attr]
        if channels in (None, 1, 3) and (rows == columns or None in (rows, columns)):
            readings.append(ImageInput(name, order, dims[0], channels, rows or columns))  # type: ignore[arg-type]
    told = [reading for reading in readings if reading.num_channels is not None] or readings
    listed = ", ".join("free" if dim is None else str(dim) for dim in dims)
    if not told:
        wanted = "[batch, channels, side, side] or [batch, side, side, channels]" if layout is None else layout
        raise UserError(f"the model's input {name!r} has shape [{listed}]; wanted {wanted} with square images of 1 or 3 channels")
    if len(told) > 1:
        raise UserError(f"the model's input {name!r} has shape [{listed}], which leaves open where the channels are; say NCHW or NHWC")
    return told[0]


def choose_output(outputs: Mapping[str, Sequence[Dim]], asked: str | None = None) -> str:
    """Name of the output that holds the logits: the one asked for, or the only one with two dimensions.

    Raises:
        UserError: There is no such output, or several.
    """
    listed = ", ".join(f"{name} [{', '.join(map(str, shape))}]" for name, shape in outputs.items())
    if asked is not None and asked not in outputs:
        raise UserError(f"the model has no output {asked!r}; it gives {listed}")
    fitting = [name for name, shape in outputs.items() if len(shape) == 2 and asked in (None, name)]
    if len(fitting) != 1:
        what = "several outputs that may be logits" if fitting else "no output of logits"
        raise UserError(f"the model has {what}; it gives {listed}, and wanted is one of shape [batch, num_classes]; name the right one")
    return fitting[0]


def in_parts(
    inputs: npt.NDArray[np.float32], most: int, run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Run a network that takes at most so many images at a time.

    Args:
        inputs: float32 [B, ...], B at least 1.
        most: Images at a time.
        run: From a part of the inputs to its logits.

    Returns:
        float32 logits [B, num_classes], in order.
    """
    parts = [run(inputs[start : start + most]) for start in range(0, len(inputs), most)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def filled_up(inputs: npt.NDArray[np.float32], least: int) -> npt.NDArray[np.float32]:
    """The inputs with images of zeros after them, so that there are at least so many."""
    missing = least - len(inputs)
    return inputs if missing <= 0 else np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])


class OnnxRunner:
    """An ONNX classifier on ONNX Runtime; ``infer`` may be called by several threads at once.

    Args:
        model: Path of the .onnx file, or its bytes (a caller that checked a digest passes the bytes it checked).
        preprocessing: How the model wants its images; compared with the graph's input shape.
        threads: Threads inside an operator; None takes one per CPU this process may use.
        provider: The execution provider to run on; no other one is fallen back to.
        choices: What the file leaves open; nothing for a file of ours.

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
        choices: Choices = Choices(),
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; it must be at least 1")
        self.preprocessing = preprocessing
        self.threads = threads or available_cpus()
        self.provider = provider
        self.version, self._session = _open_session(model, self.threads, provider)
        self._input = _image_input_of(self._session, choices.layout)
        self._input.check(preprocessing)
        self._output, num_classes = _logits_of(self._session, choices.output)
        self._probabilities = choices.probabilities
        self.num_classes = num_classes or self._counted_classes()

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to the network's float32 input, its channels where the file wants them."""
        return self._input.arranged(normalise(images, self.preprocessing))

    def forward(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What ``prepare`` gave to float32 logits [B, num_classes]; a fixed batch size is met by parts that are filled up."""
        batch = self._input.batch
        if batch is None:
            return self._run(inputs)
        return in_parts(inputs, batch, lambda part: self._run(filled_up(part, batch))[: len(part)])

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]."""
        return self.forward(self.prepare(images))

    def _run(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        (found,) = self._session.run([self._output], {self._input.name: inputs})
        logits = np.asarray(found, dtype=np.float32)
        return np.log(np.maximum(logits, np.finfo(np.float32).tiny)) if self._probabilities else logits

    def _counted_classes(self) -> int:
        """Length of a row of logits where the graph does not say it."""
        pre = self.preprocessing
        return int(self.infer(np.zeros((1, pre.image_px, pre.image_px, pre.num_channels), np.uint8)).shape[1])


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


def _image_input_of(session: Any, layout: Layout | None) -> ImageInput:
    inputs = {item.name: (item.type, list(item.shape)) for item in session.get_inputs()}
    if len(inputs) != 1:
        raise UserError(f"the ONNX model takes {len(inputs)} inputs ({', '.join(inputs)}); wanted one, of images")
    ((name, (kind, shape)),) = inputs.items()
    if kind != "tensor(float)":
        raise UserError(f"the ONNX model's input {name!r} is a {kind}; wanted tensor(float): float32 images, normalised")
    return read_image_input(name, shape, layout)


def _logits_of(session: Any, asked: str | None) -> tuple[str, int | None]:
    outputs = {item.name: (item.type, list(item.shape)) for item in session.get_outputs()}
    name = choose_output({name: shape for name, (_, shape) in outputs.items()}, asked)
    kind, shape = outputs[name]
    if kind != "tensor(float)":
        raise UserError(f"the ONNX model's output {name!r} is a {kind}; wanted tensor(float) of shape [batch, num_classes]")
    return name, shape[1] if isinstance(shape[1], int) else None
