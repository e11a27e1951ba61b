"""Most memory that a training had in use."""

import threading
from pathlib import Path
from types import TracebackType

import torch

_EVERY_S = 0.05
_MIB = 2**20
_STATUS = Path("/proc/self/statm")


class PeakMemory:
    """Watches memory while it is open: the GPU's allocator, or this process's resident memory.

    Attributes:
        mib: Most that was in use; 0 where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.mib = 0.0
        self._device = device
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> "PeakMemory":
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif _STATUS.is_file():
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()
        if self._device.type == "cuda":
            self.mib = torch.cuda.max_memory_allocated(self._device) / _MIB

    def _watch(self) -> None:
        page = 4096
        while True:
            self.mib = max(self.mib, int(_STATUS.read_text().split()[1]) * page / _MIB)
            if self._over.wait(_EVERY_S):
                return
