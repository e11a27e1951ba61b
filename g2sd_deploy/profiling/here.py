"""Why a runtime cannot run on this machine, before anything is opened for it."""

from functools import cache

from g2sd_deploy.profiling.candidate import TORCH
from g2sd_deploy.settings.profile import RuntimeName


@cache
def why_not(runtime: RuntimeName, precision: str = "fp32") -> str:
    """Empty where it can run; a file that it refuses is no reason of this kind.

    Args:
        runtime: Who computes.
        precision: bf16 is what OpenVINO may be asked for beside fp32.
    """
    if runtime in TORCH:
        from g2sd_deploy.profiling.torch_calls import why_no_torch

        return why_no_torch(runtime)
    from g2sd_export.shipping.runtimes import why_not as why_not_candidate
    from g2sd_export.targets import Candidate

    match runtime:
        case "onnxruntime":
            return why_not_candidate(Candidate(runtime="onnxruntime", precision="fp32"))
        case "onnxruntime-cuda":
            return why_not_candidate(Candidate(runtime="onnxruntime", precision="fp32", provider="CUDAExecutionProvider"))
        case "onnxruntime-tensorrt":
            return why_not_candidate(Candidate(runtime="onnxruntime", precision="fp32", provider="TensorrtExecutionProvider"))
        case "openvino":
            return why_not_candidate(Candidate(runtime="openvino", precision="bf16" if precision == "bf16" else "fp32"))
        case "tensorrt":
            return why_not_candidate(Candidate(runtime="tensorrt", precision="fp32"))
        case _:
            return why_not_candidate(Candidate(runtime="tensorrt_rtx", precision="fp32"))
