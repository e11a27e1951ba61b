"""Checkpoints as files: whole or not at all, hashed, two kept, and training goes on from them bit for bit."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.errors import RunFailed, Stopped
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.runtime import CheckpointEvery, Runtime
from g2sd_deploy.settings import TrainSettings
from g2sd_deploy.training.checkpoints import Checkpoints, Reached
from g2sd_deploy.training.feed import Batch, Feed
from g2sd_deploy.training.loop import train
from g2sd_deploy.training.optimizer import build_optimizer
from g2sd_deploy.training.record import Listener, Row, TrainLog

EVERY_STEP = CheckpointEvery(minutes=None, steps=1)


class Learner(nn.Module):
    """A tiny classifier; its loss is no number from step `poisoned` on."""

    def __init__(self, poisoned: int = 10**6) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=2, heads=2), 2, pooling="cls")
        self.poisoned = poisoned

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = F.cross_entropy(self.model(batch.images), batch.truth)
        return {"loss": loss * float("nan") if batch.turn.step >= self.poisoned else loss}


class Told:
    """Listens, and does something once a step was logged."""

    def __init__(self, at_step: int = -1, then: Callable[[], object] = lambda: None) -> None:
        self.warned: list[str] = []
        self.begun: list[int] = []
        self.at_step, self.then = at_step, then

    @property
    def listener(self) -> Listener:
        return Listener(lambda history, _: self.begun.append(len(history)), self._row, self.warned.append)

    def _row(self, row: Row, num_steps: int, images_per_s: float) -> None:
        if row["step"] == self.at_step:
            self.then()


def feed_of(precision: str = "fp32", micro_batch: int | None = None) -> Feed:
    """Eight steps an epoch, three epochs."""
    random = np.random.default_rng(0)
    images = ImageSet(random.integers(0, 256, (33, 8, 8, 1), dtype=np.uint8), np.arange(33, dtype=np.int64) % 2)
    settings = TrainSettings.model_validate({"epochs": 3.0, "batch_size": 4, "base_lr": 0.1, "warmup_epochs": 1.0, "precision": precision})
    return Feed(images, settings, 0, 8, (0.5,), (0.5,), Runtime(torch.device("cpu"), micro_batch=micro_batch))


def fit(
    folder: Path | None,
    told: Told | None = None,
    *,
    key: str = "key",
    every: CheckpointEvery = EVERY_STEP,
    poisoned: int = 10**6,
    ema_decay: float | None = None,
    feed: Feed | None = None,
) -> tuple[Learner, TrainLog]:
    learner, feed = Learner(poisoned), feed or feed_of()
    checkpoints = None if folder is None else Checkpoints(folder, key, every)
    listener = (told or Told()).listener
    optimizer = build_optimizer(learner.model, feed.settings)
    return learner, train(learner, optimizer, feed, lambda batch: batch, listener, checkpoints=checkpoints, ema_decay=ema_decay)


def same_weights(one: Learner, two: Learner) -> bool:
    return all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stopped(folder: Path, at_step: int = 10, **options: object) -> Stopped:
    """Train until SIGTERM comes; what the training said of it."""
    with pytest.raises(Stopped) as caught:
        fit(folder, Told(at_step, terminate), **options)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.8}, {"feed": feed_of("bf16")}, {"feed": feed_of(micro_batch=3)}])
@pytest.mark.parametrize("at_step", [0, 10, 20])
def test_training_that_was_stopped_and_goes_on_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, at_step: int, options: dict[str, object]
) -> None:
    whole, whole_log = fit(None, **options)  # type: ignore[arg-type]
    error = stopped(tmp_path, at_step, every=CheckpointEvery(), **options)
    assert (error.signal_number, str(error)) == (
        signal.SIGTERM,
        f"stopped at step {at_step + 1} of 24; a checkpoint is kept, and the same command goes on from there",
    )
    told = Told()
    resumed, log = fit(tmp_path, told, **options)  # type: ignore[arg-type]
    assert same_weights(whole, resumed)
    assert log.history == whole_log.history
    assert (log.num_steps, log.images_seen, log.resumed_at, told.warned) == (24, 96, at_step + 1, [])


def test_a_moving_average_that_was_kept_is_not_that_of_a_training_that_begins_late(tmp_path: Path) -> None:
    stopped(tmp_path, ema_decay=0.99)
    whole, _ = fit(None, ema_decay=0.99)
    plain, _ = fit(None)
    assert not same_weights(whole, plain)
    assert same_weights(whole, fit(tmp_path, ema_decay=0.99)[0])


def test_the_handlers_of_signals_are_put_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    stopped(tmp_path)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    stopped(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000010.json",
        "step-000000010.safetensors",
        "step-000000011.json",
        "step-000000011.safetensors",
    ]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


@pytest.mark.parametrize(
    ("damage", "suffix", "reason"),
    [
        (cut, "safetensors", "bytes instead of"),
        (flip, "safetensors", "its hash is another one"),
        (Path.unlink, "safetensors", "its weights are gone"),
        (cut, "json", "its description cannot be read"),
    ],
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_is_used(
    tmp_path: Path, damage: Callable[[Path], None], suffix: str, reason: str
) -> None:
    stopped(tmp_path, 10)
    damage(tmp_path / f"step-000000011.{suffix}")
    told = Told()
    resumed, log = fit(tmp_path, told)
    (warning,) = told.warned
    assert "step-000000011.safetensors is damaged" in warning and reason in warning and "going back to the one before it" in warning
    assert log.resumed_at == 10
    assert same_weights(resumed, fit(None)[0])


def test_where_all_are_damaged_training_begins_anew(tmp_path: Path) -> None:
    stopped(tmp_path, 10)
    for path in tmp_path.glob("*.safetensors"):
        cut(path)
    told = Told()
    resumed, log = fit(tmp_path, told)
    assert (len(told.warned), log.resumed_at) == (2, 0)
    assert same_weights(resumed, fit(None)[0])


def test_checkpoints_of_another_training_are_removed_without_a_word(tmp_path: Path) -> None:
    stopped(tmp_path, 10)
    told = Told()
    _, log = fit(tmp_path, told, key="other", every=CheckpointEvery())
    assert (told.warned, log.resumed_at, list(tmp_path.iterdir())) == ([], 0, [])


def test_what_a_killed_process_left_half_written_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    stopped(tmp_path, 10)
    (tmp_path / "step-000000012.unfinished").write_bytes(b"half")
    (tmp_path / "step-000000013.safetensors").write_bytes(b"whole, but nothing says so")
    checkpoints = Checkpoints(tmp_path, "key", EVERY_STEP)
    found = checkpoints.newest(lambda text: pytest.fail(text))
    assert found is not None and found[1].num_steps == 11
    assert sorted(path.stem for path in tmp_path.glob("*.safetensors")) == ["step-000000010", "step-000000011"]
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_poisoned_batch_leaves_the_last_good_checkpoint_and_no_bad_one(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="the loss is not finite at step 8 of 24"):
        fit(tmp_path, poisoned=7)
    assert max(path.stem for path in tmp_path.glob("*.safetensors")) == "step-000000007"
    resumed, log = fit(tmp_path)
    assert log.resumed_at == 7
    assert same_weights(resumed, fit(None)[0])


def test_steps_and_minutes_say_when_one_is_due(tmp_path: Path) -> None:
    by_steps = Checkpoints(tmp_path, "key", CheckpointEvery(minutes=None, steps=4))
    assert [step for step in range(1, 13) if by_steps.due(step)] == [4, 8, 12]
    by_minutes = Checkpoints(tmp_path, "key", CheckpointEvery(minutes=0.0))
    assert by_minutes.due(1)
    assert not Checkpoints(tmp_path, "key", CheckpointEvery(minutes=10.0)).due(4)


def test_a_checkpoint_says_what_it_is_in_a_format_that_others_read(tmp_path: Path) -> None:
    import hashlib

    from safetensors import safe_open

    Checkpoints(tmp_path, "key", EVERY_STEP).save({"model.a": torch.arange(3.0)}, Reached(5, 20, 1.5, [{"step": 4}], {7: "x.jpg: cut off"}))
    described = json.loads((tmp_path / "step-000000005.json").read_text())
    weights = tmp_path / "step-000000005.safetensors"
    assert described["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert described["reached"]["bad"] == {"7": "x.jpg: cut off"}
    with safe_open(weights, "np") as file:
        np.testing.assert_array_equal(file.get_tensor("model.a"), [0.0, 1.0, 2.0])


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "key", EVERY_STEP).save({"model.a": torch.arange(3.0)}, Reached(5, 20, 1.5, [], {}))
    with pytest.raises(ValueError, match="the checkpoint is of another training"):
        fit(tmp_path)
