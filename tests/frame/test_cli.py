"""The commands on a real smoke run: what they print where, and what they leave."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.recipe import bundled_recipes
from g2sd_export.targets import find_target

ALL = ["data", "teacher", "generic", "specific", "baseline", "evaluate", "export", "profile", "report"]


def test_a_run_prints_its_result_on_stdout_and_its_progress_on_stderr(smoke_run: Any) -> None:
    answer = smoke_run.answer
    assert answer.code == 0, answer.err
    for word in ("teacher", "student", "baseline", "parity passed"):
        assert word in answer.out
    assert answer.out.endswith(f"bundle: {smoke_run.folder / 'export' / 'bundle'}\nreport: {smoke_run.folder / 'report' / 'report.html'}\n")
    lines = answer.err.splitlines()
    assert [line for line in lines if line.endswith(": starts")] == [f"{name}: starts" for name in ALL]
    assert all(re.match(rf"({'|'.join(ALL)}): ", line) for line in lines), "nothing else on stderr: no warning, no table"
    assert "starts" not in answer.out


def test_every_stage_leaves_a_whole_artifact(smoke_run: Any) -> None:
    for name in ALL:
        artifact = read_artifact(smoke_run.folder / name)
        assert artifact is not None and artifact.stage == name and not artifact.failure
        artifact.verify()
    left = {path.name for path in smoke_run.folder.iterdir()}
    assert left == {*ALL, "run.json", "metrics.jsonl", ".lock"}


def test_the_report_is_a_page_that_needs_no_network(smoke_run: Any) -> None:
    page = (smoke_run.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert (smoke_run.folder / "report" / "report.md").read_text(encoding="utf-8").startswith("# ")


def test_the_second_run_does_nothing_and_says_so(g2sd: Callable[..., Any], smoke_run: Any) -> None:
    markers = {path: path.stat().st_mtime_ns for path in smoke_run.folder.glob("*/artifact.json")}
    answer = g2sd(*smoke_run.arguments, "--out", smoke_run.folder)
    assert (answer.code, answer.err) == (0, "everything is up to date; nothing was run\n")
    assert answer.out == smoke_run.answer.out
    assert {path: path.stat().st_mtime_ns for path in smoke_run.folder.glob("*/artifact.json")} == markers


def test_json_is_one_object_with_every_stages_figures(g2sd: Callable[..., Any], smoke_run: Any) -> None:
    answer = g2sd(*smoke_run.arguments, "--out", smoke_run.folder, "--json")
    found = json.loads(answer.out)
    assert answer.out.count("\n") == 1
    assert list(found["stages"]) == ALL
    assert found["paths"] == {
        "bundle": str(smoke_run.folder / "export" / "bundle"),
        "report": str(smoke_run.folder / "report" / "report.html"),
    }
    assert set(found["stages"]["evaluate"]["models"]) == {"teacher", "student", "baseline"}
    assert found["stages"]["export"]["parity"]["verdict"] == "passed"
    models = (("teacher", "", "torch"), ("student", "", "torch"), ("student", "fp32-onnxruntime", "onnxruntime"))
    assert {(row["model"], row["variant"], row["runtime"], row["batch"]) for row in found["stages"]["profile"]["rows"]} == {
        (*model, 1) for model in (*models, ("reference", "", "onnxruntime"))
    }


def test_a_run_until_a_stage_shows_nothing_of_later_ones(g2sd: Callable[..., Any], own_run: Path, smoke_run: Any) -> None:
    answer = g2sd(*smoke_run.arguments, "--out", own_run, "--until", "generic", "--json")
    assert json.loads(answer.out)["paths"] == {}
    assert list(json.loads(answer.out)["stages"]) == ["data", "teacher", "generic"]
    assert g2sd(*smoke_run.arguments, "--out", own_run, "--until", "generic").out == ""


def test_a_deleted_stage_is_made_again_bit_for_bit(g2sd: Callable[..., Any], own_run: Path, smoke_run: Any) -> None:
    for path in (own_run / "generic").iterdir():
        path.unlink()
    (own_run / "generic").rmdir()
    answer = g2sd(*smoke_run.arguments, "--out", own_run)
    assert answer.code == 0
    assert [line for line in answer.err.splitlines() if line.endswith(": starts")] == ["generic: starts", "report: starts"]
    before, after = read_artifact(smoke_run.folder / "generic"), read_artifact(own_run / "generic")
    assert before is not None and after is not None and before.digest == after.digest


def test_a_plan_tells_what_would_run_and_why(g2sd: Callable[..., Any], smoke_run: Any) -> None:
    arguments = ("plan", *smoke_run.arguments[1:-2], "--out", smoke_run.folder)
    lines = g2sd(*arguments).out.splitlines()
    assert [line.split() for line in lines] == [["skip", name, "up", "to", "date"] for name in ALL]
    lines = g2sd(*arguments, "--set", "export.num_samples=2").out.splitlines()
    assert lines[-3:] == [
        "run   export    export.num_samples: 16 -> 2",
        "run   profile   after export",
        "run   report    after export, profile",
    ]
    found = json.loads(g2sd(*arguments, "--force", "report", "--json").out)
    assert [step["stage"] for step in found] == ALL
    assert found[-1] == {"stage": "report", "runs": True, "reason": "forced"}


def test_failed_parity_is_reported_with_exit_code_1(g2sd: Callable[..., Any], own_run: Path, smoke_run: Any, tmp_path: Path) -> None:
    target = tmp_path / "strict.yaml"
    text = find_target("cpu-x86").read_text(encoding="utf-8")
    target.write_text(text.replace("max_abs_logit_diff: 1.0e-3", "max_abs_logit_diff: 1.0e-12"), encoding="utf-8")
    answer = g2sd(*smoke_run.arguments, "--set", f"export.target={target}", "--out", own_run)
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("error: export: the bundle is marked failed: ")
    assert [line for line in answer.err.splitlines() if line.startswith("error")] == answer.err.splitlines()[-1:]
    assert [line for line in answer.err.splitlines() if line.endswith(": starts")] == ["export: starts", "report: starts"]
    assert not (own_run / "profile").exists()
    assert '"verdict": "failed"' in (own_run / "export" / "bundle" / "manifest.json").read_text(encoding="utf-8")
    page = (own_run / "report" / "report.md").read_text(encoding="utf-8")
    assert "failed" in page


def selftest(bundle: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-B", "-m", "edge", "selftest"], cwd=bundle, capture_output=True, text=True, check=False, timeout=120)


def test_the_bundle_proves_itself_and_one_flipped_byte_makes_it_fail(own_run: Path, python: str) -> None:
    bundle = own_run / "export" / "bundle"
    done = selftest(bundle, python)
    assert done.returncode == 0 and done.stdout.startswith("selftest passed"), done.stderr
    model = bundle / "models" / "fp32.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = selftest(bundle, python)
    assert done.returncode == 1 and done.stdout.startswith("selftest failed: ")


def test_validate_names_the_stages(g2sd: Callable[..., Any]) -> None:
    assert g2sd("validate", "quickstart").out == f"quickstart is valid; its stages: {', '.join(ALL)}\n"
    assert g2sd("validate", "quickstart", "--set", "baseline=null").out.count("baseline") == 0


def test_recipes_are_listed_shown_and_copied(g2sd: Callable[..., Any], tmp_path: Path) -> None:
    listed = g2sd("recipes", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == [path.stem for path in bundled_recipes()]
    shown = g2sd("recipes", "show", "quickstart").out
    assert shown.startswith("# ") and "\nname: quickstart\n" in shown
    assert g2sd("recipes", "copy", "quickstart", tmp_path / "mine.yaml").out == f"{tmp_path / 'mine.yaml'}\n"
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == shown


def test_the_schema_is_printed_as_json(g2sd: Callable[..., Any]) -> None:
    assert json.loads(g2sd("schema").out)["title"] == "Recipe"


def test_the_version_is_printed(g2sd: Callable[..., Any]) -> None:
    from g2sd_deploy import __version__

    assert g2sd("--version").out == f"g2sd-deploy {__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "plan",
        "validate",
        "schema",
        "evaluate",
        "export",
        "profile",
        "report",
        "doctor",
        "recipes list",
        "recipes show",
        "recipes copy",
        "teacher list",
        "teacher pull",
        "teacher verify",
        "teacher import",
        "targets list",
        "targets show",
        "bundle verify",
        "bundle show",
        "bundle diff",
        "bundle sign",
        "bundle serve-sample",
        "devices add",
        "devices list",
        "devices check",
        "devices clean",
        "devices history",
        "devices remove",
        "baseline update",
        "baseline show",
    ],
)
def test_every_command_has_help(command: str, g2sd: Callable[..., Any]) -> None:
    answer = g2sd(*command.split(), "--help")
    assert answer.code == 0 and f"{command} [OPTIONS]" in answer.out


def test_help_lists_no_other_command(g2sd: Callable[..., Any]) -> None:
    text = g2sd("--help").out.partition("Commands:")[2]
    listed = [line.split()[0] for line in text.splitlines() if re.match("  \\S", line)]
    commands = ["run", "plan", "validate", "schema", "evaluate", "profile", "check", "pareto", "report", "watch", "export", "doctor"]
    assert listed == [*commands, "recipes", "teacher", "data", "targets", "bundle", "devices", "baseline"]
