"""What ends a training early, told in one sentence, with a checkpoint kept where the weights are sound."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from g2sd_deploy.errors import RunFailed
from g2sd_deploy.ranks import lost_rank_told
from g2sd_deploy.training.engine import Engine
from g2sd_deploy.training.feed import Batch, Feed
from g2sd_deploy.training.record import Record

_NO_MEMORY_SIGNS = ("DefaultCPUAllocator: can't allocate memory", "could not create a primitive", "std::bad_alloc")
"""What torch's allocator, oneDNN and C++ say on the CPU."""


def gradients_stay_away(learner: nn.Module, feed: Feed, inputs_of: Callable[[Batch], Any]) -> bool:
    """Whether a step leaves some trained parameters without a gradient; DDP has to know, for it would wait for them."""
    if feed.runtime.ranks.num == 1 or feed.runtime.sharded:
        return False
    buffers = {name: value.clone() for name, value in learner.named_buffers()}
    terms = learner(inputs_of(feed.blank_batch(2)))
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    for name, value in learner.named_buffers():
        value.copy_(buffers[name])
    found = any(p.grad is None for p in learner.parameters() if p.requires_grad)
    learner.zero_grad(set_to_none=True)
    return found


@contextmanager
def troubles_told(engine: Engine, model: nn.Module, inputs_of: Callable[[Batch], Any], record: Record) -> Iterator[None]:
    """Turn what ends a training early into one sentence.

    Raises:
        RunFailed: Memory does not suffice, or another process hung or died.
    """
    try:
        with lost_rank_told():
            yield
    except RunFailed:
        _save_alone(engine, record)
        raise
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            traceback.clear_frames(error.__traceback__)  # they hold what did not fit
            raise _memory_failure(engine, model, inputs_of, record) from None
        raise


def _save_alone(engine: Engine, record: Record) -> None:
    """Keep the steps done since the last checkpoint, where that needs no other process and the weights are sound.

    `RunFailed` comes between two steps only, never in the middle of an update.
    """
    if engine.runtime.ranks.num > 1:
        return
    try:
        record.save()
    except RunFailed:
        return


def is_out_of_memory(error: Exception) -> bool:
    """Whether a step failed for want of memory, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in _NO_MEMORY_SIGNS)


def _memory_failure(engine: Engine, model: nn.Module, inputs_of: Callable[[Batch], Any], record: Record) -> RunFailed:
    """Say how many images fit, found by trying ever fewer of those that did not."""
    tried, device = record.in_work, engine.runtime.device
    if tried is None:
        return RunFailed(f"memory of {device} does not suffice for the networks themselves; use a smaller teacher, or --shard")
    num = len(tried.images)
    if engine.runtime.sharded:  # the weights are spread over processes that do not take part in a trial
        return _too_large(device, num, f"add --micro-batch {max(1, num // 4 * 2)} or less")
    fit = num // 2
    while fit and not _fits(engine, model, inputs_of, tried.first(fit)):
        fit //= 2
    if fit > 1:
        fit -= fit % 2
    if not fit:
        return RunFailed(f"memory of {device} does not suffice for one image at a time; use a smaller teacher or student, or --shard")
    return _too_large(device, num, f"{fit} fit: add --micro-batch {fit}")


def _too_large(device: torch.device, num: int, advice: str) -> RunFailed:
    return RunFailed(
        f"memory of {device} does not suffice for {num} images at a time; {advice}, which keeps batch_size and adds up the gradients; the "
        "same command goes on from the last checkpoint"
    )


def _fits(engine: Engine, model: nn.Module, inputs_of: Callable[[Batch], Any], batch: Batch) -> bool:
    model.zero_grad(set_to_none=True)
    if engine.runtime.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        engine.add_gradients(model, inputs_of(batch), replace(batch.turn, ends_step=False))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    model.zero_grad(set_to_none=True)
    return True
