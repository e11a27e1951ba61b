"""The TensorRT package and the GPU of this machine: whether they can build what is asked, and what TensorRT says meanwhile.

Runs on the device too: Python 3.10, the standard library and the TensorRT package.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from dataclasses import dataclass
from typing import Any

from .edge.errors import UserError
from .tensorrt_settings import PACKAGES, EngineSettings

_NOISE = ("catchCudaError", "Error reading CUDA GPU properties")  # consequences of a missing GPU, reported beside every true error
_MAX_ERRORS_TOLD = 3


class UnavailableError(UserError):
    """This machine cannot build such an engine; another one may, so that nothing is wrong with the file."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that CUDA puts first.

    Attributes:
        name: As its driver says it.
        compute_capability: ``SM86``.
    """

    name: str
    compute_capability: str


def open_package(settings: EngineSettings) -> Any:
    """The TensorRT package, if this machine can build with it what is asked.

    Raises:
        UnavailableError: It is not installed, it needs a GPU that is not there, or it does not build for an architecture.
    """
    name = settings.runtime
    try:
        trt = importlib.import_module(name)
    except ImportError as error:
        advice = f"install it with: pip install {PACKAGES[name]}"
        raise UnavailableError(f"{name} cannot be imported ({error}); {advice}") from error
    gpu = find_gpu()
    if name == "tensorrt":
        _check_gpu(gpu, settings)
        return trt
    known = [one for one in dir(trt.ComputeCapability) if one.startswith("SM")]
    if wrong := [one for one in settings.compute_capabilities if one not in known]:
        raise UnavailableError(f"{name} {trt.__version__} does not build for {', '.join(wrong)}; it offers {', '.join(known)}")
    if settings.refittable and gpu is None:
        raise UnavailableError(f"{name} builds a refittable engine only where there is a GPU; build it there, or without refit")
    return trt


def _check_gpu(gpu: Gpu | None, settings: EngineSettings) -> None:
    if gpu is None:
        raise UnavailableError(
            "tensorrt chooses kernels by timing them, so it builds only where there is an NVIDIA GPU; build on the device"
        )
    if wrong := [one for one in settings.compute_capabilities if one != gpu.compute_capability]:
        raise UnavailableError(f"tensorrt builds for the GPU that is there ({gpu.name}, {gpu.compute_capability}), not for {wrong[0]}")


def find_gpu() -> Gpu | None:
    """The first GPU that the CUDA driver lets this process see; None without a driver or a GPU. Asks the driver's own library."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return None
    numbers = [ctypes.c_int(), ctypes.c_int()]
    failed = cuda.cuDeviceGet(ctypes.byref(device), 0) or cuda.cuDeviceGetName(name, len(name), device)
    for number, attribute in zip(numbers, (75, 76), strict=True):  # major and minor compute capability
        failed = failed or cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    return None if failed else Gpu(name.value.decode("utf-8", "replace"), f"SM{numbers[0].value}{numbers[1].value}")


def build_logger(trt: Any) -> Any:
    """A logger for TensorRT that keeps its errors, the layers it made (``layers``) and the size of their weights (``weights_bytes``)."""
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""
            self.weights_bytes: int | None = None

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                self.errors.append(message)
            elif message.startswith("Layers:"):
                self.layers = message
            elif message.startswith("Total Weights Memory:"):
                self.weights_bytes = int(message.split()[3])

        def told(self) -> str:
            """The first true error since the last call, in one line; empty if there is none."""
            errors, self.errors = self.errors, []
            true = [one for one in errors if not any(noise in one for noise in _NOISE)]
            return " ".join((true or errors)[0].split()) if errors else ""

    return Logger()


def parser_errors(parser: Any) -> str:
    """What the ONNX parser holds against a file, in one line: each node with its operator and the reason; empty if it says nothing."""
    told = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
    more = f"; and {len(told) - _MAX_ERRORS_TOLD} more" if len(told) > _MAX_ERRORS_TOLD else ""
    return "; ".join(told[:_MAX_ERRORS_TOLD]) + more


def _parser_error(error: Any) -> str:
    reason = " ".join(line.strip() for line in error.desc().splitlines() if not any(noise in line for noise in _NOISE))
    if error.node() < 0:
        return f"the file ({reason})"
    name = error.node_name() or f"number {error.node()}"
    return f"node {name!r} ({error.node_operator()}): {reason}"


def name_of(trt: Any) -> str:
    """Package and version."""
    return f"{trt.__name__} {trt.__version__}"
