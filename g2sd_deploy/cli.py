"""The `g2sd` command: parse, call one function, print. Progress and errors go to stderr, results to stdout."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from g2sd_deploy import __version__
from g2sd_deploy.cli_bundle import bundle_app
from g2sd_deploy.cli_check import baseline_app, check
from g2sd_deploy.cli_data import data_app
from g2sd_deploy.cli_devices import devices_app
from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.cli_evaluate import evaluate
from g2sd_deploy.cli_export import export, targets_app
from g2sd_deploy.cli_pareto import pareto
from g2sd_deploy.cli_profile import profile
from g2sd_deploy.cli_report import report
from g2sd_deploy.cli_runtime import told
from g2sd_deploy.cli_teacher import teacher_app
from g2sd_deploy.cli_watch import watch
from g2sd_deploy.errors import EXIT_FAILED, UserError
from g2sd_deploy.runtime import DeviceName

if TYPE_CHECKING:
    from g2sd_deploy.settings import Recipe

app = typer.Typer(
    name="g2sd",
    help="Compress a masked-autoencoder vision transformer into a student that is proven equal to the file that ships.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes_app = typer.Typer(help="List, show or copy the recipes that ship with the package.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipes_app, name="recipes")
app.add_typer(teacher_app, name="teacher")
app.add_typer(data_app, name="data")
app.add_typer(targets_app, name="targets")
app.add_typer(bundle_app, name="bundle")
app.add_typer(devices_app, name="devices")
app.add_typer(baseline_app, name="baseline")

RecipeArg = Annotated[str, typer.Argument(help="Recipe file, or the name of one that ships with the package.")]
OutOpt = Annotated[Path | None, typer.Option("--out", help="Run folder; runs/NAME by default.")]
SetOpt = Annotated[list[str], typer.Option("--set", help="Override a setting: key.path=value, as in YAML. Repeatable.")]
UntilOpt = Annotated[str | None, typer.Option("--until", help="Stop after this stage.")]
ForceOpt = Annotated[str | None, typer.Option("--force", help="Run this stage even if it is up to date.")]
DeviceOpt = Annotated[DeviceName | None, typer.Option("--device", help="Where to compute; a GPU where there is one, by default.")]
SmokeOpt = Annotated[bool, typer.Option("--smoke", help="A handful of images and one short pass: proves that every stage runs.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
WorkersOpt = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes that decode and augment images for each process; by default the free cores."),
]
MicroBatchOpt = Annotated[
    int | None, typer.Option("--micro-batch", min=1, help="Most images of one forward pass; the rest of a batch is accumulated.")
]
CompileOpt = Annotated[bool, typer.Option("--compile", help="Compile the networks with torch.compile.")]
ShardOpt = Annotated[bool, typer.Option("--shard", help="Share the model among processes (FSDP) instead of copying it (DDP).")]
_PROBE_MINUTES = 10.0


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"g2sd-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Read by typer for the options that come before a command."""


@app.command()
@tell_errors
def run(
    recipe: RecipeArg,
    out: OutOpt = None,
    set_: SetOpt = [],  # noqa: B006 (typer reads the default, nobody changes it)
    until: UntilOpt = None,
    force: ForceOpt = None,
    device: DeviceOpt = None,
    smoke: SmokeOpt = False,
    as_json: JsonOpt = False,
    workers: WorkersOpt = None,
    micro_batch: MicroBatchOpt = None,
    compiled: CompileOpt = False,
    sharded: ShardOpt = False,
    checkpoint_every: Annotated[str, typer.Option("--checkpoint-every", help="Minutes as 10m, or optimiser steps as 500.")] = "10m",
    track: Annotated[list[str], typer.Option("--track", help="Send metrics to tensorboard, wandb or mlflow, too. Repeatable.")] = [],  # noqa: B006
    rank_timeout: Annotated[
        float, typer.Option("--rank-timeout", min=1.0, help="Seconds to wait for a process that does not answer.")
    ] = 600.0,
) -> None:
    """Run a recipe's stages; those that are up to date are skipped, and training goes on from its last checkpoint."""
    from g2sd_deploy import pipeline
    from g2sd_deploy.results import print_result
    from g2sd_deploy.runtime import make_runtime

    loaded, folder = _load(recipe, out, set_, smoke)
    runtime = make_runtime(
        device,
        workers=workers,
        micro_batch=micro_batch,
        compiled=compiled,
        sharded=sharded,
        checkpoint_every=checkpoint_every,
        track=track,
        rank_timeout_s=rank_timeout,
    )
    command = shlex.join(["g2sd", *sys.argv[1:]])
    with told(runtime) as progress:
        steps = pipeline.run(loaded, folder, runtime=runtime, progress=progress, command=command, until=until, force=force)
    if not runtime.ranks.is_main:
        return
    if not any(step.runs for step in steps):
        typer.echo("everything is up to date; nothing was run", err=True)
    print_result(folder, [step.stage.name for step in steps], as_json)


