"""One thing that was found in a data set, how bad it is, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

Severity = Literal["error", "warning", "note"]
Problems = Mapping[str, tuple[Severity, str]]
"""Problem -> how bad it is, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be, or that is worth knowing.

    Attributes:
        problem: What it is, in a few words.
        name: Image, folder or shard, as the source names it.
        detail: What was found there; may be empty.
        severity: How bad it is.
        advice: What to do.
    """

    problem: str
    name: str
    detail: str
    severity: Severity
    advice: str


class Found(Protocol):
    """Makes a finding of a known problem."""

    def __call__(self, problem: str, name: str, detail: str = "") -> Finding: ...


def finder(problems: Problems) -> Found:
    """Makes findings of these problems."""
    return partial(_found, problems)


def _found(problems: Problems, problem: str, name: str, detail: str = "") -> Finding:
    return Finding(problem, name, detail, *problems[problem])
