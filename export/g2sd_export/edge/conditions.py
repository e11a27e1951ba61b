"""Signs that a measurement was disturbed, none of which is a latency: other processes, a hypervisor, heat, quotas, clocks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .containers import held_back
from .nvidia import NvidiaGpu
from .system import System
from .throttling import ThrottleFiles, power_mode

OTHERS_SHARE = 0.05
"""Of our processors' time, that other processes may use."""
OTHERS_CPUS = 0.5
"""Processors' worth of time that other processes may use, however many processors there are."""
STOLEN_SHARE = 0.05
"""Of our processors' time, that a hypervisor may give to others."""
CLOCK_SHARE = 0.9
"""Of the clock of undisturbed rounds, below which a round's is too low."""
MEMORY_SHARE = 0.01
"""Of a round, that every process may wait for memory."""
_TICKS_PER_S = 100  # the unit of /proc/stat, whatever the kernel's own tick is
_TICK_S = 1 / _TICKS_PER_S
_PERCENT = 100
_BUSY = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq; 3 is idle, 4 waits for a disk
_STOLEN = 7
_TEGRA_GPU = re.compile(r"gpu|gv11b|gp10b|gm20b|ga10b", re.IGNORECASE)  # by the name of the device or of its chip


@dataclass(frozen=True)
class Counters:
    """What the machine counts, at one moment; None where it does not say.

    Attributes:
        time_ns: When.
        own_s: Processor time of this process, its threads and the processes it started.
        busy_s: Time that our processors worked, for whomever.
        stolen_s: Time that a hypervisor took from our processors.
        num_throttled: Events that slowed the machine down.
        num_held_back: Times that a quota stopped our control group.
        memory_stall_s: Time that every process waited for memory.
        clock_mhz: The highest of our processors' clocks.
        slowed_by: What slows the machine down at this moment, in words.
    """

    time_ns: int
    own_s: float
    busy_s: float | None = None
    stolen_s: float | None = None
    num_throttled: int = 0
    num_held_back: int = 0
    memory_stall_s: float | None = None
    clock_mhz: float | None = None
    slowed_by: tuple[str, ...] = ()


def added(counters: Sequence[Counters]) -> Counters:
    """Times that several readings hold together: the difference of two such sums is that of all stretches between them."""
    busy = [one.busy_s for one in counters if one.busy_s is not None]
    stolen = [one.stolen_s for one in counters if one.stolen_s is not None]
    return Counters(
        time_ns=sum(one.time_ns for one in counters),
        own_s=sum(one.own_s for one in counters),
        busy_s=sum(busy) if len(busy) == len(counters) else None,
        stolen_s=sum(stolen) if len(stolen) == len(counters) else None,
    )


@dataclass(frozen=True)
class Sign:
    """One sign of a disturbance.

    Attributes:
        text: What it is, with a place for the amount.
        amount: How much of it.
    """

    text: str
    amount: float = 0.0

    def __str__(self) -> str:
        return self.text.format(self.amount)


