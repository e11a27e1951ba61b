"""How fast are a bundle's variants on this machine? A profile of them: latencies, and whether to believe each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .machine import describe
from .manifest import Bundle, Variant
from .measuring import MeasureSettings, Session, Subject, Watch, measure, measure_offline, measure_server
from .runner import Runner
from .session import join_conditions

if TYPE_CHECKING:
    from .dense.network import Network

FORMAT = 1
SCENARIOS = ("single_stream", "offline", "server")
_PREPARE_CALLS = 20
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class BenchSettings:
    """What to time.

    Attributes:
        batches: Images per call, each in turn.
        threads: Threads of a runtime on the CPU, each in turn; None takes one per CPU this process may use.
        scenario: ``single_stream``: one call after another; ``offline``: all streams at once; ``server``: calls that arrive at a rate.
        rate_per_s: Calls per second of the server's scenario, on average; None in the others.
        streams: Calls at once, offline and of the server; None stands for 1.
        measuring: How much is wanted, and how long it may take; its reference is the name of a variant.

    Raises:
        UserError: A number lies outside its range, or means nothing in the scenario.
    """

    batches: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    scenario: str = "single_stream"
    rate_per_s: float | None = None
    streams: int | None = None
    measuring: MeasureSettings = MeasureSettings()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise UserError(f"--scenario is {self.scenario!r}; it must be one of {', '.join(SCENARIOS)}")
        for key, values in (("batch", self.batches), ("threads", self.threads), ("streams", (self.streams,))):
            for value in values:
                if value is not None and value < 1:
                    raise UserError(f"--{key} is {value}; it must be at least 1")
        if (self.scenario == "server") != (self.rate_per_s is not None):
            raise UserError("--rate and --scenario server go together: calls per second, on average; give both or neither")
        if self.scenario == "single_stream" and self.streams is not None:
            raise UserError("--streams is for --scenario offline and server; a single stream is one")
        if self.scenario != "single_stream" and self.measuring.reference is not None:
            raise UserError("--reference is for --scenario single_stream, where variants are timed in turn; leave it out")


@dataclass(frozen=True)
class _Bench:
    """One bundle on one machine.

    Attributes:
        bundle: Opened.
        settings: What to time.
        watch: Reads the machine.
        tick: Told the rounds.
    """

    bundle: Bundle
    settings: BenchSettings
    watch: Watch
    tick: Callable[[int, int], None] | None

    def opened(
        self, variants: Sequence[Variant], threads: int | None, required: Sequence[str]
    ) -> tuple[dict[str, Runner | Network], dict[str, str]]:
        """Runners by variant, and why others have none."""
        runners: dict[str, Runner | Network] = {}
        reasons: dict[str, str] = {}
        for variant in variants:
            reason = self.bundle.refusal(variant)
            if not reason:
                try:
                    runners[variant.name] = self._open(variant, threads)
                except UserError as error:
                    reason = str(error)
            if reason and variant.name in required:
                raise UserError(reason)
            if reason:
                reasons[variant.name] = reason
        return runners, reasons

    def _open(self, variant: Variant, threads: int | None) -> Runner | Network:
        if self.bundle.task is None:
            return self.bundle.runner(threads=threads, variant=variant.name)
        return self.bundle.network(threads=threads, variant=variant.name)

    def rows(self, runners: Mapping[str, Runner | Network], batch: int) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        """Rows by variant, and the conditions of each session."""
        pixels = self.bundle.sample_images()
        pixels = np.ascontiguousarray(np.resize(pixels, (batch, *pixels.shape[1:])))
        sessions = self._sessions([_subject(name, runner, pixels) for name, runner in runners.items()])
        rows = {}
        for name, measured in ((name, row) for session in sessions for name, row in session.rows.items()):
            runner = runners[name]
            described = self.described(self.bundle.variant(name), batch, getattr(runner, "threads", None))
            told = {"version": runner.version, "provider": str(getattr(runner, "provider", ""))}
            rows[name] = {**described, **told, **measured, "prepare_p50_ms": self._prepare_ms(runner, pixels)}
        return rows, [session.conditions for session in sessions]

    def described(self, variant: Variant, batch: int, threads: int | None) -> dict[str, Any]:
        """What a row says of its variant, measured or not."""
        return {
            "model": self.bundle.name,
            "variant": variant.name,
            "runtime": variant.runtime,
            "version": "",
            "provider": "",
            "precision": variant.precision,
            "digest": self.bundle.digest,
            "file_bytes": self.bundle.files[variant.file].bytes,
            "batch": batch,
            "threads": threads,
        }

    def not_run(self, variant: Variant, batch: int, threads: int | None, reason: str) -> dict[str, Any]:
        """The row of a variant that this machine cannot run."""
        told = {"scenario": self.settings.scenario, "verdict": "not_run", "reasons": [reason]}
        return {**self.described(variant, batch, threads), **told}

    def _sessions(self, subjects: Sequence[Subject]) -> list[Session]:
        """All subjects in turn, or where each is to load the machine alone, one after another."""
        settings, streams = self.settings, self.settings.streams or 1
        if settings.scenario == "single_stream":
            return [measure(subjects, settings.measuring, watch=self.watch, tick=self.tick)] if subjects else []
        if settings.rate_per_s is None:
            return [measure_offline(one, settings.measuring, streams=streams, watch=self.watch, tick=self.tick) for one in subjects]
        timed = partial(measure_server, rate_per_s=settings.rate_per_s, settings=settings.measuring, streams=streams)
        return [timed(one, watch=self.watch, tick=self.tick) for one in subjects]

    def _prepare_ms(self, runner: Runner | Network, pixels: npt.NDArray[np.uint8]) -> float:
        clock = self.watch.system.clock
        samples = []
        for _ in range(_PREPARE_CALLS):
            start = clock()
            runner.prepare(pixels)
            samples.append((clock() - start) / _NS_PER_MS)
        return float(np.median(samples))


def run_bench(
    bundle: Bundle,
    settings: BenchSettings = BenchSettings(),
    *,
    variants: Sequence[str] = (),
    watch: Watch | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time variants on the sample's images.

    Args:
        bundle: An opened bundle.
        settings: What to time.
        variants: Names; empty takes every variant that this machine can run and that did not fail its proof.
        watch: Reads the machine; None watches this one.
        tick: Told the undisturbed rounds of the session that runs, and how many there will be at least.

    Returns:
        A profile, as JSON values: ``format machine conditions reference rows layers``. A row is of the network alone, from its prepared
        input to logits on the host; ``prepare_p50_ms`` is the time to make that input from decoded pixels. A variant that was not timed
        has the verdict ``not_run`` and the reason in place of numbers.

    Raises:
        UserError: A variant that was named, or the reference, cannot be run.
    """
    bench = _Bench(bundle, settings, watch or Watch(), tick)
    reference = settings.measuring.reference
    required = list(dict.fromkeys([*variants, *([reference] if reference else [])]))
    for name in required:
        bundle.variant(name)
    chosen = [variant for variant in bundle.variants if not variants or variant.name in required]
    rows: list[dict[str, Any]] = []
    conditions: list[dict[str, Any]] = []
    for threads in settings.threads:
        runners, reasons = bench.opened(chosen, threads, required)
        if threads != settings.threads[0]:  # what has no threads, as on a GPU, was timed with the first number
            runners = {name: runner for name, runner in runners.items() if getattr(runner, "threads", None) is not None}
        for batch in settings.batches:
            measured, found = bench.rows(runners, batch)
            conditions += found
            for variant in chosen:
                if variant.name in measured:
                    rows.append(measured[variant.name])
                elif variant.name in reasons:
                    rows.append(bench.not_run(variant, batch, threads, reasons[variant.name]))
    return {
        "format": FORMAT,
        "machine": describe(bench.watch.system, bench.watch.gpu),
        "conditions": join_conditions(conditions),
        "reference": reference,
        "rows": rows,
        "layers": [],
    }


def _subject(name: str, runner: Runner | Network, pixels: npt.NDArray[np.uint8]) -> Subject:
    inputs = runner.prepare(pixels)
    phases = getattr(runner, "phases", None)
    return Subject(name, len(pixels), partial(runner.forward, inputs), None if phases is None else partial(phases, inputs))
