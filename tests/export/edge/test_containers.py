"""Limits of control groups, of both versions, of the group and of those around it."""

from __future__ import annotations

from typing import Any

import pytest

from g2sd_export.edge.containers import cpu_quota_cpus, held_back, memory_limit_mib

Machine = Any


@pytest.fixture
def inside_v2(machine: Machine) -> Machine:
    """A group of version 2 in another that allows less."""
    machine.files.update(
        {
            "proc/7/cgroup": "0::/outer/inner",
            "sys/fs/cgroup/outer/cpu.max": "150000 100000",
            "sys/fs/cgroup/outer/inner/cpu.max": "max 100000",
            "sys/fs/cgroup/outer/memory.max": "max",
            "sys/fs/cgroup/outer/inner/memory.max": str(512 * 2**20),
            "sys/fs/cgroup/outer/cpu.stat": "nr_periods 9\nnr_throttled 4\n",
            "sys/fs/cgroup/outer/inner/cpu.stat": "nr_periods 9\nnr_throttled 1\n",
        }
    )
    return machine


@pytest.fixture
def inside_v1(machine: Machine) -> Machine:
    """A container of version 1, whose own group is the root of what it sees."""
    machine.files.update(
        {
            "proc/7/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n1:name=systemd:/docker/abc",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 20\nnr_throttled 7\nthrottled_time 5",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**30),
        }
    )
    return machine


def test_the_least_of_all_groups_around_is_what_is_allowed(inside_v2: Machine) -> None:
    assert (cpu_quota_cpus(inside_v2), memory_limit_mib(inside_v2), held_back(inside_v2)) == (1.5, 512.0, 5)


def test_the_older_version_is_read_where_the_container_sees_it(inside_v1: Machine) -> None:
    assert (cpu_quota_cpus(inside_v1), memory_limit_mib(inside_v1), held_back(inside_v1)) == (0.5, 1024.0, 7)


def test_no_limit_is_none_however_it_is_written(machine: Machine) -> None:
    assert (cpu_quota_cpus(machine), memory_limit_mib(machine), held_back(machine)) == (None, None, 0)
    machine.files["proc/7/cgroup"] = "5:cpu:/\n4:memory:/\n0::/"
    machine.files.update({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"})
    machine.files.update({"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712", "sys/fs/cgroup/cpu.max": "max 100000"})
    assert (cpu_quota_cpus(machine), memory_limit_mib(machine)) == (None, None)