@dataclass
class Watch:
    """Reads the machine while something is measured on it.

    Attributes:
        system: What is read.
        gpu: The GPU; None where there is none.
    """

    system: System = field(default_factory=System)
    gpu: NvidiaGpu | None = field(default_factory=NvidiaGpu.open)

    def __post_init__(self) -> None:
        self._cpus = self.system.cpus()
        self._throttle = ThrottleFiles.of(self.system)

    def counters(self) -> Counters:
        """Everything that ``signs`` compares; takes well below a millisecond on most machines."""
        busy_s, stolen_s = self._processor_times()
        return Counters(
            time_ns=self.system.clock(),
            own_s=self.system.own_cpu_s(),
            busy_s=busy_s,
            stolen_s=stolen_s,
            num_throttled=self._throttle.count(self.system),
            num_held_back=held_back(self.system),
            memory_stall_s=_stall_s(self.system, "memory"),
            clock_mhz=max(clocks_mhz(self.system, self._cpus), default=None),
            slowed_by=(*self._throttle.active(self.system), *(self.gpu.throttled() if self.gpu else ())),
        )

    def _processor_times(self) -> tuple[float | None, float | None]:
        lines = [line.split() for line in (self.system.text("proc/stat") or "").splitlines() if line.startswith("cpu")]
        ours = {f"cpu{number}" for number in self._cpus}
        rows = [[int(word) for word in words[1:]] for words in lines if words[0] in ours]
        if not rows:
            return None, None
        busy = sum(row[place] for row in rows for place in _BUSY)
        return busy / _TICKS_PER_S, sum(row[_STOLEN] for row in rows if len(row) > _STOLEN) / _TICKS_PER_S

    def unjudged(self) -> str:
        """Why nothing can be said about the load of other processes; empty where it can."""
        if self._processor_times()[0] is not None:
            return ""
        return f"{self.system.name} does not tell this program what other processes do (there is no /proc/stat)"

    def signs(self, first: Counters, last: Counters, usual_mhz: float | None = None) -> list[Sign]:
        """What disturbed the time between two readings.

        Args:
            first: Read before.
            last: Read after.
            usual_mhz: The clock of undisturbed rounds; None where it is not known yet.
        """
        wall_s = (last.time_ns - first.time_ns) / 1e9
        found = self.load_signs(first, last)
        if last.num_throttled > first.num_throttled:
            found.append(Sign("the processor slowed itself down {:.0f} times", last.num_throttled - first.num_throttled))
        if last.num_held_back > first.num_held_back:
            found.append(Sign("the container's processor quota stopped it {:.0f} times", last.num_held_back - first.num_held_back))
        if first.memory_stall_s is not None and last.memory_stall_s is not None:
            waited = last.memory_stall_s - first.memory_stall_s
            if waited > MEMORY_SHARE * wall_s:
                found.append(Sign("memory was short for {:.0f} % of the time", _PERCENT * waited / wall_s))
        if usual_mhz and last.clock_mhz is not None and last.clock_mhz < CLOCK_SHARE * usual_mhz:
            found.append(Sign("the clock fell to {:.0f} % of the usual", _PERCENT * last.clock_mhz / usual_mhz))
        return [*found, *(Sign(words) for words in dict.fromkeys((*first.slowed_by, *last.slowed_by)))]

    def load_signs(self, first: Counters, last: Counters) -> list[Sign]:
        """What other processes and a hypervisor took, beyond what they may and what the counters' ticks leave open."""
        found = []
        num_cpus, wall_s = len(self._cpus), (last.time_ns - first.time_ns) / 1e9
        whole_s, open_s = num_cpus * wall_s, num_cpus * _TICK_S
        if first.busy_s is not None and last.busy_s is not None:
            others_s = last.busy_s - first.busy_s - (last.own_s - first.own_s)
            if others_s > min(OTHERS_SHARE * num_cpus, OTHERS_CPUS) * wall_s + open_s:
                found.append(Sign("other processes used {:.0f} % of the processors", _PERCENT * others_s / whole_s))
        if first.stolen_s is not None and last.stolen_s is not None:
            stolen_s = last.stolen_s - first.stolen_s
            if stolen_s > STOLEN_SHARE * whole_s + open_s:
                found.append(Sign("the hypervisor took {:.0f} % of the processors", _PERCENT * stolen_s / whole_s))
        return found

    def snapshot(self) -> dict[str, Any]:
        """The state of the machine, as JSON values; what cannot be read is named, with the reason, under ``unknown``."""
        system, clocks = self.system, clocks_mhz(self.system, self._cpus)
        values = {
            "load_1m": _load_1m(system),
            "clocks_mhz": [round(value) for value in clocks] or None,
            "governor": governor(system, self._cpus),
            "temperature_c": temperature_c(system),
            "throttle_count": self._throttle.count(system) if self._throttle.counters else None,
            "power_mode": power_mode(system),
            "cpu_pressure_percent": _pressure_percent(system),
            "gpu": gpu_state(self.gpu) or tegra_gpu_state(system),
        }
        known = {key: value for key, value in values.items() if value is not None}
        return {**known, "unknown": {key: _UNKNOWN[key] for key, value in values.items() if value is None and key in _UNKNOWN}}


_UNKNOWN = {
    "load_1m": "there is no /proc/loadavg",
    "clocks_mhz": "neither cpufreq nor /proc/cpuinfo tells the clocks",
    "governor": "the system shows no cpufreq governor, as in most virtual machines",
    "temperature_c": "the system shows no thermal zone",
    "throttle_count": "the processor shows no counter of throttling",
}


def gpu_state(gpu: NvidiaGpu | None) -> dict[str, Any] | None:
    """Clocks, temperature and what slows a GPU down."""
    if gpu is None:
        return None
    values = {
        "clock_mhz": gpu.clock_mhz(),
        "memory_clock_mhz": gpu.memory_clock_mhz(),
        "temperature_c": gpu.temperature_c(),
        "power_w": gpu.power_w(),
        "slowed_by": list(gpu.throttled()),
    }
    return {key: value for key, value in values.items() if value is not None}


def tegra_gpu_state(system: System) -> dict[str, Any] | None:
    """The clock of a Jetson's GPU; None on other machines."""
    for path in system.paths("sys/class/devfreq/*/cur_freq"):
        clock_hz = system.number(path)
        if _TEGRA_GPU.search(path) and clock_hz is not None:
            return {"clock_mhz": round(clock_hz / 1e6)}
    return None


def clocks_mhz(system: System, cpus: Sequence[int]) -> list[float]:
    """Clocks of processors; empty where the system does not tell them."""
    read = (system.number(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus)
    found = [value / 1000 for value in read if value is not None]
    if found:
        return found
    lines = (system.text("proc/cpuinfo") or "").splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def governor(system: System, cpus: Sequence[int]) -> str | None:
    """How the clocks are chosen; several names where processors differ."""
    found = {system.text(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus}
    return ", ".join(sorted(name for name in found if name)) or None


def temperature_c(system: System) -> float | None:
    """The highest of all thermal zones."""
    read = (system.number(path) for path in system.paths("sys/class/thermal/thermal_zone*/temp"))
    return max((value / 1000 for value in read if value is not None and value > 0), default=None)


def _stall_s(system: System, what: str) -> float | None:
    for line in (system.text(f"proc/pressure/{what}") or "").splitlines():
        if line.startswith("full "):
            return float(line.rpartition("total=")[2]) / 1e6
    return None


def _pressure_percent(system: System) -> float | None:
    for line in (system.text("proc/pressure/cpu") or "").splitlines():
        if line.startswith("some "):
            return float(line.split("avg10=")[1].split()[0])
    return None


def _load_1m(system: System) -> float | None:
    words = (system.text("proc/loadavg") or "").split()
    return float(words[0]) if words else None


def told(signs: Mapping[str, Sequence[Sign]]) -> dict[str, int]:
    """Signs of all void rounds as text with the largest amount, and how many rounds each made void."""
    return {str(max(found, key=lambda sign: sign.amount)): len(found) for found in signs.values()}
