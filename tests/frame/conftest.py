"""The command line in this process, stages that cost nothing, and one real smoke run per session."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import g2sd_deploy
import g2sd_export
from g2sd_deploy import artifact, pipeline, planning
from g2sd_deploy.artifact import Made
from g2sd_deploy.data.idx import write_idx
from g2sd_deploy.planning import Step
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe

# A forward pass that may use two threads where one core is free takes a hundred times as long.
# One candidate: which of several ships is a matter of latency, and so of the moment.
FAST = ("--smoke", "--set", "profile.threads=1", "--set", "export.only=[fp32-onnxruntime]", "--device", "cpu")


@dataclass(frozen=True)
class Answer:
    """What a command left: exit status, and what it wrote where."""

    code: int
    out: str
    err: str


def g2sd_command(*arguments: object) -> Answer:
    """Run `g2sd ARGUMENTS` in this process; an exception that reaches the user fails the test."""
    from g2sd_deploy.cli import app

    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def g2sd() -> Callable[..., Answer]:
    return g2sd_command


@pytest.fixture(scope="session")
def process_environment() -> dict[str, str]:
    """For a process of its own in any folder: where the packages are."""
    roots = {str(Path(str(package.__file__)).parent.parent) for package in (g2sd_deploy, g2sd_export)}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(roots)), "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class SmokeRun:
    """A finished smoke run of the quickstart and what the command wrote."""

    folder: Path
    answer: Answer
    arguments: tuple[str, ...]


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> SmokeRun:
    """Not to be changed; see `own_run`."""
    folder = tmp_path_factory.mktemp("smoke") / "quickstart"
    arguments = ("run", "quickstart", *FAST)
    return SmokeRun(folder, g2sd_command(*arguments, "--out", folder), arguments)


@pytest.fixture
def own_run(smoke_run: SmokeRun, tmp_path: Path) -> Path:
    """A copy of the smoke run that the test may damage."""
    return Path(shutil.copytree(smoke_run.folder, tmp_path / "run"))


class MakeImages(Protocol):
    """Writes SPLIT/CLASS/IMAGE files of random colours."""

    def __call__(self, root: Path, splits: tuple[str, ...] = ..., *, classes: int = 4, per_class: int = 24, px: int = 40) -> Path: ...


@pytest.fixture(scope="session")
def make_image_folder() -> MakeImages:
    def make(root: Path, splits: tuple[str, ...] = ("train", "test"), *, classes: int = 4, per_class: int = 24, px: int = 40) -> Path:
        rng = np.random.default_rng(0)
        for split in splits:
            for name in (f"class{i}" for i in range(classes)):
                (root / split / name).mkdir(parents=True)
                for i in range(per_class):
                    pixels = rng.integers(0, 256, (px, px + 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / split / name / f"{i:03}.jpg")
        return root

    return make


@pytest.fixture(scope="session")
def make_idx_folder() -> Callable[[Path], Path]:
    """Writes four IDX files of random 28 px images in ten classes."""

    def make(root: Path) -> Path:
        root.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for split, num in (("train", 100), ("t10k", 50)):
            write_idx(root / f"{split}-images-idx3-ubyte.gz", rng.integers(0, 256, (num, 28, 28), dtype=np.uint8))
            write_idx(root / f"{split}-labels-idx1-ubyte.gz", (np.arange(num) % 10).astype(np.uint8))
        return root

    return make


@dataclass
class FakeStages:
    """Stands for every stage: writes what its settings and its inputs say, so that a change of either changes its digest.

    Attributes:
        ran: Names of the stages that ran, in order.
        failures: Stage to the reason of its failed verdict.
        raises: Stage to what it raises once it has written half a file.
        constant: Stages whose result is the same whatever their settings.
    """

    ran: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    raises: dict[str, BaseException] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)

    def __call__(self, module: str) -> "FakeStages":
        assert module.startswith("g2sd_deploy.stages."), module
        return self

    def run(self, context: Any) -> Made:
        (context.folder / "half.txt").write_text("half")
        if context.stage in self.raises:
            raise self.raises[context.stage]
        self.ran.append(context.stage)
        config = next(stage.config for stage in planning.stages_of(context.recipe) if stage.name == context.stage)
        made_of = {"config": config, "inputs": {role: artifact.digest for role, artifact in context.inputs.items()}}
        (context.folder / "half.txt").unlink()
        (context.folder / "result.json").write_text(json.dumps({} if context.stage in self.constant else made_of, default=str))
        return Made({"stage": context.stage}, timing={"seconds": len(self.ran)}, failure=self.failures.get(context.stage, ""))

    def take(self) -> list[str]:
        """The stages that ran since the last call."""
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    fake = FakeStages()
    monkeypatch.setattr(pipeline, "import_module", fake)
    monkeypatch.setattr(artifact, "sync", lambda path: None)  # what a crash of the machine leaves is tested with the artifacts
    return fake


@pytest.fixture
def run_recipe(tmp_path: Path) -> Callable[..., list[Step]]:
    """Run a recipe in the folder `out` of the test."""

    def run(recipe: Recipe, **options: Any) -> list[Step]:
        arguments = {"runtime": Runtime(torch.device("cpu")), "progress": SilentProgress(), "command": "g2sd run"} | options
        return pipeline.run(recipe, tmp_path / "out", **arguments)  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def python() -> str:
    return sys.executable


@dataclass
class Process:
    """A `g2sd` command in a process of its own."""

    server: "G2sdServer"
    pid: int
    log: Path
    exit_code: int | None = None

    @property
    def err(self) -> str:
        path = self.log.with_suffix(".err")
        return path.read_text() if path.is_file() else ""

    @property
    def out(self) -> str:
        return self.log.with_suffix(".out").read_text()

    def is_over(self) -> bool:
        if self.exit_code is None and (status := self.server.ask({"poll": self.pid})) is not None:
            self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code is not None

    def wait(self, limit_s: float = 300.0) -> int:
        """Its exit code; a negative one is the signal that killed it."""
        wait_until(self.is_over, limit_s, f"{self.log} did not end: {self.err}")
        assert self.exit_code is not None
        return self.exit_code

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def error_line(self) -> str:
        """What it said at its end: one line, and no traceback."""
        assert "Traceback" not in self.err, self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line


def wait_until(is_so: Callable[[], bool], limit_s: float, message: str) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, message
        time.sleep(0.005)


class G2sdServer:
    """Starts `g2sd` commands in processes of their own, forked from one that has loaded the libraries."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, str(Path(__file__).with_name("g2sd_server.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
        self._num_started = 0

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, folder: Path, *arguments: object, first: str = "", **environment: object) -> Process:
        """Start `g2sd ARGUMENTS` in a folder.

        Args:
            folder: Working folder; output is kept there, too.
            first: Python that the process runs before.
            environment: Variables beside those of this process.
        """
        self._num_started += 1
        log = folder / f"process_{self._num_started}"
        named = {name: str(value) for name, value in environment.items()}
        words = [str(argument) for argument in arguments]
        pid = self.ask({"start": words, "log": str(log), "folder": str(folder), "environment": named, "first": first})
        return Process(self, pid, log)

    def start_ranks(self, num: int, folder: Path, *arguments: object, first: str = "") -> list[Process]:
        """Start one command in several processes that meet, with the variables that torchrun gives them."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": num, "LOCAL_WORLD_SIZE": num, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [self.start(folder, *arguments, first=first, RANK=rank, LOCAL_RANK=rank, **shared) for rank in range(num)]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> Callable[[Callable[[], bool], float, str], None]:
    return wait_until


@pytest.fixture(scope="session")
def server(process_environment: dict[str, str]) -> Iterator[G2sdServer]:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    server = G2sdServer(process_environment)
    yield server
    server.close()
