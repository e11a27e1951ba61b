"""Who holds a run's lock, asked without touching it."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.run_folder import locked
from g2sd_deploy.watching.holder import find_holder

linux = pytest.mark.skipif(not Path("/proc/locks").is_file(), reason="the system does not list its locks")


def dead_pid() -> int:
    """Number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@linux
def test_a_run_of_this_machine_is_alive_while_it_holds_its_lock_and_gone_afterwards(tmp_path: Path) -> None:
    with locked(tmp_path):
        found = find_holder(tmp_path)
        assert (found.state, found.pid, found.host) == ("alive", os.getpid(), platform.node())
        assert found.since.endswith("Z")
    after = find_holder(tmp_path)
    assert (after.state, after.pid) == ("gone", os.getpid())


@linux
def test_a_run_that_was_refused_leaves_the_holders_name(tmp_path: Path) -> None:
    with locked(tmp_path):
        before = find_holder(tmp_path)
        with pytest.raises(UserError, match="another g2sd run is writing there"), locked(tmp_path):
            pass
        assert find_holder(tmp_path) == before


def test_a_run_of_another_machine_is_neither_alive_nor_dead(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"host": "node7", "pid": os.getpid(), "since": "2026-11-22T12:00:00Z"}))
    found = find_holder(tmp_path)
    assert (found.state, found.host) == ("elsewhere", "node7")


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"host": "a"}', '{"host": "a", "pid": "x", "since": ""}'])
def test_a_lock_that_says_nothing_tells_nothing(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / ".lock").write_text(content)
    assert find_holder(tmp_path).state == "unknown"


def test_where_the_system_lists_no_locks_the_process_itself_is_asked_for(tmp_path: Path) -> None:
    def told(pid: int) -> str:
        (tmp_path / ".lock").write_text(json.dumps({"host": "here", "pid": pid, "since": ""}))
        return find_holder(tmp_path, tmp_path / "no such file", "here").state

    assert (told(os.getpid()), told(dead_pid())) == ("alive", "gone")


def test_another_process_with_the_number_of_one_that_ended_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"host": "here", "pid": os.getpid(), "since": ""}))
    (tmp_path / "locks").write_text("1: FLOCK  ADVISORY  WRITE 1 fe:00:1 0 EOF\n2: POSIX ADVISORY READ 3 00:1c:5 128 128\nnonsense\n")
    assert find_holder(tmp_path, tmp_path / "locks", "here").state == "gone"


def test_a_lock_shown_under_another_device_is_known_by_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"host": "here", "pid": 4321, "since": "2026-11-22T12:00:00Z"}))
    (tmp_path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 4321 ff:ff:{path.stat().st_ino} 0 EOF\n")
    assert find_holder(tmp_path, tmp_path / "locks", "here").state == "alive"
    (tmp_path / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 99 ff:ff:{path.stat().st_ino} 0 EOF\n")
    assert find_holder(tmp_path, tmp_path / "locks", "here").state == "gone"
