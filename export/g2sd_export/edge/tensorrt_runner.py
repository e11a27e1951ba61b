"""A TensorRT engine as a runner: TensorRT 10.3 and newer, and TensorRT for RTX, whose Python interfaces are the same.

Opening an engine runs native code that it holds: open only one that you built, or whose digest a bundle records.
"""

from __future__ import annotations

import importlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .image_input import as_logits, choose_output, filled_up, in_parts, read_image_input
from .preprocess import Preprocessing
from .runner import Choices

_PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8"}
_PHASES = ("to_device_ms", "compute_ms", "from_device_ms")
_MS = 1000.0


def _unmarked() -> None:
    """Nobody wants to know when a part of a call is done."""


class DeviceMemory(Protocol):
    """Memory of the GPU and the stream on which everything is queued."""

    stream: int

    def allocate(self, num_bytes: int) -> int:
        """Address of new memory, aligned to at least 256 bytes; it is freed with this object."""
        ...

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        """Queue a copy to the GPU; the values must live until ``wait`` returns."""
        ...

    def download(self, values: npt.NDArray[Any], address: int) -> None:
        """Queue a copy from the GPU; the values are there when ``wait`` returns."""
        ...

    def wait(self) -> None:
        """Return when everything queued so far is done."""
        ...


@dataclass(frozen=True)
class Profile:
    """Batch sizes that one optimisation profile of an engine takes.

    Attributes:
        index: Of the profile.
        least: Images at a time, at least.
        most: Images at a time, at most.
    """

    index: int
    least: int
    most: int


class Engine:
    """An engine in the memory of the GPU; runners made of it share its weights.

    Args:
        path: The file.
        choices: What an engine does not say.
        content: The file's bytes, from a caller that checked a digest; None reads them.

    Raises:
        UserError: No such file, no TensorRT, no GPU, an engine of another TensorRT or GPU, or one that is no classifier of images.
    """

    def __init__(self, path: Path, choices: Choices = Choices(), *, content: bytes | None = None) -> None:  # noqa: B008 (frozen)
        if content is None and not path.is_file():
            raise UserError(f"{path}: no such TensorRT engine")
        modules = _installed(path)
        self.path = path
        self._probabilities = choices.probabilities
        try:
            open_memory()  # refuses a machine without a GPU before TensorRT does, in many words
            self.trt, self.engine, self._kept = _deserialised(
                path.read_bytes() if content is None else content, modules, listed=content is not None
            )
            self.name, self.version = self.trt.__name__, str(self.trt.__version__)
            self._read(choices)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _read(self, choices: Choices) -> None:
        engine, mode = self.engine, self.trt.TensorIOMode
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == mode.INPUT]
        self.outputs = tuple(name for name in names if engine.get_tensor_mode(name) == mode.OUTPUT)
        if len(inputs) != 1:
            raise UserError(f"takes {len(inputs)} inputs ({', '.join(inputs)}); wanted one, of images")
        self.dtypes = {name: self._dtype(name) for name in (*inputs, *self.outputs)}
        self.image = read_image_input(inputs[0], tuple(engine.get_tensor_shape(inputs[0])), choices.layout, self.dtypes[inputs[0]])
        self.output = choose_output({name: tuple(engine.get_tensor_shape(name)) for name in self.outputs}, choices.output)
        self.num_classes = int(tuple(engine.get_tensor_shape(self.output))[1])
        if self.num_classes < 1:
            raise UserError(f"its output {self.output!r} does not say how many classes there are; build it with a fixed number")
        self.profiles = self._profiles()

    def _dtype(self, name: str) -> str:
        kind = self.engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise UserError(f"its tensor {name!r} is {kind}; wanted FLOAT, HALF or UINT8")
        return _DTYPES[kind]

    def _profiles(self) -> tuple[Profile, ...]:
        """From the one with the smallest largest batch to the one with the largest."""
        if self.image.batch is not None:
            return (Profile(0, self.image.batch, self.image.batch),)
        found = []
        for index in range(self.engine.num_optimization_profiles):
            least, _, most = (tuple(shape) for shape in self.engine.get_tensor_profile_shape(self.image.name, index))
            found.append(Profile(index, int(least[0]), int(most[0])))
        return tuple(sorted(found, key=lambda profile: profile.most))

    def facts(self) -> dict[str, Any]:
        """Runtime, version, tensors and batch sizes, as JSON values."""
        return {
            "runtime": self.name,
            "version": self.version,
            "input": {"name": self.image.name, "layout": self.image.layout, "dtype": self.image.dtype},
            "output": {"name": self.output, "num_classes": self.num_classes, "dtype": self.dtypes[self.output]},
            "batches": [[profile.least, profile.most] for profile in self.profiles],
            "num_layers": int(self.engine.num_layers),
        }

    def runner(self, preprocessing: Preprocessing) -> TensorRTRunner:
        """A runner with an execution context of its own.

        Raises:
            UserError: The engine's input does not fit the preprocessing, or the GPU has no room for the context.
        """
        return TensorRTRunner(self, preprocessing, probabilities=self._probabilities)


