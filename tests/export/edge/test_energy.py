"""Energy per image, from whatever this machine counts it with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from g2sd_export.edge.energy import Meter, energy_of

Machine = Any
PACKAGE, CORE, DRAM = ("sys/class/powercap/intel-rapl:0", "sys/class/powercap/intel-rapl:0:0", "sys/class/powercap/intel-rapl:0:1")


def zone(machine: Machine, folder: str, name: str, energy_uj: int, most_uj: int = 1_000_000) -> None:
    machine.files.update({f"{folder}/name": name, f"{folder}/energy_uj": str(energy_uj), f"{folder}/max_energy_range_uj": str(most_uj)})


def used(machine: Machine, meter: Meter, ms: float, **after: str) -> dict[str, float]:
    first = meter.read()
    machine.work(ms)
    machine.files.update(after)
    return meter.used(first, meter.read())


def test_packages_and_memory_are_counted_and_their_parts_are_not_counted_twice(machine: Machine) -> None:
    zone(machine, PACKAGE, "package-0", 100_000)
    zone(machine, CORE, "core", 50_000)
    zone(machine, DRAM, "dram", 10_000)
    meter = Meter.of(machine, None)
    found = used(machine, meter, 10, **{f"{PACKAGE}/energy_uj": "400000", f"{DRAM}/energy_uj": "60000", f"{CORE}/energy_uj": "300000"})
    assert found == {"RAPL package-0": pytest.approx(0.3), "RAPL dram": pytest.approx(0.05)}


def test_a_counter_that_begins_again_loses_nothing(machine: Machine) -> None:
    zone(machine, PACKAGE, "package-0", 900_000)
    found = used(machine, Meter.of(machine, None), 10, **{f"{PACKAGE}/energy_uj": "150000"})
    assert found == {"RAPL package-0": pytest.approx(0.25)}


def test_the_supply_of_a_jetson_is_power_over_time(machine: Machine) -> None:
    for place, label in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV")):
        path = f"sys/class/hwmon/hwmon4/{{}}{place}_{{}}"
        machine.files.update({path.format("in", "label"): label, path.format("in", "input"): "5000", path.format("curr", "input"): "1000"})
    meter = Meter.of(machine, None)
    found = used(machine, meter, 2000, **{"sys/class/hwmon/hwmon4/curr1_input": "2000"})
    assert found == {"INA VDD_IN": pytest.approx((5 + 10) / 2 * 2)}  # that rail feeds all others


def test_rails_that_no_other_feeds_are_added(machine: Machine) -> None:
    for place, label in ((1, "GPU"), (2, "CPU")):
        path = f"sys/class/hwmon/hwmon4/{{}}{place}_{{}}"
        machine.files.update({path.format("in", "label"): label, path.format("in", "input"): "5000", path.format("curr", "input"): "1000"})
    assert used(machine, Meter.of(machine, None), 1000) == {"INA GPU": pytest.approx(5), "INA CPU": pytest.approx(5)}


def test_a_gpu_counts_its_energy_or_tells_its_power(machine: Machine) -> None:
    joules = iter([10.0, 10.0, 14.0])
    counting = SimpleNamespace(energy_j=lambda: next(joules), power_w=lambda: 50.0)
    assert used(machine, Meter.of(machine, counting), 100) == {"GPU": 4.0}
    telling = SimpleNamespace(energy_j=lambda: None, power_w=lambda: 50.0)
    assert used(machine, Meter.of(machine, telling), 100) == {"GPU": pytest.approx(5.0)}


def test_energy_is_told_per_image_of_all_turns(machine: Machine) -> None:
    zone(machine, PACKAGE, "package-0", 0)
    found = energy_of(Meter.of(machine, None), [(10, {"RAPL package-0": 2.0, "GPU": 1.0}), (30, {"RAPL package-0": 4.0, "GPU": 1.0})])
    assert found["verdict"] == "measured" and found["source"] == "RAPL package-0, GPU"
    assert found["mj_per_image"] == pytest.approx(200.0) and found["parts_mj_per_image"]["RAPL package-0"] == pytest.approx(150.0)


def test_where_nothing_tells_it_the_reason_is_given(machine: Machine) -> None:
    found = energy_of(Meter.of(machine, None), [(1, {})])
    assert found["verdict"] == "not_run" and "no RAPL" in found["reason"]
    machine.files[f"{PACKAGE}/name"] = "package-0"  # the counter is there, and closed to us
    assert "only the administrator may read" in energy_of(Meter.of(machine, None), [(1, {})])["reason"]
