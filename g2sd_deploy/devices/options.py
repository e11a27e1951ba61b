"""What is to be timed on a device, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from g2sd_deploy.errors import UserError

_SCENARIOS = ("single_stream", "offline", "server")


@dataclass(frozen=True)
class DeviceOptions:
    """What to time, the same on every device.

    Attributes:
        batches: Images per call.
        threads: CPU threads of a runtime; none lets the runtime take one per CPU.
        variants: Names of a bundle's variants; none takes all.
        runtimes: Runtimes; none takes all.
        scenario: single_stream, offline or server.
        rate_per_s: Arrivals per second of the server scenario.
        streams: Calls at the same time, offline and server.
        reference: Tell how each variant's latency compares with that of the float32 one, timed in turn; single stream only.
        percentile: The highest that is wanted; it decides how many samples are taken.
        seconds: Most time for each variant with each batch and number of threads.
        keep: Leave on the device what was copied.
        connect_timeout_s: How long to wait for a device to answer at all.

    Raises:
        UserError: A value lies outside its range, or does not fit the scenario.
    """

    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = ()
    variants: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()
    scenario: str = "single_stream"
    rate_per_s: float | None = None
    streams: int = 1
    reference: bool = True
    percentile: float = 99.0
    seconds: float = 30.0
    keep: bool = False
    connect_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.scenario not in _SCENARIOS:
            raise UserError(f"the scenario is {self.scenario!r}; it must be one of {', '.join(_SCENARIOS)}")
        if not self.batches or min(self.batches + self.threads + (self.streams,)) < 1:
            raise UserError("batches, threads and streams must be at least 1, and there must be a batch")
        if (self.rate_per_s is None) == (self.scenario == "server"):
            raise UserError("a rate of arrivals belongs to the server scenario, which needs one; give both or neither")
        if self.seconds <= 0 or not 0 < self.percentile < 100 or self.connect_timeout_s <= 0:
            raise UserError("seconds and the time to connect must be positive, and the percentile between 0 and 100")

    def arguments(self, batch: int) -> list[str]:
        """Options of `edge bench` for a batch."""
        words = [
            "--batch",
            str(batch),
            "--percentile",
            f"{self.percentile:g}",
            "--seconds",
            f"{self.seconds:g}",
            "--scenario",
            self.scenario,
        ]
        words += ["--threads", ",".join(map(str, self.threads))] if self.threads else []
        words += ["--streams", str(self.streams)] if self.scenario != "single_stream" else []
        return words + (["--rate", f"{self.rate_per_s:g}"] if self.rate_per_s is not None else [])

    def told(self, batch: int) -> str:
        """For people: what is timed at once."""
        threads = f", {' and '.join(map(str, self.threads))} thread{'s' * (self.threads != (1,))}" if self.threads else ""
        return f"batch {batch}{threads}, {self.scenario.replace('_', ' ')}"


@dataclass(frozen=True)
class DeviceProfiles:
    """What several devices answered.

    Attributes:
        profiles: By name of the device, of those that answered; in the order in which they were asked.
        failures: By name, in one line, why the others did not.
    """

    profiles: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
