"""Any ONNX file, whoever wrote it and whatever it takes: run on made-up inputs, for nothing but its latency is asked."""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import Case, Opened

if TYPE_CHECKING:
    from g2sd_export.edge.onnx_runner import Provider
    from g2sd_export.edge.openvino_runner import InferencePrecision

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes that a person gives, by the name of the input."""
Feeds = dict[str, npt.NDArray[Any]]

_NOT_MADE_UP = ("string", "bfloat16", "complex64", "complex128")
_INT8_OPERATORS = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearMatMul", "QLinearConv", "MatMulInteger")
_MS = 1000.0


@dataclass(frozen=True)
class RawInput:
    """One input of a graph.

    Attributes:
        name: Of the tensor.
        dtype: As numpy names it.
        dims: Sizes; a text where the size is free.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name!r} {self.dtype} [{', '.join(str(dim) if dim else '?' for dim in self.dims)}]"


@dataclass(frozen=True)
class RawOnnx:
    """An ONNX file as far as it has to be known to run it.

    Attributes:
        name: As it was asked for, for errors.
        source: Its path, or its content.
        inputs: What has to be fed.
        precision: fp32, fp16 or int8, judged by its operators and weights.
        shapes: Sizes that a person gave.
    """

    name: str
    source: Path | bytes
    inputs: tuple[RawInput, ...]
    precision: str
    shapes: Shapes = field(default_factory=dict)

    def feeds(self, batch: int) -> Feeds:
        """Made-up inputs for a batch, the same at every call.

        Raises:
            UserError: The file fixes another batch.
        """
        fixed = self.fixed_batch
        if fixed is not None and fixed != batch:
            raise UserError(f"its batch is fixed at {fixed}; time it with --batch {fixed}, or export it with a free batch")
        draw = np.random.default_rng(0)
        return {one.name: _made_up(draw, one.dtype, self._shape(one, batch)) for one in self.inputs}

    @property
    def fixed_batch(self) -> int | None:
        """Images that the file takes at a time; None where any input begins with a free dimension."""
        sized = [one for one in self.inputs if one.dims]
        if not sized or any(isinstance(one.dims[0], str) for one in sized):
            return None
        return int(max(sized, key=lambda one: len(one.dims)).dims[0])

    def _shape(self, one: RawInput, batch: int) -> tuple[int, ...]:
        dims = self.shapes.get(one.name, one.dims)
        return tuple(batch if axis == 0 and isinstance(one.dims[0], str) else int(dim) for axis, dim in enumerate(dims))