class TensorRTRunner:
    """A TensorRT engine behind the interface that accuracy, parity and latency share.

    An execution context serves one caller at a time, so threads that call at once take turns.

    Args:
        engine: The opened engine.
        preprocessing: How the model wants its images; compared with the engine's input.
        probabilities: The engine ends in a softmax.
    """

    def __init__(self, engine: Engine, preprocessing: Preprocessing, *, probabilities: bool = False) -> None:
        engine.image.check(preprocessing)
        self.name, self.version = engine.name, engine.version
        self.preprocessing = preprocessing
        self.num_classes = engine.num_classes
        self.image_input = engine.image
        self._engine = engine
        self._probabilities = probabilities
        self._memory = open_memory()
        self._context = engine.engine.create_execution_context()
        if self._context is None:
            raise UserError(f"{engine.path}: the GPU has no room for the engine's activations; free some of its memory")
        self._lock = threading.Lock()
        self._active = 0  # the profile that a new context has
        self._buffers: dict[str, tuple[int, int]] = {}

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 [B, H, W, C] to the network's input: normalised or not, its channels where the engine wants them."""
        return self._engine.image.prepared(images, self.preprocessing)

    def forward(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """What ``prepare`` gave to float32 logits [B, num_classes]; returns when they are on the host."""
        with self._lock:
            answers = in_parts(inputs, self._engine.profiles[-1].most, self._run)
        return as_logits(answers, probabilities=self._probabilities)

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]."""
        return self.forward(self.prepare(images))

    def phases(self, inputs: npt.NDArray[Any]) -> dict[str, float]:
        """One call with its parts waited for: copies to the GPU, computing, and copies back, in ms."""
        marks: list[float] = []

        def mark() -> None:
            self._memory.wait()
            marks.append(time.perf_counter())

        with self._lock:
            in_parts(inputs, self._engine.profiles[-1].most, lambda part: self._run(part, mark))
        parts = range(0, len(marks), len(_PHASES) + 1)
        return {name: _MS * sum(marks[part + i + 1] - marks[part + i] for part in parts) for i, name in enumerate(_PHASES)}

    @property
    def trt(self) -> Any:
        """The TensorRT module that opened the engine."""
        return self._engine.trt

    def watched_by(self, profiler: Any) -> None:
        """Report the time of each layer to an ``IProfiler`` of TensorRT's; None reports no longer."""
        self._context.profiler = profiler

    def inspected(self) -> str:
        """JSON of the engine's layers with the shapes of the latest call, as TensorRT's inspector tells them."""
        inspector = self._engine.engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def _run(self, part: npt.NDArray[Any], mark: Callable[[], None] = _unmarked) -> npt.NDArray[np.float32]:
        engine, name = self._engine, self._engine.image.name
        profile = next(profile for profile in engine.profiles if profile.most >= len(part))
        self._use(profile)
        values = np.ascontiguousarray(filled_up(part, profile.least), dtype=engine.dtypes[name])
        self._expect(self._context.set_input_shape(name, values.shape), f"an input of shape {list(values.shape)}")
        answers = {output: np.empty(self._shape_of(output), engine.dtypes[output]) for output in engine.outputs}
        for tensor, array in ((name, values), *answers.items()):
            address = self._room_for(tensor, array.nbytes)
            self._expect(self._context.set_tensor_address(tensor, address), f"the memory of {tensor!r}")
        mark()
        self._memory.upload(self._buffers[name][0], values)
        mark()
        self._expect(self._context.execute_async_v3(self._memory.stream), "to execute")
        mark()
        self._memory.download(answers[engine.output], self._buffers[engine.output][0])
        self._memory.wait()
        mark()
        return answers[engine.output][: len(part)].astype(np.float32)

    def _use(self, profile: Profile) -> None:
        if profile.index == self._active:
            return
        done = self._context.set_optimization_profile_async(profile.index, self._memory.stream)
        self._expect(done, f"optimisation profile {profile.index}")
        self._memory.wait()
        self._active = profile.index

    def _shape_of(self, output: str) -> tuple[int, ...]:
        shape = tuple(int(dim) for dim in self._context.get_tensor_shape(output))
        if min(shape, default=1) < 0:
            raise UserError(f"{self._engine.path}: the size of its output {output!r} depends on the pixels; build the engine without it")
        return shape

    def _room_for(self, tensor: str, num_bytes: int) -> int:
        """Address of memory for a tensor, kept from call to call; it only grows."""
        address, room = self._buffers.get(tensor, (0, 0))
        if room < num_bytes:
            address = self._memory.allocate(num_bytes)
            self._buffers[tensor] = (address, num_bytes)
        return address

    def _expect(self, done: bool, what: str) -> None:
        if not done:
            reason = self._engine._kept[0].told() or "it does not say why"
            raise UserError(f"{self._engine.path}: {self.name} {self.version} refuses {what} ({reason})")


