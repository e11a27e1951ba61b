"""The one training loop of all methods."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from g2sd_deploy.signals import remembered_signals
from g2sd_deploy.training.average import MovingAverage
from g2sd_deploy.training.checkpoints import Checkpoints
from g2sd_deploy.training.engine import Engine
from g2sd_deploy.training.feed import Batch, Feed
from g2sd_deploy.training.record import Listener, Record, TrainLog
from g2sd_deploy.training.state import TrainState
from g2sd_deploy.training.trouble import gradients_stay_away, troubles_told

InputsOf = Callable[[Batch], Any]


def train(
    learner: nn.Module,
    optimizer: Optimizer,
    feed: Feed,
    inputs_of: InputsOf,
    listener: Listener,
    *,
    checkpoints: Checkpoints | None = None,
    ema_decay: float | None = None,
) -> TrainLog:
    """Train `learner` in place; where there is a moving average of the weights, that is what it holds at the end.

    Args:
        learner: Inputs to named loss terms; the loss is their sum. Put into training mode; its parameters are in `optimizer`.
        optimizer: Groups carry `lr_scale`.
        feed: Batches, schedule, and how this process computes.
        inputs_of: What the learner is given of a batch.
        listener: Who is told how it goes.
        checkpoints: Where training is saved and goes on from; None keeps nothing.
        ema_decay: Decay of the moving average per step; None keeps no average.

    Raises:
        RunFailed: The loss is not finite, memory does not suffice, images or a worker failed, another process does not answer.
        Stopped: SIGTERM or Ctrl-C came; a checkpoint was saved.
    """
    learner.to(feed.runtime.device).train()
    engine = Engine(feed.runtime, feed.settings, partly_used=gradients_stay_away(learner, feed, inputs_of))
    model, stepper = engine.prepare(learner, optimizer)
    average = MovingAverage(learner, ema_decay)
    record = Record(feed, TrainState(learner, optimizer, average.values, engine.scaler), listener, checkpoints)
    with remembered_signals() as wishes, troubles_told(engine, model, inputs_of, record):
        for batch in record.batches():
            terms, loss = engine.add_gradients(model, inputs_of(batch), batch.turn)
            record.add(terms, loss, batch)
            if not batch.turn.ends_step:
                continue
            rate = feed.learning_rate(batch.turn.step)
            for group in stepper.param_groups:
                group["lr"] = rate * group["lr_scale"]
            norm = engine.clip(model)
            stepper.step()
            stepper.zero_grad()
            average.update(batch.turn.step + 1)
            record.end_step(engine, batch.turn, rate, norm, wishes)
    average.apply()
    engine.finish(learner)
    return record.log