@app.command()
@tell_errors
def plan(
    recipe: RecipeArg,
    out: OutOpt = None,
    set_: SetOpt = [],  # noqa: B006
    until: UntilOpt = None,
    force: ForceOpt = None,
    smoke: SmokeOpt = False,
    as_json: JsonOpt = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Begin every stage for real (20 steps of each training) and tell its time, memory and disk.")
    ] = False,
    probe_minutes: Annotated[
        float | None,
        typer.Option("--probe-minutes", min=0.0, help="Time for the steps of all trainings; fewer than 20 are done where it is short. 10."),
    ] = None,
    device: DeviceOpt = None,
    workers: WorkersOpt = None,
    micro_batch: MicroBatchOpt = None,
    compiled: CompileOpt = False,
    sharded: ShardOpt = False,
) -> None:
    """Tell which stages would run, which are up to date, and why; with --probe also what they would take."""
    loaded, folder = _load(recipe, out, set_, smoke)
    options = {"device": device, "workers": workers, "micro_batch": micro_batch, "compiled": compiled, "sharded": sharded}
    if not probe:
        _refuse_without_probe({**options, "probe_minutes": probe_minutes})
        _print_plan(loaded, folder, until, force, as_json)
        return
    from g2sd_deploy.probe import print_probe
    from g2sd_deploy.probe import probe as probe_run
    from g2sd_deploy.runtime import make_runtime

    runtime = make_runtime(**options)  # type: ignore[arg-type]
    minutes = _PROBE_MINUTES if probe_minutes is None else probe_minutes
    with told(runtime) as progress:
        found = probe_run(loaded, folder, runtime=runtime, progress=progress, minutes=minutes, until=until, force=force)
    if runtime.ranks.is_main:
        print_probe(found, json_wanted=as_json)


def _refuse_without_probe(options: "dict[str, Any]") -> None:
    """What a plan alone does not look at."""
    names = {"compiled": "compile", "sharded": "shard"}
    if given := [names.get(name, name).replace("_", "-") for name, value in options.items() if value not in (None, False)]:
        raise UserError(f"--{given[0]}: a plan computes nothing; add --probe, or leave it out")


def _print_plan(recipe: "Recipe", folder: Path, until: str | None, force: str | None, as_json: bool) -> None:
    from g2sd_deploy import planning

    steps = planning.plan(recipe, folder, until=until, force=force)
    if as_json:
        typer.echo(json.dumps([{"stage": step.stage.name, "runs": step.runs, "reason": step.reason} for step in steps]))
        return
    for step in steps:
        typer.echo(f"{'run ' if step.runs else 'skip'}  {step.stage.name:<9} {step.reason}")


@app.command()
@tell_errors
def validate(recipe: RecipeArg, set_: SetOpt = []) -> None:  # noqa: B006
    """Check a recipe without running it."""
    from g2sd_deploy.planning import stages_of
    from g2sd_deploy.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), set_)
    typer.echo(f"{loaded.name} is valid; its stages: {', '.join(stage.name for stage in stages_of(loaded))}")


@app.command()
@tell_errors
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from g2sd_deploy.recipe import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


@recipes_app.command("list")
@tell_errors
def list_recipes() -> None:
    """List the recipes that ship with the package."""
    from g2sd_deploy.recipe import bundled_recipes, load_recipe

    paths = bundled_recipes()
    width = max(len(path.stem) for path in paths)
    for path in paths:
        typer.echo(f"{path.stem:<{width}}  {load_recipe(path).description}")


@recipes_app.command("show")
@tell_errors
def show_recipe(
    recipe: RecipeArg, resolved: Annotated[bool, typer.Option("--resolved", help="With the recipe that it is based on merged in.")] = False
) -> None:
    """Print a recipe."""
    from g2sd_deploy.recipe import find_recipe, resolved_text

    path = find_recipe(recipe)
    typer.echo(resolved_text(path) if resolved else path.read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
@tell_errors
def copy_recipe(recipe: RecipeArg, to: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Copy a recipe to a file of your own."""
    from g2sd_deploy.recipe import copy_recipe as copy

    typer.echo(str(copy(recipe, to)))


for _command in (evaluate, profile, check, pareto, report, watch):
    app.command()(tell_errors(_command))
app.command()(export)


@app.command()
@tell_errors
def doctor(as_json: JsonOpt = False) -> None:
    """Tell what this machine can run, and what to install for the rest."""
    from g2sd_deploy.doctor import examine, print_findings

    findings = examine()
    print_findings(findings, as_json)
    if any(finding.required and finding.status == "missing" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _load(name: str, out: Path | None, overrides: list[str], smoke: bool) -> "tuple[Recipe, Path]":
    from g2sd_deploy.recipe import find_recipe, load_recipe, shrink_for_smoke

    recipe = load_recipe(find_recipe(name), overrides)
    if smoke:
        recipe = shrink_for_smoke(recipe)
    return recipe, out or Path("runs") / (recipe.name + ("-smoke" if smoke else ""))


def main() -> None:
    """Entry point of the console script."""
    app()
