"""The parity gate: the file that ships answers as the trained student does, and so do those that did in the baseline."""

from g2sd_deploy.gates.outcome import Gate, not_run
from g2sd_deploy.gates.settings import ParityGate
from g2sd_deploy.gates.snapshot import Snapshot


def parity_gates(before: Snapshot, after: Snapshot, settings: ParityGate) -> list[Gate]:
    """A gate on what ships, and one on every other file that passed in the baseline.

    Args:
        before: The baseline.
        after: The run.
        settings: Whether files that do not ship count.
    """
    known, found = before.parity, after.parity
    if found is None:
        return [not_run("parity", "shipped", "the run has no export")] if known is not None else []
    reason = found.reason or f"{found.default} answers as the student within its tolerance"
    gates = [Gate("parity", "shipped", found.verdict, reason, {"default": found.default, "candidates": found.candidates})]
    if known is None or not settings.candidates:
        return gates
    passed = [name for name, verdict in known.candidates.items() if verdict == "passed" and name != found.default]
    return gates + [_candidate(name, found.candidates.get(name)) for name in passed]


def _candidate(name: str, verdict: str | None) -> Gate:
    if verdict == "passed":
        return Gate("parity", name, "passed", "passed, as in the baseline")
    if verdict == "failed":
        return Gate("parity", name, "failed", "passed in the baseline and fails now; the export tells why")
    return not_run(
        "parity", name, "passed in the baseline and was not made now" if verdict is None else "passed in the baseline and did not run now"
    )
