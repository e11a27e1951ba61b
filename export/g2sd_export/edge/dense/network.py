"""A network for pixels or objects on a runtime: square images in, a tuple of arrays out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..image_input import ImageInput, filled_up
from ..preprocess import Preprocessing
from ..runner import Choices
from .outputs import checked, output_names
from .task import DenseTask


class Infer(Protocol):
    """A network as it is called, whatever runs it."""

    def __call__(self, images: npt.NDArray[np.uint8], /) -> tuple[npt.NDArray[Any], ...]:
        """uint8 [b, px, px, c] to (logits or classes,) or (boxes, scores, labels, masks)."""
        ...


class Engine(Protocol):
    """A runner whose outputs are not read as logits (``Choices.every``)."""

    @property
    def name(self) -> str:
        """The runtime."""
        ...

    @property
    def version(self) -> str:
        """Of the runtime."""
        ...

    @property
    def provider(self) -> str:
        """What of the runtime computes."""
        ...

    @property
    def threads(self) -> int:
        """Threads of the runtime."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How the network wants its images."""
        ...

    @property
    def image_input(self) -> ImageInput:
        """Its input."""
        ...

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself, by key."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """In the order of ``run_all``."""
        ...

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 [B, H, W, C] to what the network takes."""
        ...

    def run_all(self, inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Every output, as it is, of a batch that fits."""
        ...


class Network:
    """A network on a runtime; ``infer`` may be called by several threads at once.

    Args:
        engine: What runs it.
        task: What it does.
        num_classes: Classes that have a name.

    Attributes:
        name: The runtime.
        version: Of the runtime.
        provider: What of the runtime computes.
        threads: Threads of the runtime.
        preprocessing: How the network wants its images.
        image_input: Its input.
        metadata: What the file says of itself, by key.
        outputs: Names of what ``infer`` gives, in order.

    Raises:
        UserError: The file does not have the outputs that the task asks for.
    """

    def __init__(self, engine: Engine, task: DenseTask, num_classes: int) -> None:
        self.task, self.num_classes = task, num_classes
        self.outputs = output_names(task, engine.output_names)
        self.name, self.version, self.provider, self.threads = engine.name, engine.version, engine.provider, engine.threads
        self.preprocessing, self.image_input, self.metadata = engine.preprocessing, engine.image_input, engine.metadata
        self._engine = engine
        self._places = [engine.output_names.index(name) for name in self.outputs]

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """uint8 [B, px, px, C] to what the network takes."""
        return self._engine.prepare(images)

    def forward(self, inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """What ``prepare`` gave to the arrays of ``infer``; a fixed batch size is met by parts that are filled up."""
        batch = self.image_input.batch
        if batch is None:
            return self._run(inputs)
        parts = [inputs[start : start + batch] for start in range(0, len(inputs), batch)]
        answers = [[array[: len(part)] for array in self._run(filled_up(part, batch))] for part in parts]
        return tuple(np.concatenate(arrays) for arrays in zip(*answers))

    def infer(self, images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        """Answers for square images.

        Args:
            images: uint8 [B, px, px, C], as ``prepared`` makes them.

        Returns:
            (logits float32 [B, classes, s, s],) or (classes uint8 [B, px, px],); or boxes float32 [B, K, 4], scores float32 [B, K], labels
            int64 [B, K] and masks float32 [B, K, 28, 28].

        Raises:
            UserError: The network gave something else.
        """
        return checked(self.forward(self.prepare(images)), self.task, self.num_classes)

    def _run(self, inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        found = self._engine.run_all(inputs)
        return tuple(found[place] for place in self._places)


def onnx_network(
    model: Path | bytes, task: DenseTask, num_classes: int, *, threads: int | None = None, provider: Any = "CPUExecutionProvider"
) -> Network:
    """A network on ONNX Runtime.

    Args:
        model: Path of the .onnx file, or its bytes.
        task: What it does.
        num_classes: Classes that have a name.
        threads: Threads inside an operator; None takes one per CPU this process may use.
        provider: The execution provider to run on.

    Raises:
        UserError: ONNX Runtime is absent, or the file cannot be loaded or does not fit the task.
    """
    from ..onnx_runner import OnnxRunner

    return Network(OnnxRunner(model, task.preprocessing(), threads=threads, provider=provider, choices=_EVERY), task, num_classes)


def openvino_network(
    model: Path | bytes, task: DenseTask, num_classes: int, *, threads: int | None = None, inference_precision: Any = "f32"
) -> Network:
    """A network on OpenVINO's CPU.

    Args:
        model: Path of the .onnx file, or its bytes.
        task: What it does.
        num_classes: Classes that have a name.
        threads: Threads of one forward pass; None takes one per CPU this process may use.
        inference_precision: Arithmetic of the float layers: f32 or bf16.

    Raises:
        UserError: OpenVINO is absent, or the file cannot be loaded or does not fit the task.
    """
    from ..openvino_runner import OpenVINORunner

    runner = OpenVINORunner(model, task.preprocessing(), threads=threads, inference_precision=inference_precision, choices=_EVERY)
    return Network(runner, task, num_classes)


_EVERY = Choices(every=True)
