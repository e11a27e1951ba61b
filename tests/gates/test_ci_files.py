"""The files that a team copies into its repository, run step by step as a CI system would."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml
from ruamel.yaml import YAML

from g2sd_deploy.gates.settings import GateSettings
from g2sd_deploy.gates.settings_file import read_gates

CI = Path(__file__).parent.parent.parent / "docs" / "ci"
_EXPRESSION = re.compile(r"\$\{\{\s*(\w+)\.(\w+)\s*\}\}")
ELSEWHERE = ("actions/checkout", "actions/setup-python", "actions/upload-artifact")
"""Actions that fetch or upload: there is nothing to try here."""


def loaded(name: str) -> dict[str, Any]:
    return dict(YAML(typ="safe").load((CI / name).read_text()))


@pytest.fixture
def checkout(tmp_path: Path, tiny_run: Path, g2sd: Callable[..., Any]) -> Path:
    """A repository with a finished run in it, its baseline and its gates, and a PATH whose pip installs nothing."""
    shutil.copytree(tiny_run, tmp_path / "runs" / "done")
    assert g2sd("baseline", "update", tiny_run, "--out", tmp_path / "baseline.json").code == 0
    shutil.copy(CI / "gates.yaml", tmp_path / "gates.yaml")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    pip = f'if [ "$1 $2" = "-m pip" ]; then echo "$@" >> "{tmp_path}/pip.log"; else exec "{sys.executable}" "$@"; fi'
    for name, body in (("python", pip), ("g2sd", f'exec "{sys.executable}" -m g2sd_deploy "$@"')):
        file = binaries / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return tmp_path


class Steps:
    """Runs the `run:` steps of a job; what a step's `env` and `with` say is put in as GitHub does."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{environment['PATH']}",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }
        self.output = ""

    def script(self, text: str, environment: dict[str, str]) -> int:
        """As `shell: bash` on a runner: it ends at the first command that fails."""
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
        done = subprocess.run(command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True, check=False)
        self.output += done.stdout + done.stderr
        return done.returncode

    def action(self, inputs: dict[str, str]) -> int:
        """The composite action with these inputs."""
        action = loaded("action.yml")
        values = {name: str(known.get("default", "")) for name, known in action["inputs"].items()} | inputs
        assert set(inputs) <= set(action["inputs"])
        for step in action["runs"]["steps"]:
            assert step["shell"] == "bash"
            if step.get("if") == "inputs.install != ''" and not values["install"]:
                continue
            code = self.script(step["run"], filled(step["env"], inputs=values))
            if code:
                return code
        return 0

    def job(self, job: dict[str, Any], environment: dict[str, str]) -> int:
        """All steps of a job."""
        for step in job["steps"]:
            uses = step.get("uses", "")
            if uses.startswith(ELSEWHERE):
                continue
            assert not uses or uses == "./.github/actions/g2sd-check"
            code = self.action(filled(step["with"], env=environment)) if uses else self.script(step["run"], environment)
            if code:
                return code
        return 0


def filled(values: dict[str, Any], **known: dict[str, str]) -> dict[str, str]:
    return {key: _EXPRESSION.sub(lambda found: known[found[1]][found[2]], str(value)) for key, value in values.items()}


@pytest.fixture
def steps(checkout: Path, process_environment: dict[str, str]) -> Steps:
    return Steps(checkout, process_environment)


def test_the_action_passes_a_run_that_is_as_good_as_its_baseline(steps: Steps) -> None:
    assert steps.action({"run": "runs/done", "gates": "gates.yaml"}) == 0, steps.output
    assert (steps.folder / "pip.log").read_text() == "-m pip install g2sd-deploy\n"
    assert "g2sd check done: passed" in (steps.folder / "summary.md").read_text()
    assert JUnitXml.fromfile(str(steps.folder / "g2sd-junit.xml")).failures == 0


def test_the_action_fails_a_run_that_is_worse_and_annotates_it(steps: Steps, broken_run: Path) -> None:
    shutil.copytree(broken_run, steps.folder / "runs" / "worse")
    assert steps.action({"run": "runs/worse", "install": ""}) == 1, steps.output
    assert not (steps.folder / "pip.log").exists()
    assert "::error title=g2sd accuracy student clean::" in steps.output
    assert JUnitXml.fromfile(str(steps.folder / "g2sd-junit.xml")).failures > 0


def test_an_input_of_the_action_is_never_run_as_a_command(steps: Steps) -> None:
    assert steps.action({"run": '"; touch harmed; $(touch harmed) `touch harmed`', "install": ""}) == 2, steps.output
    assert not (steps.folder / "harmed").exists()


def test_strictness_and_a_profile_reach_the_command(steps: Steps, profile: Callable[..., Any]) -> None:
    (steps.folder / "profile.json").write_text(json.dumps(profile()))
    assert steps.action({"run": "runs/done", "install": "", "profile": "profile.json", "strict": "true"}) == 1
    assert "::error title=g2sd latency::the baseline has no profile" in steps.output


def test_the_pull_request_workflow_runs_from_start_to_finish(steps: Steps, tiny_run: Path) -> None:
    workflow = loaded("pull-request.yml")
    recipe = steps.folder / "tiny.yaml"
    resolved = json.loads((tiny_run / "run.json").read_text())["resolved"]
    YAML().dump(resolved, recipe)
    environment = {**workflow["env"], "G2SD_RECIPE": str(recipe), "G2SD_OUT": "runs/done"}
    assert steps.job(workflow["jobs"]["check"], environment) == 0, steps.output
    assert (steps.folder / "pip.log").read_text() == "-m pip install g2sd-deploy\n"
    assert "passed" in (steps.folder / "summary.md").read_text()


def test_the_gitlab_job_runs_from_start_to_finish(steps: Steps, tiny_run: Path) -> None:
    job = loaded("gitlab-ci.yml")["g2sd-check"]
    recipe = steps.folder / "tiny.yaml"
    YAML().dump(json.loads((tiny_run / "run.json").read_text())["resolved"], recipe)
    environment = {**job["variables"], "G2SD_RECIPE": str(recipe), "G2SD_OUT": "runs/done"}
    assert [steps.script(line, environment) for line in job["script"]] == [0, 0, 0], steps.output
    reports = job["artifacts"]["reports"]
    assert JUnitXml.fromfile(str(steps.folder / reports["junit"])).tests > 0
    found = json.loads((steps.folder / reports["codequality"]).read_text())
    assert all(issue["severity"] == "info" for issue in found)


def test_the_example_of_gates_says_the_defaults() -> None:
    assert read_gates(CI / "gates.yaml").model_copy(update={"limits": {}}) == GateSettings()


def test_every_setting_of_the_gates_is_in_the_example() -> None:
    example = loaded("gates.yaml")
    assert set(example) == set(GateSettings.model_fields)
    for name, values in GateSettings().model_dump().items():
        if isinstance(values, dict) and values:
            assert set(example[name]) == set(values)


def test_every_input_of_the_action_reaches_a_step() -> None:
    action = loaded("action.yml")
    used = {found[2] for step in action["runs"]["steps"] for value in step["env"].values() for found in _EXPRESSION.finditer(value)}
    assert used == set(action["inputs"])
