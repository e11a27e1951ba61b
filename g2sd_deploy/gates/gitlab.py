"""A check as GitLab's code-quality report."""

import hashlib
import json

from g2sd_deploy.gates.checking import Checked
from g2sd_deploy.gates.outcome import Gate

_SEVERITIES = {"accuracy": "critical", "parity": "critical", "limit": "critical"}


def code_quality_text(checked: Checked, path: str) -> str:
    """A JSON list: an issue for each gate that fails the check, and a lesser one for each that is unsure.

    GitLab ties an issue to a line of a file in the repository; gates are about none, so all point at the file of the baseline.

    Args:
        checked: The check.
        path: The baseline's file, relative to the repository.

    Source: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
    """
    issues = [_issue(gate, path, _SEVERITIES.get(gate.kind, "major")) for gate in checked.gates if checked.fails(gate)]
    issues += [_issue(gate, path, "info") for gate in checked.gates if gate.caveat and not checked.fails(gate)]
    if checked.failure and not issues:
        nothing = Gate("limit", "", "not_run", checked.failure)
        issues = [_issue(nothing, path, "major")]
    return json.dumps(issues, indent=2) + "\n"


def _issue(gate: Gate, path: str, severity: str) -> dict[str, object]:
    """An issue whose fingerprint is the gate's, so that GitLab knows it again in the next pipeline."""
    return {
        "description": f"{gate.name}: {gate.told}",
        "check_name": f"g2sd-{gate.kind}",
        "fingerprint": hashlib.sha256(f"{gate.name}\n{severity}".encode()).hexdigest(),
        "severity": severity,
        "location": {"path": path, "lines": {"begin": 1}},
    }
