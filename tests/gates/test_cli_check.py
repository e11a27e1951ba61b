"""`g2sd check` and `g2sd baseline` on real runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml

from g2sd_deploy.evaluation.predictions import columns_of
from g2sd_deploy.gates.packing import unpacked
from g2sd_deploy.gates.snapshot import read_snapshot

G2sd = Callable[..., Any]


@pytest.fixture(scope="module")
def baseline(g2sd: G2sd, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("baseline") / "baseline.json"
    answer = g2sd("baseline", "update", tiny_run, "--out", file)
    assert answer.code == 0 and answer.out == f"{file}\n"
    return file


def error_of(answer: Any, code: int = 2) -> str:
    assert answer.code == code, answer.err
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in answer.err
    return str(last.removeprefix("error: "))


def test_a_baseline_holds_what_the_run_recorded(baseline: Path, tiny_run: Path) -> None:
    found = read_snapshot(baseline)
    assert set(found.models) == {"teacher", "student", "shipped"}
    evaluated = json.loads((tiny_run / "evaluate" / "artifact.json").read_text())["metrics"]
    student, metrics = found.models["student"], evaluated["models"]["student"]
    assert student.sets["clean"].top1 == metrics["clean"]["top1"] and student.num_parameters == metrics["num_parameters"]
    assert student.sets["clean"].ece_interval == tuple(metrics["clean"]["intervals"]["ece"])
    assert student.corruptions is not None and student.corruptions.top1["fog/3"] == metrics["corruptions"]["fog"]["3"]["top1"]
    for answers in student.answers:
        stored = columns_of(tiny_run / "evaluate" / "predictions-student.parquet", answers.set, answers.variant)
        assert unpacked(answers).tolist() == stored["correct"].tolist()
    assert {answers.variant for answers in student.answers} == {"", "fog/1", "fog/3", "contrast/1", "contrast/3"}
    exported = json.loads((tiny_run / "export" / "artifact.json").read_text())["metrics"]
    assert found.models["shipped"].file_bytes == exported["model_bytes"] and found.parity is not None
    assert found.parity.candidates == {"fp32-onnxruntime": "passed"}


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(g2sd: G2sd, baseline: Path, tiny_run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_run, tmp_path / "elsewhere")
    assert g2sd("baseline", "update", copied, "--out", tmp_path / "again.json").code == 0
    assert (tmp_path / "again.json").read_bytes() == baseline.read_bytes()


def test_a_baseline_is_shown(g2sd: G2sd, baseline: Path) -> None:
    answer = g2sd("baseline", "show", baseline)
    assert answer.code == 0 and "student" in answer.out and "parity passed, ships fp32-onnxruntime" in answer.out
    assert json.loads(g2sd("baseline", "show", baseline, "--json").out)["recipe"] == "tiny"


def test_a_run_passes_against_itself(g2sd: G2sd, baseline: Path, tiny_run: Path) -> None:
    answer = g2sd("check", tiny_run, "--baseline", baseline)
    assert answer.code == 0 and "0 failed" in answer.out and "accuracy student clean" in answer.out


def test_a_run_that_learned_nothing_fails_with_exit_code_1(g2sd: G2sd, baseline: Path, broken_run: Path, tmp_path: Path) -> None:
    junit, gitlab = tmp_path / "out" / "junit.xml", tmp_path / "out" / "quality.json"
    answer = g2sd("check", broken_run, "--baseline", baseline, "--junit", junit, "--gitlab", gitlab, "--json")
    message = error_of(answer, 1)
    assert "gates failed: accuracy student clean, accuracy shipped clean" in message  # the export is gone, and the gate required
    found = json.loads(answer.out)
    assert found["verdict"] == "failed" and found["reason"] == message
    gates = {gate["name"]: gate for gate in found["gates"]}
    lost = gates["accuracy student clean"]
    assert lost["figures"]["paired"] and lost["figures"]["p"] <= 0.05 and lost["fails"]
    assert gates["loss specific"]["verdict"] in ("failed", "not_run") or "loss specific" not in gates
    xml = JUnitXml.fromfile(str(junit))
    assert xml.failures == sum(gate["fails"] for gate in found["gates"]) and xml.tests == len(found["gates"])
    critical = [issue for issue in json.loads(gitlab.read_text()) if issue["severity"] != "info"]
    assert len(critical) == xml.failures and critical[0]["location"]["path"] == "baseline.json"


def test_a_file_of_gates_changes_what_is_tolerated(g2sd: G2sd, baseline: Path, broken_run: Path, tmp_path: Path) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text("models: [student]\naccuracy: {max_drop_points: 99}\nrobustness: null\nece: {max_rise: 1}\nparity: null\nloss: null\n")
    assert g2sd("check", broken_run, "--baseline", baseline, "--gates", gates).code == 0
    tolerant = "models: [student]\naccuracy: {max_drop_points: 99}\nrobustness: null\nece: null\nloss: null\n"
    gates.write_text(tolerant + "limits: {student: {min_top1: 0.999}}\n")
    assert "limit student min_top1" in error_of(g2sd("check", broken_run, "--baseline", baseline, "--gates", gates), 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy: null\n", "gates.yaml:1: unknown key acuracy; did you mean accuracy?"),
        ("latency:\n  max_slowdwn: 0.1\n", "gates.yaml:2: unknown key latency.max_slowdwn; did you mean latency.max_slowdown?"),
        ("latency:\n  max_slowdown: fast\n", "gates.yaml:2: latency.max_slowdown is 'fast'; "),
        ("models: [studnt]\n", "gates.yaml:1: models.0 is 'studnt'; "),
        ("required: [speed]\n", "gates.yaml:1: required.0 is 'speed'; "),
        ("limits: {student: {min_top: 1}}\n", "gates.yaml:1: unknown key limits.student.min_top"),
        ("- a list\n", "gates.yaml: a file of gates is a mapping of settings (`name: ...`), not a list"),
    ],
)
def test_a_mistake_in_the_gates_is_one_line(g2sd: G2sd, baseline: Path, tiny_run: Path, tmp_path: Path, text: str, message: str) -> None:
    gates = tmp_path / "gates.yaml"
    gates.write_text(text)
    assert message in error_of(g2sd("check", tiny_run, "--baseline", baseline, "--gates", gates))


def test_what_is_no_run_and_what_is_no_baseline_is_refused(g2sd: G2sd, baseline: Path, tiny_run: Path, tmp_path: Path) -> None:
    assert "a run cannot be read from it" in error_of(g2sd("check", tmp_path, "--baseline", baseline))
    assert "a baseline cannot be read from it" in error_of(g2sd("check", tiny_run, "--baseline", tmp_path / "none.json"))
    wrong = tmp_path / "wrong.json"
    for text, message in (
        ("[]", "holds list; wanted a baseline"),
        ("{", "is no JSON"),
        ('{"format": 2}', "has format 2"),
        ('{"format": 1, "recipe": "r"}', "made_of: field required"),
    ):
        wrong.write_text(text)
        assert message in error_of(g2sd("check", tiny_run, "--baseline", wrong))
    assert "cannot be written" in error_of(g2sd("baseline", "update", tiny_run, "--out", tmp_path / "wrong.json" / "x.json"))


def test_a_run_whose_predictions_were_changed_is_refused(g2sd: G2sd, baseline: Path, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    file = run / "evaluate" / "predictions-student.parquet"
    shutil.copy(run / "evaluate" / "predictions-teacher.parquet", file)
    assert "make it again with --force evaluate" in error_of(g2sd("check", run, "--baseline", baseline))


def test_a_run_whose_stages_are_not_of_one_piece_is_refused(
    g2sd: G2sd, baseline: Path, tiny_run: Path, broken_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shutil.rmtree(run / "specific")
    shutil.copytree(broken_run / "specific", run / "specific")
    assert "evaluate was made of another specific than is there now" in error_of(g2sd("check", run, "--baseline", baseline))


def test_an_evaluation_that_is_gone_fails_the_required_gate(g2sd: G2sd, baseline: Path, tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shutil.rmtree(run / "evaluate")
    answer = g2sd("check", run, "--baseline", baseline)
    assert "accuracy student clean" in error_of(answer, 1) and "not run, required" in answer.out
    gates = tmp_path / "gates.yaml"
    gates.write_text("required: []\n")
    assert g2sd("check", run, "--baseline", baseline, "--gates", gates).code == 0
    assert error_of(g2sd("check", run, "--baseline", baseline, "--gates", gates, "--strict"), 1)
    gates.write_text("required: []\noptional: [accuracy, robustness, ece, size, parameters, latency, loss, limit]\n")
    assert g2sd("check", run, "--baseline", baseline, "--gates", gates, "--strict").code == 0


def test_latency_comes_from_a_profile_that_is_named(g2sd: G2sd, tiny_run: Path, tmp_path: Path, profile: G2sd) -> None:
    for name, value in (("base", 0.5), ("slow", 0.6)):
        (tmp_path / f"{name}.json").write_text(json.dumps(profile(value)))
    file = tmp_path / "baseline.json"
    assert g2sd("baseline", "update", tiny_run, "--out", file, "--profile", tmp_path / "base.json").code == 0
    assert g2sd("check", tiny_run, "--baseline", file, "--profile", tmp_path / "base.json").code == 0
    answer = g2sd("check", tiny_run, "--baseline", file, "--profile", tmp_path / "slow.json")
    assert "1 of" in error_of(answer, 1) and "+20.0%" in answer.out
    assert "1 ratios to reference" in g2sd("baseline", "show", file).out


def test_github_gets_a_summary_and_annotations_only_where_it_asks(g2sd: G2sd, baseline: Path, broken_run: Path, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    arguments = ("check", broken_run, "--baseline", baseline)
    answer = g2sd(*arguments, "--json", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert answer.code == 1 and json.loads(answer.out) and "::error title=g2sd accuracy student clean::" in answer.err
    assert summary.read_text().startswith("before\n### g2sd check run: failed")
    assert "::error" not in g2sd(*arguments).err
    assert "::error" not in g2sd(*arguments, "--no-github", GITHUB_ACTIONS="true").err
    assert "::error" in g2sd(*arguments, "--github").err
