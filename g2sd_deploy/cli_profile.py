"""`g2sd profile`: latency of any models, on this machine or on devices over ssh."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from g2sd_deploy.errors import RunFailed, UserError

if TYPE_CHECKING:
    from g2sd_deploy.profiling.command import Request
    from g2sd_deploy.profiling.sessions import Plan
    from g2sd_deploy.settings.profile import Scenario

_WIDE = 140
_SCENARIOS: "tuple[Scenario, ...]" = ("single_stream", "offline", "server")
ModelsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...", help="Classifier (.safetensors), stage folder, bundle, any ONNX file, TensorRT engine, or a name of timm."
    ),
]
RuntimeOpt = Annotated[
    list[str], typer.Option("--runtime", help="Runtimes to time, with commas or repeated; every one that fits a model, by default.")
]
BatchOpt = Annotated[str, typer.Option("--batch", help="Comma-separated batch sizes.")]
ThreadsOpt = Annotated[str | None, typer.Option("--threads", help="Comma-separated numbers of threads on the CPU; all cores by default.")]
ScenarioOpt = Annotated[str, typer.Option("--scenario", help=f"Comma-separated, of {', '.join(_SCENARIOS)}.")]
RateOpt = Annotated[float | None, typer.Option("--rate", help="Queries per second of the server scenario.")]
StreamsOpt = Annotated[int, typer.Option("--streams", min=1, help="Calls at the same time, offline and server.")]
PercentileOpt = Annotated[float, typer.Option("--percentile", help="The highest that is wanted; it decides how many samples are taken.")]
SecondsOpt = Annotated[float, typer.Option("--seconds", help="Most time for each model, runtime, batch and number of threads.")]
ShapeOpt = Annotated[
    list[str], typer.Option("--shape", metavar="NAME=SIZES", help="Size of an input that an ONNX file leaves open: images=1x3x224x224.")
]
LayersOpt = Annotated[bool, typer.Option("--layers", help="Tell the time of each layer and block, too.")]
DeviceOpt = Annotated[
    list[str], typer.Option("--device", help="Time bundles there: a name of `g2sd devices`, or ssh://user@host. Repeatable.")
]
ReferenceOpt = Annotated[
    bool, typer.Option("--reference/--no-reference", help="Time the reference network beside the models, and tell ratios to it.")
]
OutOpt = Annotated[Path | None, typer.Option("--out", help="File for the whole profile, as JSON.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def profile(
    models: ModelsArg,
    runtime: RuntimeOpt = [],  # noqa: B006 (typer reads the default, nobody changes it)
    batch: BatchOpt = "1",
    threads: ThreadsOpt = None,
    scenario: ScenarioOpt = "single_stream",
    rate: RateOpt = None,
    streams: StreamsOpt = 1,
    percentile: PercentileOpt = 99.0,
    seconds: SecondsOpt = 30.0,
    shape: ShapeOpt = [],  # noqa: B006
    layers: LayersOpt = False,
    device: DeviceOpt = [],  # noqa: B006
    reference: ReferenceOpt = True,
    out: OutOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Time models on every runtime that is here, or bundles on devices: in turns, with what disturbed them found and left out.

    Exit code 1 where no latency is valid, 2 where a device did not answer.
    """
    from g2sd_deploy.profiling.command import Request, runtime_from_name
    from g2sd_deploy.profiling.raw_onnx import parse_shapes
    from g2sd_deploy.profiling.sessions import Plan

    plan = Plan(
        batches=_whole_numbers("--batch", batch),
        threads=_whole_numbers("--threads", threads or str(_all_cpus())) if threads or not device else (),
        scenarios=_scenarios(scenario, rate, streams),
        percentile=percentile,
        seconds=seconds,
        rate_per_s=rate,
        streams=streams,
        reference=reference,
    )
    _check_limits(plan)
    names = [part.strip() for text in runtime for part in text.split(",")]
    request = Request(tuple(models), plan, tuple(dict.fromkeys(map(runtime_from_name, names))), parse_shapes(shape), layers)
    found, failures = _on_devices(request, device) if device else ({"": _here(request)}, {})
    told = {"devices": found, "failures": failures} if device else found[""]
    if out is not None:
        _write(out, told)
    if as_json:
        typer.echo(json.dumps(told))
    else:
        _print(found)
    if not device:
        _record(told)
    _judge(found, failures)


def _here(request: "Request") -> dict[str, Any]:
    from g2sd_deploy.profiling.command import profile_here
    from g2sd_deploy.progress import make_progress

    return profile_here(request, make_progress())


def _record(found: dict[str, Any]) -> None:
    """Add to this machine's history; a measurement is not lost for want of a place to keep it."""
    from g2sd_deploy.profiling.command import record_here

    try:
        record_here(found)
    except UserError as error:
        typer.echo(f"warning: the profile is not kept in the history: {error}", err=True)


def _on_devices(request: "Request", devices: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    from g2sd_deploy.profiling.command import profile_there

    return profile_there(request, devices, lambda line: typer.echo(line, err=True))


def _print(profiles: dict[str, dict[str, Any]]) -> None:
    """A table for each device, with what has to be said below it."""
    from rich.console import Console

    from g2sd_deploy.profiling.layers import render_layers
    from g2sd_deploy.profiling.table import notes_of, profile_table

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    for name, found in profiles.items():
        console.print(profile_table(found, name))
        for note in notes_of(found):
            console.print(note, markup=False, highlight=False)
        for table in found["layers"]:
            console.print(render_layers(table))


def _judge(profiles: dict[str, dict[str, Any]], failures: dict[str, str]) -> None:
    """Fail where a device did not answer, or nothing can be believed."""
    from g2sd_deploy.profiling.profile import is_believed

    if failures:
        raise UserError("; ".join(failures.values()))
    if not any(map(is_believed, profiles.values())):
        raise RunFailed("no latency is valid: the reasons stand below the table; docs/latency.md tells how to get a quiet machine")


def _write(path: Path, told: dict[str, Any]) -> None:
    from g2sd_export.edge.files import write_whole

    write_whole(path, (json.dumps(told, indent=1) + "\n").encode())


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"{option} {text}: wanted whole numbers above 0 with commas between them, for example 1,8")
    return tuple(map(int, parts))


def _scenarios(text: str, rate: float | None, streams: int) -> "tuple[Scenario, ...]":
    names = tuple(name for part in text.split(",") for name in _SCENARIOS if name == part.strip().replace("-", "_"))
    if len(names) != len(text.split(",")) or len(set(names)) < len(names):
        raise UserError(f"--scenario {text}: wanted some of {', '.join(_SCENARIOS)}, each once, with commas between them")
    if ("server" in names) != (rate is not None):
        raise UserError("--rate: belongs to the server scenario, which needs it; give both --scenario server and --rate, or neither")
    if streams > 1 and names == ("single_stream",):
        raise UserError(f"--streams {streams}: a single stream is one; add --scenario offline or server")
    return names


def _check_limits(plan: "Plan") -> None:
    """Refuse numbers outside their range before a model is opened."""
    from g2sd_export.edge.measuring import MeasureSettings

    MeasureSettings(percentile=plan.percentile, seconds=plan.seconds)
    if plan.rate_per_s is not None and not 0 < plan.rate_per_s < float("inf"):
        raise UserError(f"--rate {plan.rate_per_s:g}: wanted queries per second, above 0")


def _all_cpus() -> int:
    from g2sd_export.edge.runner import available_cpus

    return available_cpus()
