"""The machine of a measurement: what it is, and what it is set to."""

from __future__ import annotations

import platform
import sys
from typing import Any

from .conditions import clocks_mhz, governor
from .containers import cpu_quota_cpus, memory_limit_mib
from .nvidia import NvidiaGpu
from .system import System
from .throttling import power_mode

_LIBRARIES = ("numpy", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch")
_KIB_PER_MIB = 1024


def describe(system: System | None = None, gpu: NvidiaGpu | None = None) -> dict[str, Any]:
    """The machine, as JSON values; None for what it does not tell.

    Args:
        system: Where it is read; None reads this machine.
        gpu: Its GPU; None looks for one where ``system`` is None too.
    """
    gpu = NvidiaGpu.open() if system is None else gpu
    system = system or System()
    cpus = system.cpus()
    return {
        "system": f"{system.name} {platform.release()}",
        "machine": platform.machine(),
        "cpu": processor(system),
        "cpus": len(cpus),
        "memory_mib": _memory_mib(system),
        "python": platform.python_version(),
        "cpu_quota_cpus": cpu_quota_cpus(system),
        "memory_limit_mib": memory_limit_mib(system),
        "governor": governor(system, cpus),
        "clocks_mhz": [round(value) for value in clocks_mhz(system, cpus)] or None,
        "turbo": _turbo(system),
        "power_mode": power_mode(system),
        "gpu": _gpu(gpu),
        "libraries": _libraries(),
    }


def processor(system: System) -> str:
    """Its name where the system tells it; ``platform`` alone says only ``x86_64`` on Linux."""
    board = system.text("proc/device-tree/model")
    lines = (system.text("proc/cpuinfo") or "").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else board or platform.processor()


def _memory_mib(system: System) -> int | None:
    for line in (system.text("proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // _KIB_PER_MIB
    return None


def _turbo(system: System) -> bool | None:
    boost, no_turbo = system.number("sys/devices/system/cpu/cpufreq/boost"), system.number("sys/devices/system/cpu/intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == 0
    return None if boost is None else boost == 1


def _gpu(gpu: NvidiaGpu | None) -> dict[str, Any] | None:
    return None if gpu is None else {"name": gpu.name(), "driver": gpu.driver(), "power_limit_w": gpu.power_limit_w()}


def _libraries() -> dict[str, str]:
    """Versions of those that this process has loaded: what is not loaded has no part in a measurement."""
    loaded = {name: sys.modules.get(name) for name in _LIBRARIES}
    return {name: str(getattr(module, "__version__", "")) for name, module in loaded.items() if module is not None}
