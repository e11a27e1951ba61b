"""`g2sd watch` as a process: beside a real run that trains, on a pipe, and where there is nothing to watch."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from g2sd_deploy.cli import app

Line = Callable[..., list[str]]
SHORT = ("--smoke", "--device", "cpu", "--until", "generic", "--set", "generic.loss_band=null")
_CHANGED = (
    "data.max_train_images=64",
    "data.max_test_images=10",
    "generic.batch_size=16",
    "generic.loss_band=null",
    "generic.epochs=100000",
)
ENDLESS = ("--device", "cpu", "--until", "generic", *(word for setting in _CHANGED for word in ("--set", setting)))


@pytest.fixture
def started(environment: dict[str, str], g2sd_line: Line) -> Callable[..., Any]:
    """Starts `g2sd ARGUMENTS`, and ends it with the test."""

    @contextmanager
    def start(*arguments: object) -> Iterator[subprocess.Popen[str]]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen(g2sd_line(*arguments), **pipes) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    return start


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def answer() -> Callable[..., Answer]:
    """What `g2sd ARGUMENTS` answers; run in this process, for a look takes much less than a start."""

    def invoke(*arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return Answer(result.exit_code, result.stdout, result.stderr)

    return invoke


def test_a_real_training_is_seen_while_it_goes_on(started: Callable[..., Any], answer: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started("run", "quickstart", "--out", out, *ENDLESS, "--checkpoint-every", "50") as run:
        first, second = trainings(answer, out, run, 2)
    stage, training = first["stages"][2], first["stages"][2]["training"]
    assert (stage["name"], stage["state"]) == ("generic", "running")
    assert training["num_steps"] == 400_000 and 0 < training["done_steps"] < second["stages"][2]["training"]["done_steps"]
    assert training["row_age_s"] >= 0 and training["seconds_left"] > 0 and training["images_per_s"] > 0
    if Path("/proc/locks").is_file():
        assert (first["holder"]["state"], first["holder"]["pid"]) == ("alive", run.pid)
    assert second["stages"][2]["checkpoint"]["num_steps"] % 50 == 0 and not second["ended"]


def trainings(answer: Callable[..., Any], out: Path, run: subprocess.Popen[str], num: int) -> list[dict[str, Any]]:
    """The first looks at which the run trains and has a checkpoint, each at another step."""
    seen: dict[int, dict[str, Any]] = {}
    while len(seen) < num:
        assert run.poll() is None, run.communicate()
        found = answer("watch", out, "--once", "--json")
        assert found.code == 0 or "no run there yet" in found.err, found.err
        view = json.loads(found.out) if found.code == 0 else None
        if view and view["stages"][2]["training"] and view["stages"][2]["checkpoint"]:
            seen.setdefault(view["stages"][2]["training"]["done_steps"], view)
    return list(seen.values())


def test_a_view_on_a_pipe_waits_for_a_run_tells_its_stages_and_ends_with_the_last(started: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started("watch", out, "--refresh", 0.2) as watching:
        assert watching.stdout.readline() == f"waiting for {out}: no run there yet: it has no run.json\n"
        with started("run", "quickstart", "--out", out, *SHORT) as run:
            assert run.wait(120) == 0, run.communicate()
        told = watching.communicate(timeout=60)
    assert (watching.returncode, told[1]) == (0, "")
    lines = told[0].splitlines()
    assert [line.partition(" done in")[0] for line in lines if " done in" in line] == ["data:", "teacher:", "generic:"], lines
    assert lines[-1] == "all stages are done"


def test_ctrl_c_ends_the_view_quietly(started: Callable[..., Any], tmp_path: Path) -> None:
    with started("watch", tmp_path / "none") as watching:
        assert watching.stdout.readline().startswith("waiting for ")
        watching.send_signal(signal.SIGINT)
        rest = watching.communicate(timeout=30)
    assert (watching.returncode, rest) == (0, ("", ""))


def test_a_run_that_was_killed_is_told_by_once(started: Callable[..., Any], answer: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started("run", "quickstart", "--out", out, *ENDLESS) as run:
        limit = time.monotonic() + 100
        while not (out / "metrics.jsonl").is_file() and time.monotonic() < limit:
            time.sleep(0.2)
        run.kill()
        run.wait(30)
    found = answer("watch", out, "--once")
    assert found.code == 0, found.err
    if Path("/proc/locks").is_file():
        assert "generic" in found.out and "stopped" in found.out
        assert "no process of this machine holds the run's lock; the same command goes on from what is there" in " ".join(found.out.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("none", "--once"), "no run there yet: it has no run.json; give the folder of a run"),
        (("none", "--json"), "--json: shows one moment; add --once"),
        (("file", "--once"), "is a file; give the folder of a run"),
        (("file",), "is a file; give the folder of a run"),
    ],
)
def test_what_cannot_be_watched_is_told_in_one_line(
    arguments: tuple[str, ...], told: str, answer: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    found = answer("watch", tmp_path / arguments[0], *arguments[1:])
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: ") and told in found.err and found.err.count("\n") == 1
