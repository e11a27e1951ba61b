"""Power modes and counters of boards."""

from __future__ import annotations

from typing import Any

from g2sd_export.edge.throttling import ThrottleFiles, power_mode

Machine = Any
CONF = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MODE_15W_6CORE >\n< PM_CONFIG DEFAULT=2 >"


def test_a_jetson_says_its_power_mode(machine: Machine) -> None:
    machine.files["etc/nvpmodel.conf"] = CONF
    machine.commands["nvpmodel -q"] = "NV Power Mode: MODE_15W_6CORE\n2"
    assert power_mode(machine) == "MODE_15W_6CORE"


def test_without_the_command_the_power_mode_is_read_from_its_files(machine: Machine) -> None:
    machine.files["etc/nvpmodel.conf"] = CONF
    assert power_mode(machine) is None
    machine.files["var/lib/nvpmodel/status"] = "pmode:0002"
    assert power_mode(machine) == "MODE_15W_6CORE"
    machine.files["var/lib/nvpmodel/status"] = "pmode:0007"
    assert power_mode(machine) == "mode 7"


def test_no_other_machine_is_asked_for_a_power_mode(machine: Machine) -> None:
    machine.commands["nvpmodel -q"] = "NV Power Mode: MAXN\n0"
    assert power_mode(machine) is None


def test_events_of_all_counters_are_added_and_files_without_a_number_left_out(machine: Machine) -> None:
    machine.files.update(
        {
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2",
            "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "3",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms": "900",
            "sys/class/hwmon/hwmon1/oc1_event_cnt": "4",
            "sys/class/hwmon/hwmon1/oc2_event_cnt": "",
        }
    )
    found = ThrottleFiles.of(machine)
    assert len(found.counters) == 3 and found.count(machine) == 9
