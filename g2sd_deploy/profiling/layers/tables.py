"""Layer tables: where the time of a call goes, for each model on its runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.layers import folding as fold
from g2sd_deploy.profiling.layers.costs import flops_of, observed_shapes, shapes_of, unknown_operands
from g2sd_deploy.profiling.layers.executed import attribute
from g2sd_deploy.profiling.layers.graph import Network
from g2sd_deploy.profiling.layers.labels import label_nodes
from g2sd_deploy.profiling.layers.probes import WARM_CALLS, Probe, open_probe
from g2sd_deploy.profiling.layers.roofline import Machine
from g2sd_deploy.profiling.layers.subjects import Feeds, LayerSubject, Running
from g2sd_export.edge.errors import IntegrityError

Tick = Callable[[int, int, str], None]
_ROUNDS = 5
_MOST_CALLS = 100  # of a round
_LEAST_CALLS = 2
_NO_PEAKS = "the peaks of a GPU are not measured here"


def layer_tables(
    subjects: Sequence[LayerSubject],
    *,
    batch: int = 1,
    threads: int | None = None,
    seconds: float = 2.0,
    tick: Tick | None = None,
    machine: Machine | None = None,
) -> list[dict[str, Any]]:
    """One table for each subject.

    Args:
        subjects: Models on runtimes.
        batch: Images of a call.
        threads: Of runtimes on the CPU; None takes one for each CPU that this process may use.
        seconds: Time for the calls of each subject, about half of them under the profiler.
        tick: Told (done, total, note) after each subject.
        machine: Its peaks, where they were measured before.

    Returns:
        Plain JSON values, in order; a subject that cannot run here, or whose runtime tells nothing of layers, has the verdict ``not_run``
        and the reason.

    Raises:
        IntegrityError: A file of a bundle changed since it was opened.
    """
    from g2sd_export.edge.runner import available_cpus

    cpus = threads or available_cpus()
    peaks = machine or Machine(cpus)
    tables = []
    for done, subject in enumerate(subjects, 1):
        tables.append(_table(subject, batch, cpus, seconds, peaks))
        if tick is not None:
            tick(done, len(subjects), f"layers of {subject.model} {subject.variant}".rstrip() + f" on {subject.runtime}")
    return tables


def _table(subject: LayerSubject, batch: int, threads: int, seconds: float, machine: Machine) -> dict[str, Any]:
    head = {
        "model": subject.model,
        "variant": subject.variant,
        "runtime": subject.runtime,
        "precision": subject.precision,
        "batch": batch,
        "threads": None if subject.runtime.startswith("tensorrt") else threads,
    }
    if subject.refusal:
        return {**head, "verdict": "not_run", "reason": subject.refusal}
    try:
        return {**head, "verdict": "measured", "reason": "", **_measured(subject, batch, threads, seconds, machine)}
    except UserError as error:
        if isinstance(error, IntegrityError):
            raise
        return {**head, "verdict": "not_run", "reason": str(error)}


def _measured(subject: LayerSubject, batch: int, threads: int, seconds: float, machine: Machine) -> dict[str, Any]:
    running = subject.open(batch, threads)
    with open_probe(subject, running, threads) as probe:
        unprofiled, profiled = _in_turns(running, probe, seconds)
        layers = probe.layers()
    network, (kind, labels), flops = _read(subject.graph, running.feeds)
    found = attribute(network, kind, labels, flops, layers)
    unprofiled_ms = median(unprofiled)
    placed = fold.placed(layers, found, unprofiled_ms, median(profiled))
    roofline = _roofline(subject, placed, machine)
    return {
        "version": running.version,
        "total_ms": sum(layer.ms for layer in layers),
        "profiled_ms": median(profiled),
        "unprofiled_ms": unprofiled_ms,
        "unprofiled_quartiles_ms": [float(value) for value in quantiles(unprofiled, n=4)[::2]],
        "overhead": median(profiled) / unprofiled_ms,
        "num_calls": len(profiled),
        "folding": kind,
        "attributed_share": fold.attributed_share(kind, placed),
        "roofline": None if roofline is None else {"peak_gflops": dict(roofline.peak_gflops), "bandwidth_gb_s": roofline.bandwidth_gb_s},
        "roofline_reason": _NO_PEAKS if roofline is None else "",
        "groups": fold.group_rows(placed, roofline, unprofiled_ms),
        "blocks": fold.block_rows(kind, placed),
        "layers": [fold.layer_row(one) for one in placed],
    }


def _in_turns(running: Running, probe: Probe, seconds: float) -> tuple[list[float], list[float]]:
    """Latencies in ms without and with the profiler, in turns, so that what else the machine does meets both."""
    calls: tuple[Callable[[], object], ...] = (running.call, probe.call)
    for call in calls:
        for _ in range(WARM_CALLS):
            call()
    slowest = max(_timed(call) for call in calls)
    count = max(_LEAST_CALLS, min(_MOST_CALLS, round(seconds * 1e3 / (2 * _ROUNDS * slowest))))
    series: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for call, latencies in zip(calls, series, strict=True):
            call()  # the other one has just had the caches
            latencies.extend(_timed(call) for _ in range(count))
    return series


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _read(graph: Path | bytes, feeds: Feeds) -> tuple[Network, Any, list[float | None]]:
    """The graph, the labels of its nodes and their arithmetic at these inputs."""
    import onnx

    content = graph if isinstance(graph, bytes) else graph.read_bytes()
    model = onnx.load_model_from_string(content)  # weights in files beside it are not needed: their shapes are in it
    network = Network(model.graph)
    shapes = shapes_of(model, {name: tuple(value.shape) for name, value in feeds.items()})
    if unknown := unknown_operands(network, shapes):
        shapes |= observed_shapes(model, feeds, unknown)
    return network, label_nodes(network), flops_of(network, shapes)


def _roofline(subject: LayerSubject, layers: Sequence[fold.Folded], machine: Machine) -> fold.Roofline | None:
    """Peaks of the number formats that this model multiplies in."""
    if subject.runtime not in ("onnxruntime", "openvino"):
        return None
    formats = sorted({one.layer.precision for one in layers if one.flops})
    peaks = {name: peak for name in formats if (peak := machine.peak_gflops(subject.runtime, name)) is not None}
    return fold.Roofline(peaks, machine.bandwidth_gb_s())
