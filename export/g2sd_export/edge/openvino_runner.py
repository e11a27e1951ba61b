"""OpenVINO behind the interface that accuracy, parity and latency share; it reads the same ONNX files.

OpenVINO chooses the arithmetic of float layers itself: on a processor with AMX it computes a float32 file in BF16, on ARM in FP16. What
was proven in one arithmetic must not run in another, so the precision is always said.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .image_input import ImageInput, Layout, as_logits, choose_output, filled_up, in_parts, read_image_input
from .preprocess import Preprocessing
from .runner import Choices, available_cpus

InferencePrecision = Literal["f32", "bf16"]
"""Arithmetic of the layers that the file leaves in floating point."""

_DEVICE = "CPU"
_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}

# A copy with a fixed batch took 4 to 9 % less time than the free one (ViT-Ti, batch 1, 1 and 2 threads, f32 and bf16, paired). Each copy
# holds the weights once more, so only the first two sizes get one: that of single images, and that of full batches.
_MOST_FIXED = 2


class OpenVINORunner:
    """An ONNX classifier on OpenVINO's CPU; ``infer`` may be called by several threads at once.

    Args:
        model: Path of the .onnx file, or its bytes (a caller that checked a digest passes the bytes it checked).
        preprocessing: How the model wants its images; compared with the graph's input shape.
        threads: Threads of one forward pass; None takes one per CPU this process may use.
        inference_precision: Arithmetic of the float layers.
        choices: What the file leaves open; nothing for a file of ours.

    Attributes:
        metadata: What the file says of itself, by key.
        output_names: Of every output, in the order of ``run_all``.

    Raises:
        UserError: OpenVINO is absent, the file cannot be loaded, the graph does not fit ``preprocessing``, or this processor or this
            OpenVINO does not compute in ``inference_precision``.
    """

    name = "openvino"

    def __init__(
        self,
        model: Path | bytes,
        preprocessing: Preprocessing,
        *,
        threads: int | None = None,
        inference_precision: InferencePrecision = "f32",
        choices: Choices = Choices(),  # noqa: B008 (frozen)
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}; it must be at least 1")
        self.preprocessing = preprocessing
        self.threads = threads or available_cpus()
        self.inference_precision = inference_precision
        self.provider = f"{_DEVICE} {inference_precision}"
        _, self.version = _import_openvino()
        refuse_missing_precision(inference_precision)
        self._model = read_model(model)
        self.metadata = _metadata_of(self._model)
        self.image_input = _image_input_of(self._model, choices.layout)
        self.image_input.check(preprocessing)
        self.output_names = tuple(str(item.any_name) for item in self._model.outputs)
        self._output, num_classes = (0, 0) if choices.every else _logits_of(self._model, choices.output)
        self._probabilities = choices.probabilities
        self._compiled: dict[int | None, Any] = {}  # by fixed batch; None is free
        self._compiling = threading.Lock()
        self._requests = threading.local()
        self.num_classes: int = self._counted_classes() if num_classes is None else num_classes

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
        answers = self._answers(inputs)
        return tuple(np.asarray(answers[index]) for index in range(len(self.output_names)))

    def _run(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return as_logits(self._answers(inputs)[self._output], probabilities=self._probabilities)

    def _answers(self, inputs: npt.NDArray[Any]) -> Any:
        request = self._request_for(len(inputs))
        # The input is lent for the call, which returns when the work is done; the output is copied, for the request writes it again.
        return request.infer({0: np.ascontiguousarray(inputs)}, share_inputs=True)

    def _request_for(self, batch: int) -> Any:
        """This thread's request for a batch size: one request serves one call at a time."""
        if not hasattr(self._requests, "kept"):
            self._requests.kept = {}
        kept: dict[int | None, Any] = self._requests.kept
        key = self._compiled_for(batch)
        if key not in kept:
            kept[key] = self._compiled[key].create_infer_request()
        return kept[key]

    def _compiled_for(self, batch: int) -> int | None:
        """Key of the compiled model that takes this batch: a fixed one for the first sizes seen, the free one for all others."""
        with self._compiling:
            if batch in self._compiled:
                return batch
            fixed = None if len([key for key in self._compiled if key is not None]) >= _MOST_FIXED else batch
            if fixed not in self._compiled:
                self._compiled[fixed] = self._compile(fixed)
            return fixed

    def _compile(self, batch: int | None) -> Any:
        """The model in memory, ready to run, in the arithmetic that was asked for and no other."""
        model = self._model
        if batch is not None and self.image_input.batch is None:
            shape, pre = [batch, 0, 0, 0], self.preprocessing
            for letter, size in (("C", pre.num_channels), ("H", pre.image_px), ("W", pre.image_px)):
                shape[self.image_input.layout.index(letter)] = size
            model = model.clone()
            model.reshape({model.input(0).any_name: shape})
        return compile_model(model, threads=self.threads, inference_precision=self.inference_precision)

    def _counted_classes(self) -> int:
        """Length of a row of logits where the graph does not say it."""
        pre = self.preprocessing
        return int(self.infer(np.zeros((1, pre.image_px, pre.image_px, pre.num_channels), np.uint8)).shape[1])