def open_memory() -> DeviceMemory:
    """Memory of the current GPU, through cuda-python, or torch where that is absent.

    Raises:
        UserError: Neither package is there, or there is no GPU.
    """
    if (runtime := _optional("cuda.bindings.runtime")) is not None:
        return _CudaPythonMemory(runtime)
    if (torch := _optional("torch")) is not None:
        return _TorchMemory(torch)
    raise UserError(
        "TensorRT needs memory of the GPU, and no package that gives it can be imported; install it with: pip install cuda-python"
    )


class _CudaPythonMemory:
    def __init__(self, runtime: ModuleType) -> None:
        self._runtime: Any = runtime
        (count,) = self._call(runtime.cudaGetDeviceCount())
        if not count:
            raise UserError("TensorRT needs an NVIDIA GPU, and this machine has none")
        (self._stream,) = self._call(runtime.cudaStreamCreate())
        self.stream = int(self._stream)
        self._addresses: list[int] = []
        weakref.finalize(self, _release, runtime, self._stream, self._addresses).atexit = False

    def allocate(self, num_bytes: int) -> int:
        (address,) = self._call(self._runtime.cudaMalloc(num_bytes))
        self._addresses.append(int(address))
        return int(address)

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._runtime.cudaMemcpyAsync(address, values.ctypes.data, values.nbytes, kind, self._stream))

    def download(self, values: npt.NDArray[Any], address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._runtime.cudaMemcpyAsync(values.ctypes.data, address, values.nbytes, kind, self._stream))

    def wait(self) -> None:
        self._call(self._runtime.cudaStreamSynchronize(self._stream))

    def _call(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        error, *values = result
        if error != self._runtime.cudaError_t.cudaSuccess:
            reason = self._runtime.cudaGetErrorString(error)[1].decode()
            raise UserError(f"no working NVIDIA GPU here, CUDA says: {reason}; run this where nvidia-smi shows one")
        return tuple(values)


def _release(runtime: Any, stream: Any, addresses: Sequence[int]) -> None:
    for address in addresses:
        runtime.cudaFree(address)
    runtime.cudaStreamDestroy(stream)


class _TorchMemory:
    def __init__(self, torch: ModuleType) -> None:
        self._torch: Any = torch
        if not torch.cuda.is_available():
            raise UserError("no working NVIDIA GPU here, torch finds none; run this where nvidia-smi shows one")
        self._stream = torch.cuda.Stream()
        self.stream = int(self._stream.cuda_stream)
        self._buffers: dict[int, Any] = {}

    def allocate(self, num_bytes: int) -> int:
        buffer = self._torch.empty(num_bytes, dtype=self._torch.uint8, device="cuda")
        self._buffers[int(buffer.data_ptr())] = buffer
        return int(buffer.data_ptr())

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        with self._torch.cuda.stream(self._stream):
            self._buffers[address][: values.nbytes].copy_(self._bytes_of(values), non_blocking=True)

    def download(self, values: npt.NDArray[Any], address: int) -> None:
        with self._torch.cuda.stream(self._stream):
            self._bytes_of(values).copy_(self._buffers[address][: values.nbytes], non_blocking=True)

    def wait(self) -> None:
        self._stream.synchronize()

    def _bytes_of(self, values: npt.NDArray[Any]) -> Any:
        return self._torch.from_numpy(values.reshape(-1).view(np.uint8))


def _installed(path: Path) -> list[ModuleType]:
    modules = [module for name in _PACKAGES if (module := _optional(name)) is not None]
    if not modules:
        install = " or, for an engine of TensorRT for RTX, ".join(f"pip install {package}" for package in _PACKAGES.values())
        raise UserError(f"{path}: TensorRT cannot be imported; install the version that built the engine with: {install}")
    return modules


def _deserialised(content: bytes, modules: Sequence[ModuleType], *, listed: bool) -> tuple[Any, Any, tuple[Any, ...]]:
    """The TensorRT that can open the engine, the engine, and what must live as long as it.

    An engine that opens under later versions brings code along, which may run only where a bundle lists the engine's digest.
    """
    refusals = []
    for trt in modules:
        logger = _logger_of(trt)
        runtime = trt.Runtime(logger)
        runtime.engine_host_code_allowed = listed
        engine = runtime.deserialize_cuda_engine(content)
        if engine is not None:
            return trt, engine, (logger, runtime)
        refusals.append(f"{trt.__name__} {trt.__version__}: {logger.told() or 'no reason given'}")
    raise UserError(
        f"cannot be opened ({'; '.join(refusals)}); an engine belongs to the GPU model and the TensorRT version that built it: "
        "build it again here from the ONNX file"
    )


def _logger_of(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps what went wrong instead of printing it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self._errors.append(message)

        def told(self) -> str:
            """The first of the latest errors, which is the cause of the others, in one line."""
            errors, self._errors = self._errors, []
            return " ".join(errors[0].split()) if errors else ""

    return Logger()


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


__all__ = ["DeviceMemory", "Engine", "Profile", "TensorRTRunner", "open_memory"]
