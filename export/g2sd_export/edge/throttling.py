"""Signs that a machine slows itself down: counters of events, cooling at work, and what boards say of their supply and power mode."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .system import System

_EVENTS = (
    "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count",  # Intel
    "sys/class/hwmon/hwmon*/oc*_event_cnt",  # Jetson: over-current
    "sys/class/hwmon/hwmon*/oc*_throt_cnt",
)
_COOLING = re.compile(r"cpu|gpu|processor|devfreq|throttl|thermal-", re.IGNORECASE)  # and not fans, nor a screen's brightness
_NO_COOLING = re.compile(r"fan", re.IGNORECASE)
_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_NOW = {
    0: "the supply's voltage is too low",
    1: "the firmware caps the clock",
    2: "the firmware throttles the processor",
    3: "the soft limit of heat acts",
}


@dataclass(frozen=True)
class ThrottleFiles:
    """Where this machine counts and shows that it slows down; found once, read often.

    Attributes:
        counters: Files that count events.
        cooling: State files of devices that slow something down, by what they slow down.
    """

    counters: tuple[str, ...]
    cooling: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, system: System) -> ThrottleFiles:
        """Those that can be read."""
        counters = [path for pattern in _EVENTS for path in system.paths(pattern) if system.number(path) is not None]
        cooling = []
        for path in system.paths("sys/class/thermal/cooling_device*/type"):
            kind = system.text(path) or ""
            state = f"{path.rpartition('/')[0]}/cur_state"
            if _COOLING.search(kind) and not _NO_COOLING.search(kind) and system.number(state) is not None:
                cooling.append((kind, state))
        return cls(tuple(counters), tuple(cooling))

    def count(self, system: System) -> int:
        """Events until now."""
        return int(sum(system.number(path) or 0 for path in self.counters))

    def active(self, system: System) -> tuple[str, ...]:
        """What slows the machine down at this moment, in words."""
        cooling = [f"{kind} is held back to stay cool" for kind, path in self.cooling if (system.number(path) or 0) > 0]
        return tuple(dict.fromkeys([*cooling, *board_complaints(system)]))


def board_complaints(system: System) -> list[str]:
    """What a Raspberry Pi's firmware says against the board at this moment."""
    try:
        flags = int(system.text(_PI) or "", 16)
    except ValueError:
        return []
    return [words for bit, words in _PI_NOW.items() if flags >> bit & 1]


def power_mode(system: System) -> str | None:
    """The power mode of a Jetson, as ``nvpmodel`` names it; None on other machines."""
    if system.text("etc/nv_tegra_release") is None and system.text("etc/nvpmodel.conf") is None:
        return None
    said = system.command("nvpmodel", "-q") or ""
    if named := re.search(r"Power Mode:\s*(\S+)", said):
        return named.group(1)
    kept = re.search(r"pmode:(\d+)", system.text("var/lib/nvpmodel/status") or "")
    if kept is None:
        return None
    listed = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", system.text("etc/nvpmodel.conf") or "")
    names: dict[int, str] = {int(number): name for number, name in listed}
    return names.get(int(kept.group(1)), f"mode {int(kept.group(1))}")
