"""Weights on torch, eager or compiled, on the CPU or a GPU, as what can be timed."""

import copy
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import Case, Opened

_COMPILERS = ("g++", "clang++", "c++", "cl")
_MS = 1000.0

Answer = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Network:
    """A network of images.

    Attributes:
        module: float32 [B, C, H, W] to a tensor, or to a tuple of them.
        image_px: H and W.
        num_channels: C.
    """

    module: nn.Module
    image_px: int
    num_channels: int

    def images(self, batch: int) -> Tensor:
        """Noise of the size that it takes, float32 [B, C, H, W], the same at every call."""
        draw = torch.Generator().manual_seed(0)
        return torch.randn(batch, self.num_channels, self.image_px, self.image_px, generator=draw)


def why_no_torch(runtime: str) -> str:
    """Why this machine cannot run a runtime of torch; empty where it can."""
    if runtime.endswith("-cuda") and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return f"torch {torch.__version__} ({built}) finds no usable GPU"
    if runtime == "torch-compile" and (os.environ.get("CXX") is None and not any(map(shutil.which, _COMPILERS))):
        return f"torch.compile needs a C++ compiler, and none of {', '.join(_COMPILERS)} is here; install one, or name it in CXX"
    return ""


def open_torch(network: Network, runtime: str, case: Case) -> Opened:
    """Ready to be called; what is to be compiled is compiled before this returns.

    Args:
        network: Left where it is; a GPU gets a copy.
        runtime: `torch` or `torch-compile`, with `-cuda` where a GPU computes.
        case: Images of a call, and threads of the CPU.

    Raises:
        UserError: This machine lacks what the runtime needs, or the network cannot be compiled.
    """
    if reason := why_no_torch(runtime):
        raise UserError(reason)
    on_gpu, compiled = runtime.endswith("-cuda"), runtime.startswith("torch-compile")
    device = torch.device("cuda" if on_gpu else "cpu")
    module = copy.deepcopy(network.module).eval().to(device) if on_gpu else network.module.eval()  # the CPU's stays where it is
    call = TorchCall(module, network.images(case.batch), device, case.threads)
    if compiled:
        _compile(call)
    provider = torch.cuda.get_device_name(device) if on_gpu else ""
    return Opened(call, torch.__version__, provider, call.phases if on_gpu else None)


class TorchCall:
    """One forward pass, from images on the host to answers on the host.

    Args:
        module: On the device.
        images: On the host; kept in memory that a GPU can read by itself, where one computes.
        device: Where to compute.
        threads: Of the CPU; torch keeps the number for each thread that calls.
    """

    def __init__(self, module: nn.Module, images: Tensor, device: torch.device, threads: int) -> None:
        self.module = module
        self._images = images.pin_memory() if device.type == "cuda" else images
        self._device = device
        self._threads = threads

    def __call__(self) -> Answer:
        """The answer on the host: the copy waits for the work."""
        self._set_threads()
        with torch.inference_mode():
            return _on_host(self.module(self._images.to(self._device, non_blocking=True)))

    def phases(self) -> dict[str, float]:
        """The same call with its three parts waited for, in ms."""
        marks = [time.perf_counter()]
        with torch.inference_mode():
            images = self._images.to(self._device, non_blocking=True)
            self._mark(marks)
            answer = self.module(images)
            self._mark(marks)
            _on_host(answer)
            self._mark(marks)
        to_device, compute, from_device = (_MS * (after - before) for before, after in pairwise(marks))
        return {"to_device_ms": to_device, "compute_ms": compute, "from_device_ms": from_device}

    def _mark(self, marks: list[float]) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        marks.append(time.perf_counter())

    def _set_threads(self) -> None:
        if self._device.type == "cpu" and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


def _on_host(answer: Answer) -> Answer:
    """Logits as float32; the parts of any other answer as they are."""
    return tuple(part.cpu() for part in answer) if isinstance(answer, tuple) else answer.float().cpu()


def _compile(call: TorchCall) -> None:
    """Compile for this batch and number of threads, in this process: helpers that stay would be other processes at work."""
    from torch import _dynamo, _inductor

    eager = call.module
    with _inductor.config.patch(compile_threads=1):
        call.module = torch.compile(eager, dynamic=False)  # type: ignore[assignment]
        try:
            call()
        except (RuntimeError, _dynamo.exc.TorchDynamoException) as error:  # the compiler's own errors are of both kinds
            raise UserError(f"torch.compile cannot compile it ({' '.join(str(error).split())[:300]})") from error


@contextmanager
def torch_as_before() -> Iterator[None]:
    """In the end, put torch's number of threads back, and forget what was compiled: torch keeps only so many versions of a function."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()
