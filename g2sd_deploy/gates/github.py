"""A check for GitHub Actions: a summary of the step, and annotations."""

from g2sd_deploy.gates.checking import Checked
from g2sd_deploy.gates.shown import word

_MOST_ANNOTATIONS = 10  # of each level in a step; GitHub drops the rest


def summary_text(checked: Checked, run: str) -> str:
    """Markdown for the file that GITHUB_STEP_SUMMARY names."""
    verdict = f"failed: {checked.failure}" if checked.failure else "passed"
    lines = [
        f"### g2sd check {_cell(run)}: {_cell(verdict)}",
        "",
        checked.counts,
        "",
        "| verdict | gate | what was found |",
        "| --- | --- | --- |",
    ]
    marks = {"passed": "✅", "failed": "❌", "not_run": "⚪"}
    for gate in checked.gates:
        mark = "❌" if checked.fails(gate) else marks[gate.verdict]
        lines.append(f"| {mark} {word(checked, gate)} | {_cell(gate.name)} | {_cell(gate.told)} |")
    return "\n".join(lines) + "\n\n"


def annotations(checked: Checked) -> list[str]:
    """Workflow commands: an error for each gate that fails the check, a warning for each that is unsure.

    Source: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions; actions/toolkit, core/src/command.ts.
    """
    errors = [_command("error", gate.name, gate.told) for gate in checked.gates if checked.fails(gate)]
    warnings = [_command("warning", gate.name, gate.told) for gate in checked.gates if gate.caveat and not checked.fails(gate)]
    if not errors and checked.failure:
        errors = [_command("error", "nothing checked", checked.failure)]
    return [*_first(errors, "error"), *_first(warnings, "warning")]


def _first(lines: list[str], level: str) -> list[str]:
    """As many as GitHub shows; the last one says how many more there are."""
    if len(lines) <= _MOST_ANNOTATIONS:
        return lines
    left = len(lines) - _MOST_ANNOTATIONS + 1
    return [*lines[: _MOST_ANNOTATIONS - 1], _command(level, "more gates", f"{left} more; the summary of the step lists them")]


def _command(level: str, title: str, message: str) -> str:
    return f"::{level} title={_property('g2sd ' + title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    """Text of one cell of a Markdown table: no markup of its own."""
    for char in "\\|`*_[]":
        text = text.replace(char, "\\" + char)
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").splitlines())
