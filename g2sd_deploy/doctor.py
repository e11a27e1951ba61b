"""What this machine can run, and what to install for the rest."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from g2sd_deploy import environment


@dataclass(frozen=True)
class Finding:
    """One part of the tool chain.

    Attributes:
        name: What was looked for.
        status: ok, or missing.
        detail: Version and what it offers, or why it does not work.
        advice: What to install; empty where nothing is to be done.
        required: Whether the chain needs it on every machine.
    """

    name: str
    status: Literal["ok", "missing"]
    detail: str
    advice: str
    required: bool


def examine() -> list[Finding]:
    """Look at every part of the tool chain, by importing it."""
    machine = environment.machine()
    return [
        Finding("machine", "ok", f"{machine['cpu']}, {machine['num_cpus']} usable cores, Python {machine['python']}", "", True),
        _finding("torch", _torch, "pip install torch torchvision", required=True),
        _finding("CUDA", _cuda, "an NVIDIA GPU with its driver, and a torch build for CUDA", required=False),
        _finding("timm", lambda: _version("timm"), "pip install timm (it needs torchvision of the same release as torch)", required=True),
        _finding("ONNX Runtime", _onnxruntime, "pip install onnxruntime", required=True),
        _finding("ONNX Runtime CUDA", _onnxruntime_cuda, "pip install onnxruntime-gpu, on a machine with an NVIDIA GPU", required=False),
        _finding("OpenVINO", lambda: _version("openvino"), "pip install 'g2sd-deploy[openvino]'", required=False),
        _finding("TensorRT", lambda: _version("tensorrt"), "pip install 'g2sd-deploy[tensorrt]'", required=False),
        _finding("TensorRT-RTX", lambda: _version("tensorrt_rtx"), "pip install 'g2sd-deploy[tensorrt-rtx]'", required=False),
    ]


def print_findings(findings: list[Finding], as_json: bool) -> None:
    """A table, or one JSON object."""
    if as_json:
        Console(soft_wrap=True).out(json.dumps({"findings": [asdict(finding) for finding in findings]}), highlight=False)
        return
    table = Table("part", "status", "what was found", "to get it")
    for finding in findings:
        colour = "green" if finding.status == "ok" else "red" if finding.required else "yellow"
        table.add_row(finding.name, f"[{colour}]{finding.status}[/]", escape(finding.detail), escape(finding.advice))
    Console().print(table)


class _UnavailableError(Exception):
    """A part is installed, but cannot be used here."""


def _finding(name: str, look: Callable[[], str], advice: str, *, required: bool) -> Finding:
    try:
        return Finding(name, "ok", look(), "", required)
    except (ImportError, OSError, _UnavailableError) as error:  # OSError: a shared library that the package needs is absent
        return Finding(name, "missing", " ".join(str(error).split()), advice, required)


def _version(module: str) -> str:
    return str(importlib.import_module(module).__version__)


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        raise _UnavailableError("torch finds no usable GPU")
    return f"CUDA {torch.version.cuda}, {', '.join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))}"


def _onnxruntime() -> str:
    import onnxruntime

    return f"{onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"


def _onnxruntime_cuda() -> str:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise _UnavailableError("this build of ONNX Runtime has no CUDAExecutionProvider")
    return str(onnxruntime.__version__)