def compile_model(model: Any, *, threads: int, inference_precision: str, counters: bool = False) -> Any:
    """A model that the core has read, ready to run one call at a time, in the arithmetic that was asked for and no other.

    Args:
        model: As ``shared_core().read_model`` gives it.
        threads: Threads of one forward pass.
        inference_precision: Arithmetic of the layers that the file leaves in floating point.
        counters: Put a clock on each layer.

    Raises:
        UserError: OpenVINO refuses the model, or would compute in another arithmetic.
    """
    _, version = _import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": inference_precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        **({"PERF_COUNT": True} if counters else {}),
    }
    try:
        compiled = shared_core().compile_model(model, _DEVICE, settings)
    except RuntimeError as error:
        raise UserError(f"OpenVINO {version} cannot compile the model ({' '.join(str(error).split())})") from error
    active = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if active != inference_precision:
        raise UserError(f"asked for {inference_precision} and OpenVINO {version} chose {active}; it cannot be trusted here")
    return compiled


@lru_cache(maxsize=None)
def shared_core() -> Any:
    """The one OpenVINO core of this process, which is never given up.

    On processors with AMX a core moves the stack on which signals are handled, and puts the old one back when it is collected. Two
    cores that go in the order in which they came leave a stack that is gone, and the next signal ends the process (seen with 2026.4).

    Raises:
        UserError: OpenVINO is not installed.
    """
    openvino, _ = _import_openvino()
    return openvino.Core()


def _import_openvino() -> tuple[Any, str]:
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"OpenVINO cannot be imported ({error}); install it with: pip install openvino") from error
    return openvino, str(openvino.__version__).split("-")[0]


def refuse_missing_precision(precision: str) -> None:
    """Raise UserError unless this processor, and this OpenVINO, compute in ``precision``."""
    core = shared_core()
    if precision not in get_args(InferencePrecision):
        raise UserError(f"inference_precision is {precision!r}; it must be one of {', '.join(get_args(InferencePrecision))}")
    offered = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in offered:
        processor = core.get_property(_DEVICE, "FULL_DEVICE_NAME")
        have = ", ".join(sorted(offered))
        raise UserError(f"this processor ({processor}) does not compute in BF16, only in {have}; take a variant in another precision")


def read_model(model: Path | bytes) -> Any:
    """An ONNX model as OpenVINO's own.

    Raises:
        UserError: There is no such file, or OpenVINO cannot load it.
    """
    _, version = _import_openvino()
    name = "the ONNX model in memory" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not model.is_file():
        raise UserError(f"{name}: no such ONNX file")
    try:
        return shared_core().read_model(model)
    except RuntimeError as error:
        raise UserError(f"{name}: OpenVINO {version} cannot load it ({' '.join(str(error).split())})") from error


def _metadata_of(model: Any) -> dict[str, str]:
    """What its reader of ONNX keeps under ``framework``."""
    told = model.get_rt_info(["framework"]).value if model.has_rt_info(["framework"]) else {}
    return {key: str(getattr(value, "value", value)) for key, value in told.items()}


def _image_input_of(model: Any, layout: Layout | None) -> ImageInput:
    if len(model.inputs) != 1:
        names = ", ".join(item.any_name for item in model.inputs)
        raise UserError(f"the ONNX model takes {len(model.inputs)} inputs ({names}); wanted one, of images")
    (item,) = model.inputs
    kind = item.element_type.get_type_name()
    return read_image_input(item.any_name, _dims(item), layout, _DTYPES.get(kind, kind))


def _logits_of(model: Any, asked: str | None) -> tuple[int, int | None]:
    """Position of the output that holds the logits, and their number where the graph says it."""
    outputs = {item.any_name: _dims(item) for item in model.outputs}
    name = choose_output(outputs, asked)
    position = list(outputs).index(name)
    kind = model.outputs[position].element_type.get_type_name()
    if kind not in ("f32", "f16"):
        raise UserError(f"the ONNX model's output {name!r} is {kind}; wanted f32 of shape [batch, num_classes]")
    return position, outputs[name][1]


def _dims(item: Any) -> list[int | None]:
    shape = item.partial_shape
    if shape.rank.is_dynamic:
        raise UserError(f"the ONNX model does not say how many dimensions {item.any_name!r} has; export it with shapes")
    return [dim.get_length() if dim.is_static else None for dim in shape]
