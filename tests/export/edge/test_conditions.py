"""What disturbed a measurement is read off the machine, and never off the latencies."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.edge.conditions import Counters, Watch, added
from g2sd_export.edge.system import System

Machine = Any


def signs_of(machine: Machine, ms: float = 1000.0, **more: Any) -> list[str]:
    """What a second of our work shows."""
    watch = Watch(machine, None)
    first = watch.counters()
    machine.work(ms)
    return [str(sign) for sign in watch.signs(first, watch.counters(), **more)]


def test_our_own_work_is_no_disturbance(machine: Machine) -> None:
    assert signs_of(machine) == []


def test_a_busy_neighbour_is_told_with_what_it_used(machine: Machine) -> None:
    machine.others = lambda now_s: 0.62
    assert signs_of(machine) == ["other processes used 31 % of the processors"]


def test_slight_load_is_let_pass_and_is_looked_for_in_longer_times(machine: Machine) -> None:
    machine.others = lambda now_s: 0.11
    assert signs_of(machine, 250) == []  # as little as the counters' ticks leave open
    assert signs_of(machine, 10_000) == ["other processes used 6 % of the processors"]


def test_one_busy_neighbour_is_seen_among_many_processors(machine: Machine) -> None:
    machine.num_cpus = 64
    machine.others = lambda now_s: 1.0
    assert signs_of(machine, 5000) == ["other processes used 2 % of the processors"]


def test_time_that_a_hypervisor_takes_is_told(machine: Machine) -> None:
    machine.stolen = lambda now_s: 0.2
    assert signs_of(machine) == ["the hypervisor took 10 % of the processors"]


def test_only_our_own_processors_are_looked_at(machine: Machine) -> None:
    machine.others = lambda now_s: 1.0
    machine.cpus = lambda: (1,)  # the neighbour is on processor 0
    assert signs_of(machine) == []


def counting(machine: Machine, path: str, before: str, after: str) -> list[str]:
    """The signs of a second in which a file changed."""
    machine.files[path] = before
    watch = Watch(machine, None)
    first = watch.counters()
    machine.work(1000)
    machine.files[path] = after
    return [str(sign) for sign in watch.signs(first, watch.counters())]


def test_a_processor_that_counts_throttling_makes_the_time_void(machine: Machine) -> None:
    path = "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count"
    assert counting(machine, path, "5", "8") == ["the processor slowed itself down 3 times"]
    assert counting(machine, path, "8", "8") == []


def test_a_jetson_whose_current_was_too_high_makes_the_time_void(machine: Machine) -> None:
    assert counting(machine, "sys/class/hwmon/hwmon3/oc2_event_cnt", "0", "1") == ["the processor slowed itself down 1 times"]


def test_a_container_that_its_quota_stopped_makes_the_time_void(machine: Machine) -> None:
    machine.files["proc/7/cgroup"] = "0::/box"
    stat = "usage_usec 100\nnr_periods 10\nnr_throttled {}\nthrottled_usec 5"
    found = counting(machine, "sys/fs/cgroup/box/cpu.stat", stat.format(2), stat.format(6))
    assert found == ["the container's processor quota stopped it 4 times"]


def test_waiting_for_memory_makes_the_time_void(machine: Machine) -> None:
    pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={}"
    path = "proc/pressure/memory"
    assert counting(machine, path, pressure.format(0), pressure.format(300_000)) == ["memory was short for 30 % of the time"]
    assert counting(machine, path, pressure.format(0), pressure.format(9_000)) == []


def test_a_clock_below_the_usual_one_makes_the_time_void(machine: Machine) -> None:
    machine.files["sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"] = "1200000"
    machine.files["sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq"] = "2400000"
    assert signs_of(machine, usual_mhz=2500.0) == []
    machine.files["sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq"] = "1500000"
    assert signs_of(machine, usual_mhz=2500.0) == ["the clock fell to 60 % of the usual"]
    assert signs_of(machine) == []  # nothing to compare with yet


@pytest.mark.parametrize(("kind", "state", "slows"), [("cpufreq-cpu0", "3", True), ("cpufreq-cpu0", "0", False), ("pwm-fan", "3", False)])
def test_what_is_cooled_by_slowing_it_down_makes_the_time_void(machine: Machine, kind: str, state: str, slows: bool) -> None:
    machine.files["sys/class/thermal/cooling_device0/type"] = kind
    machine.files["sys/class/thermal/cooling_device0/cur_state"] = state
    assert signs_of(machine) == ([f"{kind} is held back to stay cool"] if slows else [])


def test_a_raspberry_pi_on_a_weak_supply_makes_the_time_void(machine: Machine) -> None:
    machine.files["sys/devices/platform/soc/soc:firmware/get_throttled"] = "50005"
    assert signs_of(machine) == ["the supply's voltage is too low", "the firmware throttles the processor"]
    machine.files["sys/devices/platform/soc/soc:firmware/get_throttled"] = "50000"  # it was, before we came
    assert signs_of(machine) == []


def test_a_machine_that_does_not_tell_is_not_judged(machine: Machine) -> None:
    machine.has_stat, machine.name = False, "Darwin"
    assert signs_of(machine) == []
    assert Watch(machine, None).unjudged() == "Darwin does not tell this program what other processes do (there is no /proc/stat)"


def test_stretches_of_time_add_up_without_what_lies_between_them() -> None:
    readings = [Counters(time_ns=0, own_s=1.0, busy_s=5.0), Counters(time_ns=10, own_s=2.0, busy_s=7.0)]
    later = [Counters(time_ns=100, own_s=2.0, busy_s=9.0), Counters(time_ns=130, own_s=4.0, busy_s=11.5)]
    first, last = added([readings[0], later[0]]), added([readings[1], later[1]])
    assert (last.time_ns - first.time_ns, last.own_s - first.own_s, (last.busy_s or 0) - (first.busy_s or 0)) == (40, 3.0, 4.5)
    assert first.stolen_s is None


def test_a_snapshot_holds_what_the_machine_tells_and_names_what_it_does_not(machine: Machine) -> None:
    machine.files.update(
        {
            "proc/loadavg": "0.52 0.30 0.10 1/99 1234",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance",
            "sys/class/thermal/thermal_zone0/temp": "41500",
            "sys/class/thermal/thermal_zone1/temp": "-256000",  # a sensor that is off
            "proc/pressure/cpu": "some avg10=1.25 avg60=0.00 avg300=0.00 total=9",
        }
    )
    assert Watch(machine, None).snapshot() == {
        "load_1m": 0.52,
        "clocks_mhz": [1800],
        "governor": "performance, powersave",
        "temperature_c": 41.5,
        "cpu_pressure_percent": 1.25,
        "unknown": {"throttle_count": "the processor shows no counter of throttling"},
    }
    machine.files.clear()
    assert set(Watch(machine, None).snapshot()["unknown"]) == {"load_1m", "clocks_mhz", "governor", "temperature_c", "throttle_count"}


def test_the_clock_of_a_jetsons_gpu_is_read_where_there_is_no_other(machine: Machine) -> None:
    machine.files["sys/class/devfreq/17000000.ga10b/cur_freq"] = "612000000"
    machine.files["sys/class/devfreq/15480000.nvdec/cur_freq"] = "268800000"
    assert Watch(machine, None).snapshot()["gpu"] == {"clock_mhz": 612}


def test_files_are_read_below_the_root_and_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "sys/a1").mkdir(parents=True)
    (tmp_path / "sys/a1/value").write_bytes(b"42\0\n")
    (tmp_path / "sys/a1/words").write_text("no number\n")
    system = System(tmp_path)
    assert system.text("sys/a1/value") == "42" and system.number("sys/a1/value") == 42.0
    assert system.number("sys/a1/words") is None and system.text("sys/a1") is None and system.text("sys/absent") is None
    assert system.paths("sys/a*/v*") == ["sys/a1/value"]
    assert system.command("no-such-command-here") is None and system.command(sys.executable, "-c", "print(6)") == "6"


def test_our_own_time_is_that_of_processes_that_we_started_too() -> None:
    system = System()
    before_s, mine_s = system.own_cpu_s(), time.process_time()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert system.own_cpu_s() - before_s >= 0.5 > time.process_time() - mine_s


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells the time of processes that still run")
def test_a_process_that_we_started_counts_while_it_runs() -> None:
    system = System()
    before_s = system.own_cpu_s() - time.process_time()
    used_s = 0.0
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        deadline = time.perf_counter() + 60
        while used_s < 0.3 and time.perf_counter() < deadline:
            time.sleep(0.05)
            used_s = system.own_cpu_s() - time.process_time() - before_s
        child.kill()
    assert used_s >= 0.3


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells the load of other processes")
def test_a_busy_loop_in_other_processes_is_seen_on_the_real_machine() -> None:
    watch = Watch(_Apart(), None)
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in watch.system.cpus()]
    try:
        deadline = time.perf_counter() + 60
        seen: list[Any] = []
        while not seen and time.perf_counter() < deadline:
            first = watch.counters()
            time.sleep(0.5)
            seen = [sign for sign in watch.load_signs(first, watch.counters()) if sign.amount > 25]
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert str(seen[0]).startswith("other processes used ")


class _Apart(System):
    """This machine, with the processes that we started counted as others'."""

    def own_cpu_s(self) -> float:
        return time.process_time()
