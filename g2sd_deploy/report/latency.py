"""What a profile says, as frozen types: timed rows, the conditions they were timed under, and time by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from g2sd_deploy.report.scores import Interval

TimingVerdict = Literal["valid", "invalid", "not_run"]
Scenario = Literal["single_stream", "offline", "server"]


@dataclass(frozen=True)
class Ratio:
    """p50 of a row over that of the reference `to`, paired by round, with its 95 % interval."""

    to: str
    value: float
    interval: Interval


@dataclass(frozen=True)
class Phases:
    """One call in parts: copy to the device, work, copy back."""

    to_device_ms: float
    compute_ms: float
    from_device_ms: float


@dataclass(frozen=True)
class Energy:
    """What one image costs, and the counter that said so."""

    mj_per_image: float
    source: str


@dataclass(frozen=True)
class NotMeasured:
    """Why a number is not there."""

    reason: str


@dataclass(frozen=True)
class Histogram:
    """Number of samples between neighbouring edges."""

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ServerLoad:
    """Requests of the server scenario: the rate asked for and the one that was served."""

    rate_per_s: float
    achieved_per_s: float
    num_queries: int
    seed: int | None


@dataclass(frozen=True)
class Figures:
    """The numbers of a row; a percentile for which there are too few samples is None. `rounds` is number of the round -> its p50 in ms."""

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    p50_interval_ms: Interval | None
    mean_ms: float
    min_ms: float
    images_per_s: float
    num_samples: int
    warmup_calls: int | None
    rounds: Mapping[int, float]
    histogram: Histogram | None
    ratio: Ratio | None
    phases: Phases | NotMeasured
    energy: Energy | NotMeasured
    server: ServerLoad | None
    streams: int | None


@dataclass(frozen=True)
class TimedRow:
    """One model as one runtime ran it; `figures` is None where it did not run, and not to be used where the verdict is `invalid`."""

    model: str
    variant: str
    runtime: str
    version: str
    provider: str
    precision: str
    digest: str
    file_bytes: int | None
    batch: int
    threads: int | None
    scenario: Scenario
    verdict: TimingVerdict
    reasons: tuple[str, ...]
    figures: Figures | None

    @property
    def believed(self) -> Figures | None:
        """The numbers, where they may be used."""
        return self.figures if self.verdict == "valid" else None

    @property
    def p50_ms(self) -> float | None:
        """Median of one call in ms, where it may be used."""
        return self.believed.p50_ms if self.believed else None

    @property
    def way(self) -> str:
        """What ran it: the variant of a bundle ('int8-openvino'), else the runtime ('onnxruntime') and how it ran ('openvino bf16')."""
        return self.variant or f"{self.runtime} {self.how}".strip()

    @property
    def how(self) -> str:
        """The provider without what goes without saying: empty for plain work on the CPU, else 'bf16', 'CUDA'."""
        return self.provider.removesuffix("ExecutionProvider").removeprefix("CPU").strip()


@dataclass(frozen=True)
class Conditions:
    """Whether the machine was quiet and steady; `voids` is reason -> rounds that it cost."""

    verdict: TimingVerdict
    reasons: tuple[str, ...]
    num_rounds: int | None
    num_void: int | None
    voids: Mapping[str, int]
    before: Mapping[str, object]
    after: Mapping[str, object]


@dataclass(frozen=True)
class Roofline:
    """What the machine can do at most, as measured on it; `peak_gflops` by number format."""

    peak_gflops: Mapping[str, float]
    bandwidth_gb_s: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LayerGroup:
    """Layers of one kind: their time, share of the whole, work, and how near to the roofline they come; None where unknown."""

    name: str
    ms: float
    share: float | None
    gflop: float | None
    mbyte: float | None
    roofline_share: float | None
    bound: str
    parts: Mapping[str, float]


@dataclass(frozen=True)
class BlockTime:
    """One block of the transformer."""

    block: int
    attention_ms: float
    mlp_ms: float
    norm_ms: float
    other_ms: float


@dataclass(frozen=True)
class LayerTime:
    """One layer as the runtime names it."""

    name: str
    operator: str
    group: str
    part: str
    block: int | None
    ms: float


@dataclass(frozen=True)
class LayerTable:
    """Where the time of one model goes; `reason` says why it was not measured.

    Times are scaled to `unprofiled_ms`, a call without the profiler, which slows it down by the factor `overhead`.
    """

    model: str
    variant: str
    runtime: str
    batch: int
    threads: int | None
    verdict: Literal["measured", "not_run"]
    reason: str
    unprofiled_ms: float | None
    overhead: float | None
    attributed_share: float | None
    roofline: Roofline | None
    groups: tuple[LayerGroup, ...]
    blocks: tuple[BlockTime, ...]
    layers: tuple[LayerTime, ...]

    @property
    def way(self) -> str:
        """What ran it: the variant of a bundle, else the runtime."""
        return self.variant or self.runtime


@dataclass(frozen=True)
class Profile:
    """Everything that was timed; `reference` names the row that ratios refer to, empty where none was timed."""

    machine: Mapping[str, object]
    conditions: Conditions
    reference: str
    rows: tuple[TimedRow, ...]
    layers: tuple[LayerTable, ...]

    def believed(self, scenario: Scenario = "single_stream", batch: int | None = None) -> tuple[TimedRow, ...]:
        """Rows whose numbers may be used, of one scenario and, where it is given, one batch size."""
        return tuple(row for row in self.rows if row.believed and row.scenario == scenario and batch in (None, row.batch))

    def batches(self) -> tuple[int, ...]:
        """Batch sizes with a single-stream row that may be used, ascending."""
        return tuple(sorted({row.batch for row in self.believed()}))
