"""The management library of NVIDIA, and a stand-in for it where there is no GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from g2sd_export.edge.nvidia import NvidiaGpu

NOT_SUPPORTED = 3


class FakeNvml:
    """Answers as the C library does: a status, and values through pointers."""

    def __init__(self, **values: int) -> None:
        self.values = {"clock1": 1980, "clock2": 2619, "temperature": 41, "limit": 700_000, "power": 120_500, **values}
        self.asked: list[Any] = []

    def nvmlInit_v2(self) -> int:  # noqa: N802 (the library's names)
        return self.values.get("status", 0)

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        self.asked.append(index.value)
        return 0 if index.value < 2 else 2

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:  # noqa: N802
        self.asked.append(uuid.value)
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:  # noqa: N802
        text.value = b"NVIDIA Test 1"
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:  # noqa: N802
        text.value = b"570.1"
        return 0

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: Any, value: Any) -> int:  # noqa: N802
        return self._give(f"clock{kind.value}", value)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, value: Any) -> int:  # noqa: N802
        return self._give("temperature", value)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, value: Any) -> int:  # noqa: N802
        return self._give("limit", value)

    def nvmlDeviceGetPowerUsage(self, handle: Any, value: Any) -> int:  # noqa: N802
        return self._give("power", value)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:  # noqa: N802
        return self._give("energy", value)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, value: Any) -> int:  # noqa: N802
        return self._give("reasons", value)

    def _give(self, key: str, pointer: Any) -> int:
        if key not in self.values:
            return NOT_SUPPORTED
        pointer._obj.value = self.values[key]
        return 0


def opened(**values: int) -> NvidiaGpu:
    gpu = NvidiaGpu.open(FakeNvml(**values))
    assert gpu is not None
    return gpu


def test_the_gpu_says_what_it_is_and_how_it_is() -> None:
    gpu = opened(energy=5_250)
    assert (gpu.name(), gpu.driver()) == ("NVIDIA Test 1", "570.1")
    assert (gpu.clock_mhz(), gpu.memory_clock_mhz(), gpu.temperature_c()) == (1980, 2619, 41)
    assert (gpu.power_limit_w(), gpu.power_w(), gpu.energy_j()) == (700.0, 120.5, 5.25)


def test_what_it_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened().energy_j() is None and opened().throttled() == ()
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetPowerUsage")  # as in the library of a Jetson
    assert opened().power_w() is None


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (0x0, ()),
        (0x1, ()),  # idle
        (0x4, ()),  # a cap of power by software is how a busy GPU works
        (0x20, ("the GPU is slowed down to stay cool",)),
        (0x8 | 0x40, ("the GPU is slowed down by its hardware", "the GPU is slowed down by its hardware to stay cool")),
    ],
)
def test_only_slowing_down_that_is_no_normal_work_is_told(flags: int, told: tuple[str, ...]) -> None:
    assert opened(reasons=flags).throttled() == told


@pytest.mark.parametrize(("visible", "asked"), [("1", 1), ("1,0", 1), ("GPU-5a", b"GPU-5a"), (None, 0)])
def test_the_gpu_is_the_first_that_this_process_may_see(visible: str | None, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    library = FakeNvml()
    assert NvidiaGpu.open(library) is not None and library.asked == [asked]


def test_without_a_driver_or_a_visible_gpu_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NvidiaGpu.open(FakeNvml(status=9)) is None
    for hidden in ("", "7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert NvidiaGpu.open(FakeNvml()) is None


@pytest.mark.gpu
def test_a_real_gpu_is_read() -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        pytest.skip("there is no NVIDIA driver")
    gpu = NvidiaGpu.open()
    if gpu is None:
        pytest.skip("this process may see no NVIDIA GPU")
    assert gpu.name() and gpu.driver() and (gpu.clock_mhz() or 0) > 0 and (gpu.temperature_c() or 0) > 0
