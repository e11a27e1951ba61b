"""The state of an NVIDIA GPU through its management library (NVML), without a package for it."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Any

_LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_NAME_BYTES = 96
# Of nvmlClocksEventReasons. A cap of power by software (4) is how a busy GPU works, and no fault of the run.
_REASONS = {
    0x8: "the GPU is slowed down by its hardware",
    0x20: "the GPU is slowed down to stay cool",
    0x40: "the GPU is slowed down by its hardware to stay cool",
    0x80: "the GPU is slowed down by its power supply",
}


@dataclass(frozen=True)
class NvidiaGpu:
    """The GPU that this process computes on.

    Attributes:
        library: NVML, loaded.
        handle: Of the device.
    """

    library: Any
    handle: Any

    @classmethod
    def open(cls, library: Any = None) -> NvidiaGpu | None:
        """The first GPU that this process may see; None where there is none.

        Args:
            library: What stands for NVML; None loads it.
        """
        found = library or _loaded()
        if found is None or found.nvmlInit_v2() != 0:
            return None
        handle = ctypes.c_void_p()
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
        if first.isdigit():
            status = found.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(first)), ctypes.byref(handle))
        else:
            status = found.nvmlDeviceGetHandleByUUID(ctypes.c_char_p(first.encode()), ctypes.byref(handle)) if first else 1
        return cls(found, handle) if status == 0 else None

    def name(self) -> str:
        """Its model."""
        return self._text("nvmlDeviceGetName", self.handle)

    def driver(self) -> str:
        """The version of its driver."""
        return self._text("nvmlSystemGetDriverVersion")

    def clock_mhz(self) -> int | None:
        """Of its processors."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, ctypes.c_uint(_SM_CLOCK))

    def memory_clock_mhz(self) -> int | None:
        """Of its memory."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, ctypes.c_uint(_MEMORY_CLOCK))

    def temperature_c(self) -> int | None:
        """Of the chip."""
        return self._number("nvmlDeviceGetTemperature", ctypes.c_uint, ctypes.c_uint(0))

    def power_limit_w(self) -> float | None:
        """What it may take."""
        limit = self._number("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint)
        return None if limit is None else limit / 1000

    def energy_j(self) -> float | None:
        """What it has taken since its driver was loaded; None for GPUs older than Volta."""
        taken_mj = self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if taken_mj is None else taken_mj / 1000

    def power_w(self) -> float | None:
        """What it takes at this moment."""
        power_mw = self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if power_mw is None else power_mw / 1000

    def throttled(self) -> tuple[str, ...]:
        """What slows it down at this moment, in words."""
        flags = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong) or 0
        return tuple(words for bit, words in _REASONS.items() if flags & bit)

    def _number(self, function: str, kind: Any, *arguments: Any) -> int | None:
        value = kind()
        return int(value.value) if self._done(function, self.handle, *arguments, ctypes.byref(value)) else None

    def _text(self, function: str, *arguments: Any) -> str:
        text = ctypes.create_string_buffer(_NAME_BYTES)
        done = self._done(function, *arguments, text, ctypes.c_uint(_NAME_BYTES))
        return text.value.decode(errors="replace") if done else ""

    def _done(self, function: str, *arguments: Any) -> bool:
        """Call; the library of a Jetson lacks some functions, and refuses others."""
        call = getattr(self.library, function, None)
        return call is not None and call(*arguments) == 0


def _loaded() -> Any:
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
