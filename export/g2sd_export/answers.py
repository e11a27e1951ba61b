"""What a model answered for all images of a set: asked once, compared as often as one likes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, UInt8

from .edge.errors import UserError
from .edge.runner import Runner, describe

Tick = Callable[[int, int], None]
"""Told the calls that are done, and all."""

_BLOCK = 256  # images whose bytes are hashed at a time


@dataclass(frozen=True)
class Answers:
    """All logits of one runner.

    Attributes:
        runtime: Runtime, version and, where there is a choice of it, provider.
        images: SHA-256 of the images.
        logits: float32 [N, num_classes], in the order of the images; [0, 0] where there is a problem.
        problem: What kept an image from getting its row of logits, as a verb and its object; empty where none did.
    """

    runtime: str
    images: str
    logits: Float32[np.ndarray, "num classes"]
    problem: str = ""


@dataclass
class Count:
    """Counts calls over several runners.

    Attributes:
        tick: Whom to tell; None tells nobody.
        total: Calls in all.
        done: Calls so far.
    """

    tick: Tick | None
    total: int
    done: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.tick is not None and self.total:
            self.tick(0, self.total)

    def add(self, calls: int) -> None:
        """So many more calls are done."""
        self.done += calls
        if self.tick is not None and calls:
            self.tick(self.done, self.total)


def digest_of(images: UInt8[np.ndarray, "num height width channels"]) -> str:
    """SHA-256 of the images' shape and pixels, in hexadecimal."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), _BLOCK):
        digest.update(images[start : start + _BLOCK].tobytes())
    return digest.hexdigest()


def answers_of(
    runner: Runner, images: UInt8[np.ndarray, "num height width channels"], digest: str, *, batch_size: int, count: Count
) -> Answers:
    """Ask a runner about every image.

    Args:
        runner: The model.
        images: Of the size that it wants.
        digest: ``digest_of(images)``.
        batch_size: Images per call; the last call may have fewer.
        count: Told of each call.

    Returns:
        The answers, or the problem: a batch for which another number of rows, or rows of another length, came back, or a
        runner that gave up with a UserError.
    """
    calls, parts = -(-len(images) // batch_size), []
    for call in range(calls):
        batch = images[call * batch_size : (call + 1) * batch_size]
        try:
            part = runner.infer(batch)
        except UserError as error:
            problem = f"gives up: {error}"
        else:
            parts.append(part)
            wanted = (len(batch), *parts[0].shape[1:2])
            problem = "" if part.shape == wanted else _misshapen(part.shape, len(batch))
        count.add(calls - call if problem else 1)
        if problem:
            return Answers(describe(runner), digest, np.zeros((0, 0), np.float32), problem)
    return Answers(describe(runner), digest, np.concatenate(parts) if parts else np.zeros((0, 0), np.float32))


def _misshapen(shape: tuple[int, ...], num_images: int) -> str:
    return f"gives logits of shape {list(shape)} for {num_images} images; wanted one row of equal length per image"
