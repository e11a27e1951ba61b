"""What a virtual environment on a device has to hold for the runtimes of a bundle."""

from collections.abc import Iterable
from typing import Any

from g2sd_deploy.artifact import digest_of

_BASE = ("numpy", "pillow")
_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt_rtx": "tensorrt-rtx"}
# TensorRT comes with the device (JetPack) and not from an index: the environment sees the system's packages.
_FROM_THE_SYSTEM = "tensorrt"
_NEEDS_CUDA = ("tensorrt", "tensorrt_rtx")
_CUDA = "cuda-python"


def venv_for(runtimes: Iterable[str]) -> dict[str, Any]:
    """An environment as the job on the device makes it.

    Args:
        runtimes: Names of runtimes, as a bundle's variants have them.

    Returns:
        JSON values: ``name`` (of the folder; the same needs give the same), ``base`` packages that must be there, ``runtimes`` (what each
        one needs), and ``see_system``, whether the system's packages are seen.
    """
    wanted = sorted(set(runtimes))
    values = {
        "base": list(_BASE),
        "runtimes": {
            name: [package for package in (_PACKAGES.get(name), _CUDA if name in _NEEDS_CUDA else None) if package] for name in wanted
        },
        "see_system": _FROM_THE_SYSTEM in wanted,
    }
    return {"name": digest_of(values)[:12], **values}
