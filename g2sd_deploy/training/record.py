"""What training leaves behind while it goes on: rows of the history, checkpoints, and a good end when it is asked to stop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from g2sd_deploy.errors import RunFailed, Stopped
from g2sd_deploy.ranks import Ranks
from g2sd_deploy.signals import Wishes
from g2sd_deploy.training.checkpoints import Checkpoints, Reached, read_tensors
from g2sd_deploy.training.engine import Engine
from g2sd_deploy.training.feed import Batch, Feed, Turn
from g2sd_deploy.training.pace import Pace
from g2sd_deploy.training.state import TrainState

LOG_EVERY_STEPS = 10
Row = dict[str, int | float]


@dataclass(frozen=True)
class Listener:
    """Who is told how training goes.

    Attributes:
        begun: Told the history so far, and how many steps were done: more than none where training goes on from a checkpoint.
        row: Told (row of the history, number of steps, images per second) every few steps; may raise to end the training.
        warn: Told what a person should know.
    """

    begun: Callable[[list[Row], int], None]
    row: Callable[[Row, int, float], None]
    warn: Callable[[str], None]


@dataclass
class TrainLog:
    """What was logged, and how far and how fast the stage came.

    Attributes:
        images_seen: Images of all processes.
        seconds: Time spent training, that of earlier attempts included.
        resumed_at: Steps that an earlier attempt had done.
        bad: Images that could not be used, by index, with the reason.
        peak_mib: Most memory in use.
        state_bytes: Size of a checkpoint.
        pace: How fast the last steps were; see `Pace.figures`.
    """

    history: list[Row] = field(default_factory=list)
    images_seen: int = 0
    num_steps: int = 0
    seconds: float = 0.0
    resumed_at: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    peak_mib: float = 0.0
    state_bytes: int = 0
    pace: dict[str, float] = field(default_factory=dict)

    @property
    def images_per_s(self) -> float:
        return self.images_seen / self.seconds


def bad_of_all(ranks: Ranks, log: TrainLog) -> dict[int, str]:
    """Images that any process could not use, by index, with the reason; all processes have to ask."""
    return {index: reason for found in ranks.gather(log.bad) for index, reason in found.items()}


class Record:
    """The book of one training.

    Attributes:
        log: What was logged so far.
        in_work: The batch that was handed out last.
    """

    def __init__(self, feed: Feed, state: TrainState, listener: Listener, checkpoints: Checkpoints | None) -> None:
        self.log = TrainLog(bad=feed.bad)
        self._feed, self._state, self._listener, self._checkpoints = feed, state, listener, checkpoints
        self._ranks = feed.runtime.ranks
        self._vote = self._ranks.vote()
        self._sums: dict[str, Tensor] = {}
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=feed.runtime.device)
        self._saved_at = 0
        self.in_work: Batch | None = None
        self._before_s = self._start_s = 0.0
        self._pace = Pace(feed.runtime.device, feed.waits)
        self._is_cut = False

    def batches(self) -> Iterator[Batch]:
        """What is left to do: everything, or what comes after the newest checkpoint that is whole."""
        self._resume()
        self._listener.begun(self.log.history, self.log.num_steps)
        self._start_s = time.perf_counter()
        self._pace.mark()
        for batch in self._feed.batches(self.log.num_steps):
            self.in_work = batch
            yield batch
            if self._is_cut:
                break
        self._vote.close()
        self.log.state_bytes, self.log.pace = self._state.num_bytes, self._pace.figures()

    def add(self, terms: Mapping[str, Tensor], loss: Tensor, batch: Batch) -> None:
        """Take down one piece of a step, as `Engine.add_gradients` gave it, without waiting for the device."""
        share = batch.turn.share
        for name, value in {**terms, "": loss}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.float() * share
        is_first = (self._first_bad < 0) & ~torch.isfinite(loss)
        self._first_bad = torch.where(is_first, batch.turn.step, self._first_bad)

    def end_step(self, engine: Engine, turn: Turn, rate: float, norm: Tensor | None, wishes: Wishes) -> None:
        """Close a step: log it, save, or stop, if it is time to.

        Raises:
            RunFailed: The loss is not finite.
            Stopped: A process was asked to end.
        """
        self.log.num_steps = turn.step + 1
        self.log.images_seen += self._feed.settings.batch_size
        self.log.seconds = self._before_s + time.perf_counter() - self._start_s
        is_last = self.log.num_steps == self._feed.num_steps
        if turn.step % LOG_EVERY_STEPS == 0 or is_last:
            self._log(engine, turn, rate, norm)
        self._sums = {}
        self._pace.mark()
        # the first process keeps the clock: it alone knows when it last wrote
        due = self._ranks.is_main and self._checkpoints is not None and self._checkpoints.due(self.log.num_steps)
        if is_last:
            return
        stop, save, self._is_cut = self._vote.cast(wishes.signal_number != 0, due, self._trial_is_over())
        if stop or save:
            self.save()
        if stop:
            self._vote.close()
            number = max(self._ranks.gather(wishes.signal_number))
            kept = "a checkpoint is kept, and the same command goes on from there" if self._checkpoints else "nothing is kept"
            raise self._ranks.told_once(Stopped(number, f"stopped at step {self.log.num_steps} of {self._feed.num_steps}; {kept}"))

    def _trial_is_over(self) -> bool:
        trial = self._feed.runtime.trial
        return trial is not None and self.log.num_steps >= trial.min_steps and self.log.seconds >= trial.seconds

    def save(self) -> None:
        """Write a checkpoint, unless this step has one; every process has to take part.

        Raises:
            RunFailed: The weights or the loss are not finite, so that there is nothing to go on from.
            OSError: It cannot be written; those before it stay.
        """
        if self._checkpoints is None or self.log.num_steps == self._saved_at:
            return
        self._check_finite()
        tensors = self._state.tensors()
        bad = bad_of_all(self._ranks, self.log)
        reached = Reached(self.log.num_steps, self.log.images_seen, self.log.seconds, self.log.history, bad)
        if self._ranks.is_main:
            self._checkpoints.save(tensors, reached)
        self._saved_at = self.log.num_steps

    def _resume(self) -> None:
        if self._checkpoints is None:
            return
        checkpoints = self._checkpoints
        found = self._ranks.from_main(lambda: checkpoints.newest(self._listener.warn))
        if found is None:
            return
        path, reached = found
        self._state.load(read_tensors(path))
        log = self.log
        log.history, log.images_seen, log.num_steps = list(reached.history), reached.images_seen, reached.num_steps
        log.seconds = self._before_s = reached.seconds
        log.bad.update(reached.bad)
        log.resumed_at = self._saved_at = reached.num_steps

    def _log(self, engine: Engine, turn: Turn, rate: float, norm: Tensor | None) -> None:
        """One row: the means over all processes, the terms named where there are several."""
        means = engine.mean_over_ranks(self._sums)
        value = means.pop("")
        if not math.isfinite(value):
            self._check_finite()
        named = {f"loss_{name}": mean for name, mean in means.items()} if len(means) > 1 else {}
        row: Row = {"step": turn.step, "epoch": turn.step / self._feed.steps_per_epoch, "loss": value, **named, "lr": rate}
        if norm is not None:
            row["grad_norm"] = norm.item()
        self.log.history.append(row)
        self._listener.row(row, self._feed.num_steps, self.log.images_per_s)

    def _check_finite(self) -> None:
        steps = [step for step in self._ranks.gather(self._first_bad.item()) if step >= 0]
        sound = self._ranks.gather(all_finite(self._state))
        if not steps and all(sound):
            return
        place = f"step {int(min(steps)) + 1 if steps else self.log.num_steps} of {self._feed.num_steps}"
        what = "the loss is not finite" if steps else "the weights are not finite"
        text = f"{what} at {place}; lower base_lr, set clip_grad or use precision fp32 (as it is, the run would come to the same end again)"
        raise self._ranks.told_once(RunFailed(text))


def all_finite(state: TrainState) -> bool:
    """Whether every weight of this process is a number."""
    weights = [p.to_local() if isinstance(p, DTensor) else p for p in (p.detach() for p in state.learner.parameters())]
    norms = torch.stack(torch._foreach_norm(weights))
    return bool(torch.isfinite(norms).all())
