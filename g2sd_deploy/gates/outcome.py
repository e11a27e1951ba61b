"""What a gate answers."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["accuracy", "robustness", "ece", "latency", "size", "parameters", "parity", "loss", "limit"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Verdict = Literal["passed", "failed", "not_run"]


@dataclass(frozen=True)
class Gate:
    """One gate and its verdict.

    Attributes:
        kind: What it is about.
        subject: Of which model, set or row; unique among the gates of its kind.
        verdict: `not_run` where there is nothing to compare, or nothing that compares.
        reason: The numbers that led to the verdict, or why there are none; a clause without a full stop.
        figures: The same numbers for programs; accuracies, ECE and ratios as shares, the rest with its unit in the name.
        caveat: Why a passed gate is no proof: it asks for more certainty than the sample gives. Empty where it does not.
    """

    kind: Kind
    subject: str
    verdict: Verdict
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    caveat: str = ""

    @property
    def name(self) -> str:
        """Unique name, the same from check to check."""
        return f"{self.kind} {self.subject}".strip()

    @property
    def told(self) -> str:
        """Reason and caveat."""
        return f"{self.reason}; {self.caveat}" if self.caveat else self.reason


def not_run(kind: Kind, subject: str, reason: str) -> Gate:
    """A gate that had nothing to judge."""
    return Gate(kind, subject, "not_run", reason)


def percent(share: float) -> str:
    """A share for people, to the hundredth of a percentage point."""
    return f"{100 * share:.2f} %"


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * share:.2f}"


def p_text(p: float) -> str:
    """A p value for people."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
