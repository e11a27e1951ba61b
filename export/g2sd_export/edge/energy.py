"""Energy that a machine says it used: processors (RAPL), an NVIDIA GPU, or the sensors of a Jetson's supply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .nvidia import NvidiaGpu
from .system import System

_RAPL = "sys/class/powercap/*-rapl:[0-9]*"
_WHOLE = re.compile(r"VDD_IN|POM_5V_IN|VIN_SYS_5V0|VIN", re.IGNORECASE)  # rails of Jetsons that feed all the others
_NS_PER_S = 1e9


@dataclass(frozen=True)
class Reading:
    """Counters and powers at one moment.

    Attributes:
        time_ns: When.
        energy_j: By source, counted from some moment on.
        power_w: By source, where power is all that is told.
    """

    time_ns: int
    energy_j: Mapping[str, float]
    power_w: Mapping[str, float]


@dataclass(frozen=True)
class Meter:
    """Everything on this machine that tells energy or power.

    Attributes:
        system: Where it is read.
        zones: RAPL's packages: name, folder, and the energy in J after which its counter begins again.
        rails: Sensors of a Jetson: label, and the files of mV and mA.
        gpu: That tells energy or power; None where there is none.
    """

    system: System
    zones: tuple[tuple[str, str, float], ...] = ()
    rails: tuple[tuple[str, str, str], ...] = ()
    gpu: NvidiaGpu | None = None

    @classmethod
    def of(cls, system: System, gpu: NvidiaGpu | None) -> Meter:
        """What this machine has."""
        tells = gpu is not None and (gpu.energy_j() is not None or gpu.power_w() is not None)
        return cls(system, _zones(system), _rails(system), gpu if tells else None)

    def why_not(self) -> str:
        """Why no energy can be told; empty where it can."""
        if self.zones or self.rails or self.gpu:
            return ""
        if self.system.paths(_RAPL):
            return "only the administrator may read the processor's energy counter here (energy_uj of /sys/class/powercap)"
        return f"this machine tells {self.system.name} no energy: no RAPL, no NVIDIA GPU that tells it, no sensor of a Jetson's supply"

    def read(self) -> Reading:
        """Now."""
        energy_j = {name: (self.system.number(f"{folder}/energy_uj") or 0.0) / 1e6 for name, folder, _ in self.zones}
        power_w = {}
        for label, volts, amperes in self.rails:
            power_w[label] = (self.system.number(volts) or 0.0) * (self.system.number(amperes) or 0.0) / 1e6
        if self.gpu is not None:
            counted = self.gpu.energy_j()
            if counted is not None:
                energy_j["GPU"] = counted
            else:
                power_w["GPU"] = self.gpu.power_w() or 0.0
        return Reading(self.system.clock(), energy_j, power_w)

    def used(self, first: Reading, last: Reading) -> dict[str, float]:
        """Energy between two readings in J, by source; of a source that tells power alone, the mean of both times the time."""
        found = {}
        around = {name: most for name, _, most in self.zones}
        for name, value in last.energy_j.items():
            taken = value - first.energy_j.get(name, value)
            found[name] = taken if taken >= 0 else taken + around.get(name, 0.0)
        seconds = (last.time_ns - first.time_ns) / _NS_PER_S
        for name, power in last.power_w.items():
            found[name] = (power + first.power_w.get(name, power)) / 2 * seconds
        return found


def energy_of(meter: Meter, turns: list[tuple[int, Mapping[str, float]]]) -> dict[str, Any]:
    """The row's ``energy``: per image, of everything that tells it together, and of each apart.

    Args:
        meter: What was read.
        turns: Images of each turn, and energy by source in J.
    """
    if reason := meter.why_not():
        return {"verdict": "not_run", "reason": reason}
    num_images = sum(num for num, _ in turns)
    names = list(dict.fromkeys(name for _, used in turns for name in used))
    parts = {name: 1000 * sum(used.get(name, 0.0) for _, used in turns) / num_images for name in names}
    return {"verdict": "measured", "mj_per_image": sum(parts.values()), "source": ", ".join(names), "parts_mj_per_image": parts}


def _zones(system: System) -> tuple[tuple[str, str, float], ...]:
    """Packages and, where it is counted apart, memory; cores and the like are parts of a package."""
    found = []
    for folder in system.paths(_RAPL):
        name = system.text(f"{folder}/name") or ""
        if name.startswith(("package", "dram", "psys")) and system.number(f"{folder}/energy_uj") is not None:
            found.append((name, folder, (system.number(f"{folder}/max_energy_range_uj") or 0.0) / 1e6))
    names = [name for name, _, _ in found]
    return tuple((f"RAPL {name}", folder, most) for name, folder, most in found if name != "psys" or len(set(names)) == 1)


def _rails(system: System) -> tuple[tuple[str, str, str], ...]:
    """The rail that feeds all others, or all where none does."""
    found = []
    for path in system.paths("sys/class/hwmon/hwmon*/in*_label"):
        volts, amperes = path.replace("_label", "_input"), path.replace("/in", "/curr").replace("_label", "_input")
        if system.number(volts) is not None and system.number(amperes) is not None:
            found.append((f"INA {system.text(path)}", volts, amperes))
    whole = [rail for rail in found if _WHOLE.search(rail[0])]
    return tuple(whole[:1] or found)
