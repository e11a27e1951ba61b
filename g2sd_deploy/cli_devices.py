"""`g2sd devices`: machines that are reached over ssh, and what was measured on them."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from g2sd_deploy import cli_output
from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_deploy.devices.history import Point, Series

devices_app = typer.Typer(
    help="Devices that models are timed on over ssh, and their results over time.", no_args_is_help=True, rich_markup_mode=None
)

_GIB = 1 << 30
_DIGEST_CHARACTERS = 12
_MOST_CHARACTERS = 90

NameArg = Annotated[str, typer.Argument(metavar="NAME", help="Name of a device, or ssh://[user@]host[:port].")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
TimeoutOpt = Annotated[float, typer.Option("--connect-timeout", min=1, help="Seconds to wait for the device to answer at all.")]


@devices_app.command("add")
@tell_errors
def add_device(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="ssh://[user@]host[:port][/folder to work in].")],
    python: Annotated[str, typer.Option("--python", metavar="PATH", help="Interpreter there that has numpy, Pillow and a runtime.")] = "",
    venv: Annotated[str, typer.Option("--venv", metavar="FOLDER", help="Virtual environment there that has them.")] = "",
    make_venv: Annotated[
        bool,
        typer.Option("--make-venv", help="Make an environment there at the first use and keep it; else one is made and removed each time."),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave copied files there, so that only what changed is copied next time.")] = False,
) -> None:
    """Remember a device; nothing is asked of it yet (see `g2sd devices check`)."""
    from g2sd_deploy.devices import Device, store

    device = Device(name, address, python, venv, make_venv, keep)
    store.add(device)
    typer.echo(f"{device.name} {device.address}")


@devices_app.command("list")
@tell_errors
def list_devices(as_json: JsonOpt = False) -> None:
    """Show the devices that are known."""
    from g2sd_deploy.devices import store

    known = store.devices()
    if as_json:
        typer.echo(json.dumps({"devices": [device.to_dict() for device in known.values()]}))
        return
    table = cli_output.new_table("name", "address", "Python", "kept there", "results")
    for device in known.values():
        num = len(store.results(device.name, _warn))
        kept = "files and environment" if device.keep else "environment" if device.make_venv else "nothing"
        python = device.interpreter if not device.makes_venv else "an environment made there"
        table.add_row(*cli_output.texts(device.name, device.address, python, kept, str(num)))
    if known:
        cli_output.console(stderr=False).print(table)
    else:
        typer.echo("no device was added yet: g2sd devices add NAME ssh://[user@]host")


@devices_app.command("remove")
@tell_errors
def remove_device(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a device.")]) -> None:
    """Forget a device; its history stays, and so does what lies on it (see `g2sd devices clean`)."""
    from g2sd_deploy.devices import store

    typer.echo(f"{name} {store.remove(name).address}")


@devices_app.command("check")
@tell_errors
def check_device(name: NameArg, connect_timeout: TimeoutOpt = 10.0, as_json: JsonOpt = False) -> None:
    """Log in to a device and say what it is: Python, architecture, runtimes, free disk, and what earlier calls left."""
    from g2sd_deploy.devices import store
    from g2sd_deploy.devices.looking import check

    device = store.find(name)
    facts = check(device, connect_timeout_s=connect_timeout)
    if as_json:
        typer.echo(json.dumps({"name": device.name, "address": device.address, **facts}))
        return
    packages = ", ".join(f"{package} {version}" for package, version in facts["packages"].items())
    own = " (the environment that is made there gets its own)" if device.makes_venv else ""
    for line in (
        f"{device.name} {device.address}",
        f"system    {facts['system']} {facts['platform']}, {facts['cpus']} CPUs",
        f"Python    {facts['python']} at {facts['executable']}",
        f"packages  {packages or 'none that is needed'}{own}",
        f"disk      {facts['free_bytes'] / _GIB:.1f} GiB free in {facts['root']}",
        f"left      {'; '.join(facts['left']) or 'nothing'}",
    ):
        typer.echo(line)


@devices_app.command("clean")
@tell_errors
def clean_device(name: NameArg, connect_timeout: TimeoutOpt = 10.0) -> None:
    """End benches that still run on a device, and remove all that was left there."""
    from g2sd_deploy.devices import store
    from g2sd_deploy.devices.looking import clean

    removed = clean(store.find(name), connect_timeout_s=connect_timeout)
    for line in removed or ["nothing was left there"]:
        typer.echo(line)


@devices_app.command("history")
@tell_errors
def show_history(
    device: Annotated[
        str | None, typer.Argument(metavar="DEVICE", help="Name of a device; `local` is this machine. All by default.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only models whose name holds this, or whose digest begins with it.")] = None,
    as_json: JsonOpt = False,
) -> None:
    """Show how the latency of the same model went over time, with ratios between valid measurements only."""
    from g2sd_deploy.devices import store
    from g2sd_deploy.devices.history import series_of

    names = store.names() if device is None else [_known(device)]
    found = [series for name in names for series in series_of(name, store.results(name, _warn), model=model)]
    if as_json:
        typer.echo(json.dumps({"series": [series.to_dict() for series in found]}))
        return
    for series in found:
        _print_series(series)
    if not found:
        typer.echo("nothing was measured yet; g2sd profile MODEL fills the history")


def _known(device: str) -> str:
    from g2sd_deploy.devices import store
    from g2sd_deploy.devices.device import LOCAL

    if device != LOCAL and device not in (names := store.names()):
        raise UserError(f"{device!r} is no device and has no results; known are {', '.join([LOCAL, *names])}")
    return device


def _print_series(series: "Series") -> None:
    printed = cli_output.console(stderr=False)
    threads = f", {series.threads} thread{'s' * (series.threads != 1)}" if series.threads else ""
    what = series.variant or f"{series.runtime} {series.precision}".rstrip()
    title = f"{series.device}: {series.model} {what}"
    printed.print(f"{title}, batch {series.batch}{threads}, {series.scenario}", style="bold", highlight=False, soft_wrap=True, markup=False)
    table = cli_output.new_table("at (UTC)", "verdict", "p50 ms", "p99 ms", "to first", "to previous", "to reference", "file", "remarks")
    for point in series.points:
        table.add_row(*cli_output.texts(*_cells(point)))
    printed.print(table)


def _cells(point: "Point") -> list[str]:
    changed = [f"other {what}" for what in point.changed]
    times = [f"{value:.3g}" if value is not None else "" for value in (point.p50_ms, point.p99_ms)]
    ratios = [f"{value:.3f}" if value is not None else "" for value in (point.to_first, point.to_previous, point.to_reference)]
    remarks = "; ".join([*changed, *point.reasons])
    remarks = remarks if len(remarks) <= _MOST_CHARACTERS else f"{remarks[: _MOST_CHARACTERS - 3]}..."
    return [point.at, point.verdict, *times, *ratios, point.digest[:_DIGEST_CHARACTERS], remarks]


def _warn(line: str) -> None:
    typer.echo(f"warning: {line}", err=True)
