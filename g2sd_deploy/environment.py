"""What this machine is, for the record beside every number."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from g2sd_export.edge.machine import processor
from g2sd_export.edge.runner import available_cpus
from g2sd_export.edge.system import System

_TOOLS = (
    "torch",
    "timm",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "Pillow",
    "simplejpeg",
    "scipy",
    "accelerate",
    "pyarrow",
)


def tool_versions() -> dict[str, str]:
    """Versions of the installed libraries that a result may depend on; imports none of them."""
    found = {}
    for name in ("g2sd-deploy", *_TOOLS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Platform, processor, usable cores and Python."""
    return {
        "platform": platform.platform(),
        "cpu": processor(System()) or platform.machine(),
        "num_cpus": available_cpus(),
        "python": platform.python_version(),
    }
