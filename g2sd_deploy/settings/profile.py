"""Latency of what a run made."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from g2sd_deploy.settings.base import Positive, Settings

RuntimeName = Literal[
    "torch",
    "torch-compile",
    "onnxruntime",
    "openvino",
    "torch-cuda",
    "torch-compile-cuda",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "tensorrt",
    "tensorrt-rtx",
]
"""Who computes, and where: those without a GPU in their name compute on the CPU, but for TensorRT."""
Scenario = Literal["single_stream", "offline", "server"]
"""As in MLPerf: one call after another; as many as there can be; queries that arrive at random times."""


class ProfileSettings(Settings):
    """Latency of teacher, student and the bundle's variants on this machine, beside a reference network."""

    batches: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] = (1, 8)
    """Batch sizes to time."""
    threads: PositiveInt = 2
    """Threads that a forward pass on the CPU may use."""
    runtimes: Annotated[tuple[RuntimeName, ...], Field(strict=False, min_length=1)] = ("torch",)
    """What teacher and student run on; the bundle's variants run on what they were proven on."""
    scenarios: Annotated[tuple[Scenario, ...], Field(strict=False, min_length=1)] = ("single_stream",)
    """How calls follow one another."""
    rate_per_s: Positive | None = None
    """Queries per second of the server scenario, which needs it."""
    streams: PositiveInt = 1
    """Calls at the same time in the scenarios offline and server."""
    percentile: Annotated[float, Field(gt=0.0, le=99.99)] = 99.0
    """The highest that is wanted: measuring goes on until there are enough samples for it, or time is up."""
    seconds: Positive = 10.0
    """Most time for each model, runtime, batch and scenario; warm-up comes on top. Clean rounds that tell enough end it earlier."""
    layers: bool = True
    """Tell the time of each layer of the file that ships, too."""

    @model_validator(mode="after")
    def _has_a_rate(self) -> Self:
        if ("server" in self.scenarios) != (self.rate_per_s is not None):
            raise ValueError("rate_per_s belongs to the scenario server, which needs it; give both or neither")
        return self
