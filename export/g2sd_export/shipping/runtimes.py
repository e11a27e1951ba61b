"""Which of a target's runtimes this machine has, and a runner for each."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..edge.errors import UserError
from ..edge.preprocess import Preprocessing
from ..edge.runner import Runner
from ..targets import Candidate

_INSTALL = {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx", "onnxruntime": "onnxruntime"}


def why_not(candidate: Candidate) -> str:
    """Why this machine cannot run a candidate; empty where it can. A file that does not load is no reason of this kind."""
    if importlib.util.find_spec(candidate.runtime) is None:
        return f"{candidate.runtime} is not installed here; install it with: pip install {_INSTALL[candidate.runtime]}"
    match candidate.runtime:
        case "onnxruntime":
            return _no_provider(candidate.provider)
        case "openvino":
            return _no_bfloat16() if _precision_of(candidate) == "bf16" else ""
        case _:
            return _no_gpu()


def settings_of(candidate: Candidate) -> dict[str, Any]:
    """What the manifest says of how a runtime is to be set."""
    match candidate.runtime:
        case "onnxruntime":
            return {"provider": candidate.provider}
        case "openvino":
            return {"inference_precision": _precision_of(candidate)}
        case _:
            return {}


def open_candidate(candidate: Candidate, path: Path, preprocessing: Preprocessing, *, threads: int) -> Runner:
    """A runner for a file, on the candidate's runtime and nothing else.

    Args:
        candidate: Runtime and number format.
        path: An ONNX file, or for TensorRT the engine.
        preprocessing: How the model wants its images.
        threads: CPU threads of a forward pass.

    Raises:
        UserError: The runtime refuses the file, or is not the one that would run.
    """
    match candidate.runtime:
        case "onnxruntime":
            from ..edge.onnx_runner import OnnxRunner

            return OnnxRunner(path, preprocessing, threads=threads, provider=candidate.provider)
        case "openvino":
            from ..edge.openvino_runner import OpenVINORunner

            return OpenVINORunner(path, preprocessing, threads=threads, inference_precision=_precision_of(candidate))
        case _:
            from ..edge.tensorrt_runner import Engine

            return Engine(path).runner(preprocessing)


def _precision_of(candidate: Candidate) -> Any:
    mixed = candidate.precision == "bf16" or candidate.float_precision == "bf16"
    return "bf16" if mixed else "f32"


def _no_provider(provider: str) -> str:
    import onnxruntime

    have = onnxruntime.get_available_providers()
    if provider not in have:
        return f"ONNX Runtime {onnxruntime.__version__} has no {provider} on this machine; it offers {', '.join(have)}"
    if provider == "CPUExecutionProvider" or not (missing := _no_gpu()):
        return ""
    return f"{provider}: {missing}"


def _no_bfloat16() -> str:
    from ..edge.openvino_runner import shared_core

    known = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "" if "BF16" in known else "this processor has no BF16 arithmetic (OpenVINO offers " + ", ".join(sorted(known)) + ")"


def _no_gpu() -> str:
    from ..edge.tensorrt_runner import open_memory

    try:
        open_memory()
    except UserError as error:
        return str(error)
    return ""
