"""How far may a device be from the logits that a file gave where it was made? Measured on the file, not guessed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from .edge.agreement import ParityTolerance
from .edge.runner import Runner

Logits = Float32[np.ndarray, "num classes"]

# Another CPU adds up in another order: several times what other threads and batch sizes change here.
_SPREAD_MARGIN = 4.0
# Another CPU rounds other numbers the other way, so both err by as much as this file does, independently. Measured (docs/decisions.md):
# BF16 without AMX 0.9 times that error; INT8 without VNNI, whose sums saturate and which is not to pass, 7 to 12 times.
_ROUNDING_MARGIN = 2.0
# Of the largest logit. float32 differs by a five-hundredth of that, a model that silently computes in bfloat16 by 30 times as much.
_LEAST = 2.0**-12


def spread(
    open_runner: Callable[[int], Runner],
    images: UInt8[np.ndarray, "num height width channels"],
    *,
    threads: Sequence[int] = (1, 2),
    batch_sizes: Sequence[int] = (1, 8),
) -> list[Logits]:
    """What one file answers in different circumstances.

    Args:
        open_runner: Opens the file with so many threads, anew each time.
        images: At least one.
        threads: Numbers of threads to try.
        batch_sizes: Images per call to try; the last call may have fewer.

    Returns:
        Logits of all images in every combination, and in the first one twice.
    """
    ways = list(itertools.product(threads, batch_sizes))
    answers = []
    for num_threads, batch_size in [ways[0], *ways]:
        runner = open_runner(num_threads)
        calls = range(0, len(images), batch_size)
        answers.append(np.concatenate([runner.infer(images[start : start + batch_size]) for start in calls]))
    return answers


def calibrate_tolerance(golden: Logits, others: Sequence[Logits], reference: Logits) -> ParityTolerance:
    """Tolerance of a file's own logits on another device.

    Args:
        golden: What the file answered here, and what a device will be compared with; finite, two classes or more.
        others: What it answered here in other circumstances; see ``spread``.
        reference: What the model that was trained answers. Its distance is the size of the file's rounding errors.

    Returns:
        The largest difference of a logit that is to be expected, and the share of images so near a tie that it may flip them.

    Raises:
        ValueError: The logits are of different shapes, empty or not finite.
    """
    for logits in (golden, reference, *others):
        if logits.shape != golden.shape or not logits.size or not np.isfinite(logits).all():
            raise ValueError(f"logits of shape {list(logits.shape)}; wanted finite ones of shape {list(golden.shape)}, at least one")
    exact = golden.astype(np.float64)
    varied = max((float(np.abs(exact - other).max()) for other in others), default=0.0)
    rounded = float(np.abs(exact - reference).max())
    widest = max(_SPREAD_MARGIN * varied, _ROUNDING_MARGIN * rounded, _LEAST * float(np.abs(exact).max()))
    best = np.sort(exact, axis=1)[:, -2:]
    near_tie = best[:, 1] - best[:, 0] <= 2 * widest
    return ParityTolerance(max_abs_logit_diff=widest, flipped_share=float(near_tie.mean()))