def read_raw_onnx(name: str, source: Path | bytes, shapes: Shapes | None = None) -> RawOnnx:
    """Look at a file without running it.

    Args:
        name: As it was asked for, for errors.
        source: Its path, or its content.
        shapes: Sizes by input; each begins with 1, for `--batch` says how many.

    Raises:
        UserError: It is no ONNX file, a size is free and nobody says it, or what is said contradicts it.
    """
    graph = _graph(name, source)
    stored = {item.name for item in graph.initializer}
    inputs = tuple(_input(name, item) for item in graph.input if item.name not in stored)
    if not inputs:
        raise UserError(f"{name}: takes no inputs, so it always answers the same; give a model that is asked something")
    raw = RawOnnx(name, source, inputs, _precision(graph), {key: size for key, size in (shapes or {}).items() if _has(inputs, key)})
    for one in inputs:
        _check_sizes(name, one, raw.shapes.get(one.name))
    return raw


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`images=1x3x224x224` for each input.

    Raises:
        UserError: It is not of this form.
    """
    found = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        if not name or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes, re.ASCII):
            raise UserError(f"--shape {text}: wanted NAME=SIZExSIZE, for example images=1x3x224x224")
        found[name] = tuple(map(int, sizes.split("x")))
    return found


def open_onnxruntime(raw: RawOnnx, provider: "Provider", case: Case) -> Opened:
    """On ONNX Runtime with one provider and no other.

    Raises:
        UserError: The provider is not here or leaves work to the CPU, or the file does not run.
    """
    from g2sd_export.edge.onnx_runner import open_session, refuse_work_on_the_cpu

    feeds, on_cpu = raw.feeds(case.batch), provider == "CPUExecutionProvider"
    with tempfile.TemporaryDirectory() as folder:
        version, session = open_session(raw.source, case.threads, provider, folder)
        call = _tried("ONNX Runtime", version, lambda: session.run(None, feeds))
        if not on_cpu:
            refuse_work_on_the_cpu(json.loads(Path(session.end_profiling()).read_bytes()), provider)
    return Opened(call, version, provider, None if on_cpu else lambda: _onnxruntime_phases(session, feeds))


def open_openvino(raw: RawOnnx, inference_precision: "InferencePrecision", case: Case) -> Opened:
    """On OpenVINO's CPU, compiled for this batch.

    Raises:
        UserError: This processor does not compute in that precision, or the file does not run.
    """
    import openvino

    from g2sd_export.edge.openvino_runner import compile_model, read_model, refuse_missing_precision

    feeds, version = raw.feeds(case.batch), str(openvino.__version__).split("-")[0]
    refuse_missing_precision(inference_precision)
    model = read_model(raw.source)
    try:
        model.reshape({name: list(value.shape) for name, value in feeds.items() if value.ndim})
    except RuntimeError as error:
        raise UserError(f"OpenVINO {version} refuses its inputs of these sizes ({_in_a_line(error)})") from error
    compiled = compile_model(model, threads=case.threads, inference_precision=inference_precision)
    requests = threading.local()  # one request serves one call at a time

    def call() -> object:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        return requests.own.infer(feeds, share_inputs=True)

    return Opened(_tried("OpenVINO", version, call), version, f"CPU {inference_precision}")


def _onnxruntime_phases(session: Any, feeds: Feeds) -> dict[str, float]:
    """Copies and computing apart: inputs and outputs lie on the GPU, and each part is waited for."""
    import onnxruntime

    binding = session.io_binding()
    start = time.perf_counter()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    for item in session.get_outputs():
        binding.bind_output(item.name, "cuda", 0)
    binding.synchronize_inputs()
    copied = time.perf_counter()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    computed = time.perf_counter()
    binding.copy_outputs_to_cpu()
    done = time.perf_counter()
    return {
        "to_device_ms": _MS * (copied - start),
        "compute_ms": _MS * (computed - copied),
        "from_device_ms": _MS * (done - computed),
    }


def _tried(runtime: str, version: str, call: Callable[[], object]) -> Callable[[], object]:
    """The call, once it has worked."""
    try:
        call()
    except Exception as error:  # the runtimes' own exception types share no public base class
        raise UserError(
            f"{runtime} {version} cannot run it on inputs of these sizes ({_in_a_line(error)}); give others with --shape"
        ) from error
    return call


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _graph(name: str, source: Path | bytes) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        model = onnx.load_model_from_string(content)
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); wanted an ONNX file") from None
    except (DecodeError, ValueError) as error:
        raise UserError(f"{name}: is no whole ONNX file ({_in_a_line(error)}); fetch or export it again") from None
    if not model.graph.output:
        raise UserError(f"{name}: is no whole ONNX file (it has no outputs); fetch or export it again")
    return model.graph


def _input(name: str, item: Any) -> RawInput:
    import onnx

    kind = item.type.tensor_type
    if not item.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise UserError(f"{name}: its input {item.name!r} is no tensor of a known number of dimensions; export it with shapes")
    dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    if dtype in _NOT_MADE_UP or not _is_numpy(dtype):
        raise UserError(f"{name}: its input {item.name!r} holds {dtype}, and such values are not made up here; convert it to float32")
    dims = tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in kind.shape.dim)
    return RawInput(item.name, dtype, dims)


def _is_numpy(dtype: str) -> bool:
    try:
        np.dtype(dtype)
    except TypeError:
        return False
    return True


def _has(inputs: Sequence[RawInput], name: str) -> bool:
    return any(one.name == name for one in inputs)


def _check_sizes(name: str, one: RawInput, given: tuple[int, ...] | None) -> None:
    """Every size but the batch's is known, and what is given fits."""
    if given is None:
        if any(isinstance(dim, str) for dim in one.dims[1:]):
            example = "x".join("1" if axis == 0 else str(dim) if isinstance(dim, int) else "SIZE" for axis, dim in enumerate(one.dims))
            raise UserError(f"{name}: its input {one} leaves sizes open; say them with --shape {one.name}={example}")
        return
    option = f"--shape {one.name}={'x'.join(map(str, given))}"
    fits = len(given) == len(one.dims) and all(isinstance(dim, str) or dim == size for dim, size in zip(one.dims, given, strict=True))
    if not fits:
        raise UserError(
            f"{name}: {option} does not fit its input {one}; give a size for each dimension, and those that it fixes as they are"
        )
    if isinstance(one.dims[0], str) and given[0] != 1:
        raise UserError(f"{name}: {option} begins with {given[0]}; begin with 1, for --batch says how many there are")


def _precision(graph: Any) -> str:
    import onnx

    if any(node.op_type in _INT8_OPERATORS for node in graph.node):
        return "int8"
    kinds = [item.data_type for item in graph.initializer if len(item.dims) > 1]
    halves = sum(kind == onnx.TensorProto.FLOAT16 for kind in kinds)
    return "fp16" if kinds and 2 * halves > len(kinds) else "fp32"


def _made_up(draw: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Numbers that do no harm: images are noise around 0 or whole pixels, and what may be an index is 0 or 1."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.asarray(draw.standard_normal(shape), dtype=kind)
    most = 256 if kind == np.uint8 else 2
    return np.asarray(draw.integers(0, most, shape), dtype=kind)
