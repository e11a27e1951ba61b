"""What a check writes for CI systems, read back by what reads it."""

import json
import re
from typing import Any

import pytest
from junitparser import Failure, JUnitXml, Skipped

from g2sd_deploy.gates.checking import Checked
from g2sd_deploy.gates.github import annotations, summary_text
from g2sd_deploy.gates.gitlab import code_quality_text
from g2sd_deploy.gates.junit import junit_text
from g2sd_deploy.gates.outcome import Gate, not_run

NASTY = 'lost 5 % of <b>"a|b"</b> & more\r\n::error::forged\x00 *x*'


def checked(*, required: bool = False) -> Checked:
    gates = (
        Gate("accuracy", "student clean", "passed", "fine", {"p": 0.5}, "too few images"),
        Gate("accuracy", "shipped, clean: all", "failed", NASTY),
        Gate("size", "student", "passed", "as large"),
        not_run("latency", "", "another machine"),
    )
    return Checked(gates, frozenset({"latency"} if required else ()))


def test_junit_is_read_back_gate_by_gate() -> None:
    xml = JUnitXml.fromstring(junit_text(checked(), "a<b").encode())
    assert (xml.tests, xml.failures, xml.skipped, xml.errors) == (4, 1, 1, 0)
    (suite,) = xml
    assert suite.name == "g2sd check a<b" and (suite.tests, suite.failures, suite.skipped) == (4, 1, 1)
    cases = {case.name: case for case in suite}
    assert list(cases) == ["accuracy student clean", "accuracy shipped, clean: all", "size student", "latency"]
    assert cases["accuracy student clean"].is_passed and cases["accuracy student clean"].system_out == "fine; too few images"
    (failure,) = cases["accuracy shipped, clean: all"].result
    assert isinstance(failure, Failure) and failure.type == "failed"
    assert failure.text is not None and failure.text.startswith('lost 5 % of <b>"a|b"</b> & more') and "\x00" not in failure.text
    (skipped,) = cases["latency"].result
    assert isinstance(skipped, Skipped) and skipped.message == "another machine"


def test_a_required_gate_without_a_verdict_is_a_failure_in_junit() -> None:
    xml = JUnitXml.fromstring(junit_text(checked(required=True), "run").encode())
    assert (xml.failures, xml.skipped) == (2, 0)


def decoded(line: str) -> tuple[str, str, str]:
    """A workflow command as GitHub's runner reads it."""
    found = re.fullmatch(r"::(\w+) title=([^:,\r\n]*)::([^\r\n]*)", line)
    assert found, line
    level, title, message = found.groups()
    for escape, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        title, message = title.replace(escape, char), message.replace(escape, char)
    return level, title, message


def test_annotations_are_one_line_each_and_come_back_whole() -> None:
    found = [decoded(line) for line in annotations(checked())]
    assert found == [
        ("error", "g2sd accuracy shipped, clean: all", NASTY),
        ("warning", "g2sd accuracy student clean", "fine; too few images"),
    ]
    assert len(annotations(checked(required=True))) == 3


def test_more_annotations_than_github_shows_are_summed_up() -> None:
    many = Checked(tuple(Gate("loss", f"stage {i}", "failed", "high") for i in range(14)), frozenset())
    lines = annotations(many)
    assert len(lines) == 10 and decoded(lines[-1])[2] == "5 more; the summary of the step lists them"


def test_a_check_without_any_verdict_is_an_error_everywhere() -> None:
    nothing = Checked((not_run("latency", "", "no profile"),), frozenset())
    assert nothing.failure == "no gate could be judged, so nothing was checked"
    assert decoded(annotations(nothing)[0])[0] == "error"
    assert json.loads(code_quality_text(nothing, "b.json"))[0]["description"].endswith(nothing.failure)


def test_the_summary_is_a_table_whose_cells_hold_no_markup() -> None:
    text = summary_text(checked(), "my_run")
    assert text.startswith("### g2sd check my\\_run: failed: 1 of 4 gates failed")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    assert "<b>" not in text and "\\*x\\*" in text and "❌ failed" in text and "⚪ not run" in text and "✅ passed, unsure" in text


def test_gitlab_gets_an_issue_for_each_failed_and_each_unsure_gate() -> None:
    issues: list[dict[str, Any]] = json.loads(code_quality_text(checked(required=True), "ci/baseline.json"))
    assert [issue["severity"] for issue in issues] == ["critical", "major", "info"]
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["location"] == {"path": "ci/baseline.json", "lines": {"begin": 1}}
        assert issue["check_name"].startswith("g2sd-") and re.fullmatch("[0-9a-f]{64}", issue["fingerprint"])
    assert len({issue["fingerprint"] for issue in issues}) == 3


def test_a_gate_keeps_its_fingerprint_when_its_numbers_change() -> None:
    def fingerprint(reason: str) -> str:
        found = Checked((Gate("size", "student", "failed", reason),), frozenset())
        return str(json.loads(code_quality_text(found, "b.json"))[0]["fingerprint"])

    assert fingerprint("3 MiB") == fingerprint("4 MiB")


@pytest.mark.parametrize(("required", "failure"), [(False, "1 of 4 gates failed"), (True, "2 of 4 gates failed")])
def test_the_check_counts_what_fails(required: bool, failure: str) -> None:
    assert checked(required=required).failure.startswith(failure)
