"""Steps of a stage, and the learning rate of one."""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["cosine", "linear", "steps"]


def num_steps_of(epochs: float, batch_size: int, num_images: int) -> int:
    """Optimiser steps of a stage; the last incomplete batch of an epoch is dropped."""
    return max(1, round(epochs * (num_images // batch_size)))


def learning_rate(
    step: int,
    *,
    num_steps: int,
    warmup_steps: int,
    peak: float,
    floor: float,
    schedule: Schedule = "cosine",
    drops: Sequence[float] = (),
) -> float:
    """Linear warm-up from 0 to `peak`, then the schedule.

    Args:
        step: Optimiser step, from 0.
        num_steps: Steps of the whole stage.
        warmup_steps: Steps of warm-up.
        peak: Rate at the end of warm-up.
        floor: Rate that cosine and linear end at.
        schedule: How the rate falls: half a cosine or a line from `peak` to `floor`, or to a tenth at each of the drops.
        drops: Shares of `num_steps`.

    Source: facebookresearch/mae@efb2a80, util/lr_sched.py (cosine); open-mmlab/mmcv@v1.3.0, mmcv/runner/hooks/lr_updater.py (linear is
    its poly of power 1); facebookresearch/detectron2@v0.6, solver/lr_scheduler.py (steps).
    Differs: mmcv's and detectron2's warm-up follow the schedule times a factor from 1e-6 or 1e-3 on, ours a line from 0 to the peak; the
    line of linear begins where the warm-up ends.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    match schedule:
        case "cosine":
            return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear":
            return floor + (peak - floor) * (1.0 - progress)
        case "steps":
            return peak * 0.1 ** sum(step >= drop * num_steps for drop in drops)
