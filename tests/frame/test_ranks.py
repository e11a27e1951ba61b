"""Several processes train as one does: the same images under the same masks, the same losses, one set of files."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from g2sd_deploy.artifact import read_artifact

ROOT = Path(__file__).parents[2]
STAGES = ("pretrain", "finetune", "generic", "specific")
RECIPE = """
name: ranks
data: {source: idx, root: "bundled:fashion-mnist", image_px: 28, num_channels: 1, mean: [0.286], std: [0.353], max_train_images: 64,
       max_test_images: 20}
pretrain: {encoder: {patch_px: 7, width: 16, depth: 2, heads: 2}, decoder: {width: 8, depth: 1, heads: 1}, epochs: 3, batch_size: 16,
           base_lr: 1.0e-2}
finetune: {pooling: mean, epochs: 3, batch_size: 16, base_lr: 1.0e-2, mix: {mixup: 0.8, cutmix: 1.0}}
student: {patch_px: 7, width: 8, depth: 2, heads: 1}
generic: {method: custom, builder: "seeing:build", color_jitter: 0.4, epochs: 3, batch_size: 16, base_lr: 1.0e-2, clip_grad: 0.5}
specific: {method: custom, loss: "seeing:loss", epochs: 3, batch_size: 16, base_lr: 1.0e-2, drop_path: 0.3, clip_grad: 0.5, ema_decay: 0.9,
           mix: {mixup: 0.8, cutmix: 1.0}, augment: {erasing: 0.5}}
"""
SEEING = '''
"""Methods that write down what each process is shown at each step."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RANK, NUM = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
calls = {}


def note(stage, **arrays):
    calls[stage] = calls.get(stage, -1) + 1
    folder = Path(os.environ["SEEN"])
    folder.mkdir(exist_ok=True)
    number = calls[stage] - (NUM > 1 and "SHARD" not in os.environ)  # one more call tries the network on nothing
    np.savez(folder / f"{stage}-{number}-{RANK}.npz", **{name: value.detach().numpy() for name, value in arrays.items()})


class Learner(nn.Module):
    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, views):
        note("generic", images=views.images, student_images=views.student_images, noise=views.mask_noise, drops=views.drop_draws)
        tokens = self.student(views.student_images)
        weight = views.mask_noise.float().mean(dim=1)
        far = (tokens.mean(dim=(1, 2)) - weight).square().mean()
        return {"near": F.smooth_l1_loss(tokens.mean(dim=1), torch.ones(len(tokens), tokens.shape[-1])), "far": far}


def build(student, teacher):
    return Learner(student)


def loss(cls_logits, dist_logits, targets, teacher_logits):
    note("specific", targets=targets)
    return F.cross_entropy(cls_logits, targets) + F.mse_loss(cls_logits, teacher_logits)


class Differs(nn.Module):
    def __init__(self, student):
        super().__init__()
        self.student, self.steps = student, 0

    def forward(self, views):
        self.steps += 1
        if RANK == 1 and self.steps == 6:  # as a broken memory would
            with torch.no_grad():
                next(self.student.parameters()).add_(1e-3)
        return {"loss": self.student(views.images).square().mean()}


def build_differing(student, teacher):
    return Differs(student)
