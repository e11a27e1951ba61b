"""What this machine is, for the record beside every number."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from g2sd_export.edge.runner import available_cpus

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
        "cpu": _cpu_name(),
        "num_cpus": available_cpus(),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
