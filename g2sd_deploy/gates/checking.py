"""All gates of a run, and whether the check as a whole passes."""

from collections import Counter
from dataclasses import dataclass

from g2sd_deploy.gates.accuracy import accuracy_gates
from g2sd_deploy.gates.calibration import ece_gates
from g2sd_deploy.gates.latency import latency_gates
from g2sd_deploy.gates.limits import limit_gates
from g2sd_deploy.gates.losses import loss_gates
from g2sd_deploy.gates.outcome import KINDS, Gate, Kind, not_run
from g2sd_deploy.gates.parity import parity_gates
from g2sd_deploy.gates.robustness import robustness_gates
from g2sd_deploy.gates.settings import GateSettings
from g2sd_deploy.gates.sizes import parameters_gate, size_gate
from g2sd_deploy.gates.snapshot import Model, Snapshot
from g2sd_deploy.gates.task_scores import task_gates


@dataclass(frozen=True)
class Checked:
    """A finished check.

    Attributes:
        gates: All of them, by kind.
        required: Kinds of gates whose `not_run` fails the check.
    """

    gates: tuple[Gate, ...]
    required: frozenset[Kind]

    def fails(self, gate: Gate) -> bool:
        """Whether a gate fails the check."""
        return gate.verdict == "failed" or (gate.verdict == "not_run" and gate.kind in self.required)

    @property
    def failure(self) -> str:
        """Why the check fails, in one line; empty where it passes."""
        failed = [gate for gate in self.gates if self.fails(gate)]
        if failed:
            names = ", ".join(gate.name for gate in failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
            return f"{len(failed)} of {len(self.gates)} gates failed: {names}"
        if all(gate.verdict == "not_run" for gate in self.gates):
            return "no gate could be judged, so nothing was checked"
        return ""

    @property
    def counts(self) -> str:
        """How many gates have which verdict."""
        found = Counter(gate.verdict for gate in self.gates)
        return f"{found['passed']} passed, {found['failed']} failed, {found['not_run']} not run"


def check(before: Snapshot, after: Snapshot, settings: GateSettings, *, strict: bool = False) -> Checked:
    """Hold a run against a baseline.

    Args:
        before: The baseline.
        after: The run.
        settings: Which gates there are, and what they tolerate.
        strict: Require a verdict of every gate but the optional ones.
    """
    gates = _ordered([*_of_models(before, after, settings), *_of_the_run(before, after, settings)])
    wanted = frozenset(KINDS) - set(settings.optional) if strict else frozenset(settings.required)
    switched_on = frozenset(kind for kind in wanted if kind == "limit" or getattr(settings, kind) is not None)
    present = {gate.kind for gate in gates}
    missing = [
        not_run(kind, "", f"neither the baseline nor the run has anything on {kind}") for kind in KINDS if kind in switched_on - present
    ]
    required = [gate for gate in missing if gate.kind in settings.required]
    return Checked(tuple(_ordered([*gates, *required])), switched_on)


def _ordered(gates: list[Gate]) -> list[Gate]:
    return sorted(gates, key=lambda gate: KINDS.index(gate.kind))


def _of_models(before: Snapshot, after: Snapshot, settings: GateSettings) -> list[Gate]:
    gates: list[Gate | None] = []
    for name in settings.models:
        known, found = before.models.get(name, Model()), after.models.get(name, Model())
        if settings.accuracy is not None:
            gates += accuracy_gates(name, before, after, settings.accuracy, settings.sureness)
            gates += task_gates(name, before, after, settings.accuracy, settings.sureness)
        if settings.robustness is not None:
            gates += robustness_gates(name, known, found, settings.robustness, settings.sureness)
        if settings.ece is not None:
            gates += ece_gates(name, known, found, settings.ece, settings.sureness)
        gates.append(size_gate(name, known, found, settings.size) if settings.size is not None else None)
        gates.append(parameters_gate(name, known, found, settings.parameters) if settings.parameters is not None else None)
    for name, limits in settings.limits.items():
        gates += limit_gates(name, after, limits)
    return [gate for gate in gates if gate is not None]


def _of_the_run(before: Snapshot, after: Snapshot, settings: GateSettings) -> list[Gate]:
    gates: list[Gate] = []
    if settings.latency is not None:
        gates += latency_gates(before, after, settings.latency, settings.sureness)
    if settings.parity is not None:
        gates += parity_gates(before, after, settings.parity)
    if settings.loss is not None:
        gates += loss_gates(before, after, settings.loss)
    return gates