'''
RUN = ("run", "ranks.yaml", "--device", "cpu", "--until", "specific")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "ranks.yaml").write_text(RECIPE)
    (folder / "seeing.py").write_text(SEEING)
    return folder


def finish(processes: list[Any]) -> list[Any]:
    """Wait for all ranks of one command, which end well."""
    assert [process.wait() for process in processes] == [0] * len(processes), "".join(process.err for process in processes)
    return processes


@pytest.fixture(scope="module")
def alone(server: Any, folder: Path) -> Path:
    """The run of one process."""
    finish([server.start(folder, *RUN, "--out", "alone", SEEN="seen-alone")])
    return folder / "alone"


def history(run: Path, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / stage / "history.jsonl").read_text().splitlines()]


def weights(run: Path, stage: str) -> dict[str, np.ndarray]:
    artifact = read_artifact(run / stage)
    assert artifact is not None
    artifact.verify()
    (name,) = [name for name in artifact.files if name.endswith(".safetensors")]
    return {name: _that_matter(name, value) for name, value in load_file(artifact.file(name)).items()}


def _that_matter(name: str, value: np.ndarray) -> np.ndarray:
    """A bias of keys shifts all scores of a query alike, so its gradient is nothing but rounding, which Adam scales up."""
    return np.delete(value, np.s_[len(value) // 3 : 2 * len(value) // 3]) if name.endswith("qkv.bias") else value


def assert_same_training(run: Path, alone: Path, stages: tuple[str, ...] = STAGES) -> None:
    """Equal up to the order of sums."""
    for stage in stages:
        rows, wanted = history(run, stage), history(alone, stage)
        assert [row["step"] for row in rows] == [row["step"] for row in wanted] and len(rows) >= 3
        for row, other in zip(rows, wanted, strict=True):
            assert row.keys() == other.keys()
            assert row == pytest.approx(other, rel=1e-4)
        found, expected = weights(run, stage), weights(alone, stage)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=2e-4, err_msg=f"{stage} {name}")


def seen(folder: Path, stage: str, step: int, num_ranks: int, pieces: int = 1) -> dict[str, np.ndarray]:
    """What all processes together were shown at a step, in the order of the batch."""
    paths = [folder / f"{stage}-{step * pieces + piece}-{rank}.npz" for rank in range(num_ranks) for piece in range(pieces)]
    parts = [np.load(path) for path in paths]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}


def assert_same_seen(folder: Path, num_ranks: int, pieces: int = 1) -> None:
    alone = folder.with_name("seen-alone")
    for stage, arrays in {"generic": 4, "specific": 1}.items():
        assert len(list(folder.glob(f"{stage}-[0-9]*-*.npz"))) == 12 * num_ranks * pieces
        for step in range(12):
            found, wanted = seen(folder, stage, step, num_ranks, pieces), seen(alone, stage, step, 1)
            assert len(wanted) == arrays and all(len(value) == 16 for value in wanted.values())
            for name in wanted:
                np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=2e-6, err_msg=f"{stage} {step} {name}")


@pytest.mark.parametrize(
    ("name", "options", "pieces"), [("copied", (), 1), ("sharded", ("--shard",), 1), ("pieces", ("--micro-batch", "4"), 2)]
)
def test_two_processes_train_as_one(server: Any, folder: Path, alone: Path, name: str, options: tuple[str, ...], pieces: int) -> None:
    environment = {"SEEN": f"seen-{name}"} | ({"SHARD": "1"} if "--shard" in options else {})
    first = f"import os; os.environ.update({environment!r})"
    main, other = finish(server.start_ranks(2, folder, *RUN, *options, "--out", name, first=first))
    assert_same_training(folder / name, alone)
    assert_same_seen(folder / f"seen-{name}", 2, pieces)
    assert "specific: done" in main.err and (other.out, other.err) == ("", "")
    assert read_artifact(folder / name / "data").digest == read_artifact(alone / "data").digest  # type: ignore[union-attr]
    rows = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [(stage, row["step"]) for stage in STAGES for row in history(alone, stage)]
    assert [path.name for path in (folder / name).glob(".*")] == [".lock"]


def test_one_process_in_pieces_trains_as_in_one(server: Any, folder: Path, alone: Path) -> None:
    finish([server.start(folder, *RUN, "--micro-batch", "6", "--out", "small", SEEN="seen-small")])
    assert_same_training(folder / "small", alone)
    assert_same_seen(folder / "seen-small", 1, 3)


IMPATIENT = """
import os
from pathlib import Path
from g2sd_deploy.training.checkpoints import Checkpoints
save = Checkpoints.save
def noted(self, tensors, reached):
    with open("saved", "a") as file:
        file.write(f"{os.environ['RANK']} {reached.num_steps}, ")
    save(self, tensors, reached)
Checkpoints.save = noted
if os.environ["RANK"] == "1":
    Checkpoints.due = lambda self, num_steps: True
"""


def test_the_first_process_alone_says_when_to_save_and_saves(server: Any, folder: Path) -> None:
    command = ("run", "ranks.yaml", "--device", "cpu", "--out", "impatient", "--until", "pretrain", "--checkpoint-every", "5")
    finish(server.start_ranks(2, folder, *command, first=IMPATIENT))
    assert (folder / "saved").read_text() == "0 6, 0 11, "  # known one step later, so that no step waits for it


LONG = ("--until", "pretrain", "--set", "pretrain.epochs=20", "--checkpoint-every", "2")


@pytest.mark.parametrize(("before", "after", "options"), [(2, 1, ()), (1, 2, ()), (2, 1, ("--shard",)), (1, 2, ("--shard",))])
def test_a_run_goes_on_with_another_number_of_processes(
    server: Any, folder: Path, long_run: Path, before: int, after: int, options: tuple[str, ...], wait_until: Callable[..., None]
) -> None:
    out = f"from_{before}_to_{after}{''.join(options)}"
    command = ("run", "ranks.yaml", "--device", "cpu", "--out", out, *LONG)

    def start(num: int) -> list[Any]:
        return server.start_ranks(num, folder, *command, *options) if num > 1 else [server.start(folder, *command)]

    ranks = start(before)
    checkpoints = folder / out / ".pretrain.checkpoints"
    wait_until(lambda: len(list(checkpoints.glob("*.json"))) > 1 or ranks[0].is_over(), 300, ranks[0].err)
    for process in ranks[-1:]:  # one of them is asked; the others hear of it
        process.send(signal.SIGTERM)
    assert [process.wait() for process in ranks] == [143] * before, "".join(process.err for process in ranks)
    assert re.fullmatch(r"error: stopped at step \d+ of 80; a checkpoint is kept, .*", ranks[0].error_line())
    assert all(process.err == "" for process in ranks[1:])
    main = finish(start(after))[0]
    assert "goes on from its last checkpoint, after step" in main.err
    assert_same_training(folder / out, long_run, ("pretrain",))


@pytest.fixture(scope="module")
def long_run(server: Any, folder: Path) -> Path:
    finish([server.start(folder, "run", "ranks.yaml", "--device", "cpu", "--out", "long", *LONG)])
    return folder / "long"


def test_nothing_is_kept_of_a_training_on_which_the_processes_do_not_agree(server: Any, folder: Path, alone: Path) -> None:
    command = (
        "run",
        "ranks.yaml",
        "--device",
        "cpu",
        "--out",
        "differing",
        "--until",
        "generic",
        "--set",
        "generic.builder=seeing:build_differing",
    )
    ranks = server.start_ranks(2, folder, *command, first="import os; os.environ['SEEN'] = 'seen-differing'")
    assert [process.wait() for process in ranks] == [1, 1], ranks[0].err + ranks[1].err
    assert re.match(
        r"error: generic: process 1 made another encoder.safetensors than process 0, so nothing is kept; look for", ranks[0].error_line()
    )
    assert ranks[1].err == ""
    assert not (folder / "differing" / "generic").exists() and not list((folder / "differing").glob(".generic*"))
    assert read_artifact(folder / "differing" / "finetune") is not None


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--set", "pretrain.batch_size=15"), "batch_size is 15, which 2 processes cannot share evenly; make it a multiple of 2"),
        (("--set", "finetune.batch_size=14"), "mixup pairs neighbours, so each of 2 processes needs an even number of images"),
        (("--checkpoint-every", "never"), "--checkpoint-every never: give minutes as 10m, or optimiser steps as 500"),
    ],
)
def test_what_several_processes_cannot_do_is_said_once(server: Any, folder: Path, option: tuple[str, ...], reason: str) -> None:
    command = ("run", "ranks.yaml", "--device", "cpu", "--out", f"refused{len(reason)}", "--until", "finetune", *option)
    ranks = server.start_ranks(2, folder, *command)
    assert [process.wait() for process in ranks] == [2, 2]
    assert reason in ranks[0].error_line()


LAUNCHERS = {
    "torchrun": "-m torch.distributed.run --standalone --nproc-per-node 2 -m g2sd_deploy",
    "accelerate": "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no "
    "--main_process_port 0 -m g2sd_deploy",
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_starts_processes_that_find_each_other(
    launcher: str, folder: Path, alone: Path, process_environment: dict[str, str]
) -> None:
    command = [sys.executable, *shlex.split(LAUNCHERS[launcher]), *RUN[:-1], "pretrain", "--out", launcher]
    ended = subprocess.run(command, cwd=folder, env=process_environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert_same_training(folder / launcher, alone, ("pretrain",))
    timing = json.loads((folder / launcher / "pretrain" / "artifact.json").read_text())["metrics"]
    assert timing["num_processes"] == 2


def test_two_agents_as_two_machines_train_as_one_process(folder: Path, alone: Path, process_environment: dict[str, str]) -> None:
    script = ROOT / "docs" / "slurm" / "two_nodes_on_one_machine.sh"
    environment = {**process_environment, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", str(script), *RUN[1:-1], "pretrain", "--out", "two_nodes"]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert_same_training(folder / "two_nodes", alone, ("pretrain",))
