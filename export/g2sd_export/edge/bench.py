"""How fast are a bundle's variants on this machine? Timed in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .manifest import Bundle
from .runner import Runner, available_cpus, describe
from .timing import measure_in_turns, measure_latency, summarise

ROUNDS = 5
_WARMUP_OF_A_TURN = 2


@dataclass(frozen=True)
class BenchSettings:
    """What to time.

    Attributes:
        batch: Images per call.
        warmup: Calls of each variant before anything is timed.
        repeats: Timed calls of each variant, spread over rounds.
        threads: Threads of a runtime on the CPU; None takes one per CPU this process may use.

    Raises:
        UserError: A number lies outside its range.
    """

    batch: int = 1
    warmup: int = 10
    repeats: int = 100
    threads: int | None = None

    def __post_init__(self) -> None:
        for key, least in (("batch", 1), ("warmup", 0), ("repeats", 1)):
            if getattr(self, key) < least:
                raise UserError(f"--{key} is {getattr(self, key)}; it must be at least {least}")


def run_bench(
    bundle: Bundle,
    settings: BenchSettings = BenchSettings(),
    *,
    variants: Sequence[str] = (),
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Time variants on the sample's images.

    Args:
        bundle: An opened bundle.
        settings: What to time.
        variants: Names; empty takes every variant that this machine can run and that did not fail its proof.
        tick: Told the rounds that are done, and all of them.

    Returns:
        JSON values: ``bundle`` (digest), ``machine``, and ``results``, one per variant: ``variant runtime threads batch`` and what
        ``summarise`` gives of the network alone, from its prepared input to logits on the host; ``prepare_p50_ms``, the time to make that
        input from decoded pixels. A variant that was not timed has ``reason`` instead of numbers.

    Raises:
        UserError: A variant that was named cannot be run, or none can.
    """
    runners, reasons = _opened(bundle, settings, variants)
    images = _batch_of(bundle.sample().images, settings.batch)
    runs = {name: partial(runner.forward, runner.prepare(images)) for name, runner in runners.items()}
    for run in runs.values():
        measure_latency(run, warmup=settings.warmup, repeats=1)
    samples = measure_in_turns(runs, _turns(settings.repeats), warmup=_WARMUP_OF_A_TURN, tick=tick)
    measured = {name: _result(runner, chain.from_iterable(samples[name]), images, settings) for name, runner in runners.items()}
    wanted = [name for name in (variant.name for variant in bundle.variants) if name in measured or name in reasons]
    results = [{"variant": name, **measured.get(name, {"reason": reasons.get(name)})} for name in wanted]
    return {"bundle": bundle.digest, "machine": _machine(), "results": results}


def _opened(bundle: Bundle, settings: BenchSettings, names: Sequence[str]) -> tuple[dict[str, Runner], dict[str, str]]:
    """Runners by variant, and why others have none."""
    runners: dict[str, Runner] = {}
    reasons: dict[str, str] = {}
    for variant in [bundle.variant(name) for name in names] or bundle.variants:
        reason = bundle.refusal(variant)
        if not reason:
            try:
                runners[variant.name] = bundle.runner(threads=settings.threads, variant=variant.name)
            except UserError as error:
                reason = str(error)
        if reason and names:
            raise UserError(reason)
        if reason:
            reasons[variant.name] = reason
    if not runners:
        raise UserError("; ".join(reasons.values()))
    return runners, reasons


def _result(runner: Runner, samples_ms: Iterable[float], images: npt.NDArray[np.uint8], settings: BenchSettings) -> dict[str, Any]:
    prepare_ms = measure_latency(lambda: runner.prepare(images), warmup=1, repeats=min(settings.repeats, 20))
    return {
        "runtime": describe(runner),
        "threads": getattr(runner, "threads", None),
        "batch": settings.batch,
        **summarise(list(samples_ms), settings.batch),
        "prepare_p50_ms": float(np.median(prepare_ms)),
    }


def _turns(repeats: int) -> list[int]:
    """Calls of each round; together they are all."""
    rounds = min(ROUNDS, repeats)
    return [repeats * (done + 1) // rounds - repeats * done // rounds for done in range(rounds)]


def _batch_of(images: npt.NDArray[np.uint8], batch: int) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.resize(images, (batch, *images.shape[1:])))


def _machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": available_cpus(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Its name where the system tells it; ``platform`` alone says only ``x86_64`` on Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (no text file of ours)
            names = [line.partition(":")[2].strip() for line in file if line.startswith(("model name", "Model"))]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
