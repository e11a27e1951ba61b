"""Options of a run that are no settings: refused in words, and understood."""

import pytest
import torch

from g2sd_deploy.errors import UserError
from g2sd_deploy.ranks import Ranks
from g2sd_deploy.runtime import CheckpointEvery, Runtime, choose_device, make_runtime, parse_checkpoint_every


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("10m", CheckpointEvery(minutes=10.0)),
        ("0.5m", CheckpointEvery(minutes=0.5)),
        ("500", CheckpointEvery(minutes=None, steps=500)),
    ],
)
def test_checkpoints_are_asked_for_in_minutes_or_steps(text: str, every: CheckpointEvery) -> None:
    assert parse_checkpoint_every(text) == every


@pytest.mark.parametrize("text", ["", "m", "-5", "0", "10 m", "1h", "5s", "1.5"])
def test_other_ways_to_ask_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="give minutes as 10m, or optimiser steps as 500"):
        parse_checkpoint_every(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"track": ["comet"]}, "--track comet: unknown; wanted one of tensorboard, wandb, mlflow"),
        ({"sharded": True}, "--shard shares a model among several processes, but there is one"),
        ({"checkpoint_every": "soon"}, "--checkpoint-every soon"),
    ],
)
def test_options_that_cannot_be_had_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_runtime("cpu", **options)  # type: ignore[arg-type]


def test_a_tracker_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--track wandb: the package is not installed; pip install wandb"):
        make_runtime("cpu", track=["wandb"])


def test_workers_are_those_asked_for_or_the_cores_that_a_process_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert Runtime(cpu, workers=0).num_workers == 0
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert Runtime(cpu).num_workers == 15
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Runtime(cpu).num_workers == 1


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="finds no usable GPU"):
        choose_device("cuda")


def test_a_process_that_is_alone_meets_nobody() -> None:
    alone = Ranks()
    assert alone.is_main
    assert alone.from_main(lambda: 7) == 7
    assert alone.gather("x") == ["x"]
    vote = alone.vote()
    assert vote.cast(True, False) == [True, False]
    vote.close()
    alone.leave()
