"""`g2sd check` and `g2sd baseline`: gates that keep accuracy, robustness, latency and size from regressing."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.cli_output import console
from g2sd_deploy.errors import RunFailed, UserError

if TYPE_CHECKING:
    from g2sd_deploy.gates.checking import Checked

_SUMMARY = "GITHUB_STEP_SUMMARY"
RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
BaselineOpt = Annotated[Path, typer.Option("--baseline", metavar="FILE", help="What `g2sd baseline update` wrote.")]
GatesOpt = Annotated[
    Path | None, typer.Option("--gates", metavar="FILE", help="YAML file: which gates, what they tolerate. docs/ci lists the keys.")
]
ProfileOpt = Annotated[
    Path | None, typer.Option("--profile", metavar="FILE", help="What `g2sd profile --json` wrote; the run's own profile by default.")
]
ProfilesOpt = Annotated[
    list[Path],
    typer.Option(
        "--profile", metavar="FILE", help="What `g2sd profile --json` wrote, one per machine. Repeatable; the run's own by default."
    ),
]
StrictOpt = Annotated[bool, typer.Option("--strict", help="Fail where a gate that is not optional cannot be judged.")]
JunitOpt = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, too.")]
GitlabOpt = Annotated[Path | None, typer.Option("--gitlab", metavar="FILE", help="Write a code-quality report of GitLab, too.")]
GithubOpt = Annotated[
    bool | None,
    typer.Option("--github/--no-github", help="Summary and annotations for GitHub Actions; on where GITHUB_ACTIONS is true, by default."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]

baseline_app = typer.Typer(help="What a run is held against by `g2sd check`.", no_args_is_help=True, rich_markup_mode=None)


@baseline_app.callback()
def _root() -> None:
    """Baselines."""


@baseline_app.command("update")
@tell_errors
def update(
    run: RunArg,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write; one that exists is replaced.")] = Path("baseline.json"),
    profile: ProfilesOpt = [],  # noqa: B006 (typer reads the default, nobody changes it)
) -> None:
    """Make a run the baseline: one JSON file with its figures, answers, sizes, verdicts, latency ratios and loss curves."""
    from g2sd_deploy.gates.collecting import snapshot_of
    from g2sd_deploy.gates.shown import snapshot_lines
    from g2sd_deploy.gates.snapshot import write_snapshot

    snapshot = snapshot_of(run, profile)
    write_snapshot(snapshot, out)
    for line in snapshot_lines(snapshot):
        typer.echo(line, err=True)
    typer.echo(str(out))


@baseline_app.command("show")
@tell_errors
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A baseline.")] = Path("baseline.json"), as_json: JsonOpt = False
) -> None:
    """Show what a baseline holds."""
    from g2sd_deploy.gates.shown import snapshot_lines, snapshot_table
    from g2sd_deploy.gates.snapshot import read_snapshot

    snapshot = read_snapshot(file)
    if as_json:
        typer.echo(json.dumps(snapshot.model_dump(mode="json")))
        return
    printed = console(stderr=False)
    printed.print(snapshot_table(snapshot))
    for line in snapshot_lines(snapshot):
        printed.print(line, highlight=False, soft_wrap=True, markup=False)


def check(
    run: RunArg,
    baseline: BaselineOpt = Path("baseline.json"),
    gates: GatesOpt = None,
    profile: ProfileOpt = None,
    strict: StrictOpt = False,
    junit: JunitOpt = None,
    gitlab: GitlabOpt = None,
    github: GithubOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Hold a run against a baseline: accuracy, robustness, calibration, latency, size, parity and loss curves.

    Exit code 0 where every gate passed that has to, 1 where one failed, 2 where the check could not be made.
    """
    from g2sd_deploy.gates.checking import check as check_run
    from g2sd_deploy.gates.collecting import snapshot_of
    from g2sd_deploy.gates.settings import GateSettings
    from g2sd_deploy.gates.settings_file import read_gates
    from g2sd_deploy.gates.snapshot import read_snapshot

    settings = read_gates(gates) if gates is not None else GateSettings()
    before = read_snapshot(baseline)
    checked = check_run(before, snapshot_of(run, [profile] if profile else []), settings, strict=strict)
    _print(checked, as_json)
    _write(checked, run.name, baseline, junit, gitlab)
    if os.environ.get("GITHUB_ACTIONS") == "true" or os.environ.get(_SUMMARY) if github is None else github:
        _tell_github(checked, run.name)
    if checked.failure:
        raise RunFailed(checked.failure)


def _print(checked: "Checked", as_json: bool) -> None:
    if as_json:
        gates = [{"name": gate.name, **asdict(gate), "fails": checked.fails(gate)} for gate in checked.gates]
        verdict = "failed" if checked.failure else "passed"
        typer.echo(json.dumps({"verdict": verdict, "reason": checked.failure, "gates": gates}))
        return
    from g2sd_deploy.gates.shown import check_table

    printed = console(stderr=False)
    printed.print(check_table(checked))
    printed.print(checked.counts, highlight=False)


def _write(checked: "Checked", run: str, baseline: Path, junit: Path | None, gitlab: Path | None) -> None:
    from g2sd_deploy.gates.gitlab import code_quality_text
    from g2sd_deploy.gates.junit import junit_text

    if junit is not None:
        _write_text("--junit", junit, junit_text(checked, run))
    if gitlab is not None:
        here = baseline.resolve()
        path = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else Path(baseline.name)
        _write_text("--gitlab", gitlab, code_quality_text(checked, path.as_posix()))


def _write_text(option: str, path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be written ({error.strerror}); give a file in a folder that you may write to") from None


def _tell_github(checked: "Checked", run: str) -> None:
    """The summary goes to the file that GitHub names, annotations to stderr, where it reads them as on stdout."""
    from g2sd_deploy.gates.github import annotations, summary_text

    for line in annotations(checked):
        typer.echo(line, err=True)
    if file := os.environ.get(_SUMMARY):
        try:
            with Path(file).open("a", encoding="utf-8") as summary:
                summary.write(summary_text(checked, run))
        except OSError as error:
            raise UserError(f"{_SUMMARY} {file}: cannot be written ({error.strerror}); give --no-github") from None
