"""What every form of a model is asked, and who judges the answers: the part of shipping that depends on the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..edge.manifest import Precision
from ..proof import Link, Proof
from ..targets import Candidate
from .choice import Outcome
from .workshop import ModelFile


@runtime_checkable
class Exam(Protocol):
    """The questions to a model and its judge: logits of images for a classifier, maps or boxes for others."""

    @property
    def no_figures(self) -> Mapping[str, Any]:
        """``Outcome.figures`` of a candidate that was not asked."""
        ...

    def refusal(self, candidate: Candidate) -> str:
        """Why models of this task have no such candidate; empty where they may."""
        ...

    def tolerance(self, precision: Precision) -> Any:
        """How far a link of this number format may be from the one before it."""
        ...

    def on_cpu(self, path: Path) -> Any:
        """What runs a graph, float or not, on ONNX Runtime's CPU; a UserError where it does not load."""
        ...

    def opened(self, candidate: Candidate, path: Path) -> Any:
        """What runs a candidate's file on its own runtime; a UserError where that refuses the file."""
        ...

    def prove(self, chain: Sequence[Link], precision: Precision, *, budget: bool, tick: Callable[[int, int], None]) -> Proof[Any, Any]:
        """Ask and judge a chain.

        Args:
            chain: Its first link is the model that was trained.
            precision: Of the last link, as which the whole is judged.
            budget: Whether the last link is also asked for what the task is about: accuracy, overlap, precision.
            tick: Told the calls that are done, and all.
        """
        ...

    def outcome(self, candidate: Candidate, file: ModelFile, proof: Proof[Any, Any]) -> Outcome:
        """What a proof says of a candidate."""
        ...
