"""The description that goes with every number."""

from __future__ import annotations

import json
import platform
from types import SimpleNamespace
from typing import Any

import numpy as np

from g2sd_export.edge.machine import describe

Machine = Any
KEYS = {
    *("system", "machine", "cpu", "cpus", "memory_mib", "python", "cpu_quota_cpus", "memory_limit_mib"),
    *("governor", "clocks_mhz", "turbo", "power_mode", "gpu", "libraries"),
}


def test_this_machine_is_described_in_json_values() -> None:
    found = describe()
    assert set(found) == KEYS and json.loads(json.dumps(found)) == found
    assert found["cpus"] >= 1 and found["python"] == platform.python_version() and found["libraries"]["numpy"] == np.__version__


def test_a_machine_is_described_by_what_it_tells(machine: Machine) -> None:
    machine.files.update(
        {
            "proc/cpuinfo": "\n".join(f"processor : {cpu}\nmodel name : Test CPU 9\ncpu MHz : 2100.4" for cpu in (0, 1)),
            "proc/meminfo": "MemTotal:        8048636 kB\nMemFree: 1 kB",
            "sys/devices/system/cpu/intel_pstate/no_turbo": "0",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
            "proc/7/cgroup": "0::/",
            "sys/fs/cgroup/cpu.max": "50000 100000",
        }
    )
    gpu = SimpleNamespace(name=lambda: "G", driver=lambda: "1", power_limit_w=lambda: 70.0)
    found = describe(machine, gpu)
    assert (found["cpu"], found["memory_mib"], found["clocks_mhz"]) == ("Test CPU 9", 7859, [2100, 2100])
    assert (found["turbo"], found["governor"], found["cpu_quota_cpus"]) == (True, "schedutil", 0.5)
    assert found["gpu"] == {"name": "G", "driver": "1", "power_limit_w": 70.0}


def test_a_board_without_a_model_name_is_told_by_its_own(machine: Machine) -> None:
    machine.files["proc/device-tree/model"] = "NVIDIA Jetson Orin Nano"
    machine.files["sys/devices/system/cpu/cpufreq/boost"] = "0"
    found = describe(machine)
    assert (found["cpu"], found["turbo"], found["memory_mib"], found["gpu"]) == ("NVIDIA Jetson Orin Nano", False, None, None)
