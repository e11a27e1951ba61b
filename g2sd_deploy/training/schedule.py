"""Steps of a stage, and the learning rate of one."""

import math


def num_steps_of(epochs: float, batch_size: int, num_images: int) -> int:
    """Optimiser steps of a stage; the last incomplete batch of an epoch is dropped."""
    return max(1, round(epochs * (num_images // batch_size)))


def learning_rate(step: int, *, num_steps: int, warmup_steps: int, peak: float, floor: float) -> float:
    """Linear warm-up from 0, then half a cosine from `peak` to `floor`.

    Args:
        step: Optimiser step, from 0.
        num_steps: Steps of the whole stage.
        warmup_steps: Steps of warm-up.
        peak: Rate at the end of warm-up.
        floor: Rate that the cosine ends at.

    Source: facebookresearch/mae@efb2a80, util/lr_sched.py.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
