"""One interface for everything that predicts.

Accuracy, robustness, parity and latency all take a ``Runner``, so the number that is reported belongs to the file that ships.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .image_input import Layout
from .preprocess import Preprocessing

INPUT_NAME = "images"
OUTPUT_NAME = "logits"


@runtime_checkable
class Runner(Protocol):
    """Something that turns images into logits."""

    @property
    def name(self) -> str:
        """The runtime, for example ``onnxruntime``."""
        ...

    @property
    def version(self) -> str:
        """Version of the runtime."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How this model wants its images."""
        ...

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 [B, H, W, C] to what the network takes: float32 [B, C, H, W], or another kind of number or order of dimensions."""
        ...

    def forward(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """What ``prepare`` gave to float32 logits [B, num_classes]; returns when the work is done."""
        ...

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 [B, H, W, C] to float32 logits [B, num_classes]; may be called by several threads at once."""
        ...


@dataclass(frozen=True)
class Choices:
    """What a file that is not ours may leave open.

    Attributes:
        output: Name of the output that holds the logits; None takes the only one with two dimensions.
        layout: Order of the input's dimensions; None reads it off the shape.
        probabilities: The output has gone through a softmax; its logarithm is then taken, whose softmax it is.
        every: The network is no classifier: no output is read as logits, ``num_classes`` is 0, and ``run_all`` gives every output.
    """

    output: str | None = None
    layout: Layout | None = None
    probabilities: bool = False
    every: bool = False


class Named(Protocol):
    """Whatever runs a network, classifier or not."""

    @property
    def name(self) -> str:
        """The runtime."""
        ...

    @property
    def version(self) -> str:
        """Of the runtime."""
        ...


def describe(runner: Named) -> str:
    """Runtime, version and, where there is a choice of it, provider: ``onnxruntime 1.31.1 CPUExecutionProvider``."""
    return " ".join(part for part in (runner.name, runner.version, getattr(runner, "provider", "")) if part)


def available_cpus() -> int:
    """CPUs this process may run on (a container's affinity counts, the machine's total does not)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
