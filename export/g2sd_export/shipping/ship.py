"""Every way of running a model that a target lists: made, proven, timed; one of them is chosen."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..answers import Answers
from ..edge.agreement import ParityTolerance, Verdict
from ..edge.errors import UserError
from ..edge.manifest import Precision
from ..edge.onnx_runner import OnnxRunner
from ..edge.runner import Runner
from ..proof import HopResult, Link, Proof, Score, Whole, prove
from ..targets import Candidate, Target
from .choice import Outcome, choose
from .exam import Exam
from .material import Material
from .race import RaceSettings, race
from .runtimes import open_candidate, settings_of, why_not
from .workshop import ModelFile, Workshop

Tick = Callable[[int, int, str], None]

_POINTS = 100
_TORCH, _FLOAT, _PIXELS = "torch", "onnx", "uint8 onnx"


@dataclass(frozen=True)
class Way:
    """One candidate and all that is known of it.

    Attributes:
        outcome: Verdict, figures and whether it ships.
        file: What it runs; None where it could not be made.
        proof: Every hop from the torch model on; None where there is no file.
        runner: Open and ready; None where it did not run.
        latency: As ``race`` gives it; None where it was not timed.
        settings: Of its runtime.
    """

    outcome: Outcome
    file: ModelFile | None
    proof: Proof[Any, Any] | None
    runner: Any
    settings: dict[str, Any]
    latency: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """That of the candidate."""
        return self.outcome.name


@dataclass(frozen=True)
class Shipment:
    """What the target gets.

    Attributes:
        ways: Every candidate, in the target's order.
        verdict: "passed" where a proven candidate ships, "not_run" where none failed and none could run here, else "failed".
        reason: Why it is not "passed".
        base: The proof of the float file and of the file that takes pixels.
        notes: How the files were made: quantisers that were tried, layers that stayed in float.
        remarks: Why they were made so, with what was timed.
    """

    ways: tuple[Way, ...]
    verdict: Verdict
    reason: str
    base: Proof[Any, Any]
    notes: dict[str, Any]
    remarks: dict[str, str]

    @property
    def default(self) -> Way:
        """The way that ships, or where none passed, the one that comes first among those that have a file.

        Raises:
            UserError: No candidate has a file.
        """
        chosen = next((way for way in self.ways if way.outcome.chosen), None)
        made = [way for way in self.ways if way.file is not None]
        first = chosen or next((way for way in made if way.outcome.verdict != "failed"), made[0] if made else None)
        if first is None:
            raise UserError(f"none of the target's candidates could be made: {self.reason}")
        return first

    def shipped(self, ship: str) -> list[Way]:
        """The ways whose files go into the bundle: the default first, then every other one that passed or could not run here."""
        others = [way for way in self.ways if way is not self.default and way.file is not None and way.outcome.verdict != "failed"]
        return [self.default, *(others if ship == "passed" else [])]


def ship(
    material: Material,
    target: Target,
    reference: Runner | Answers,
    *,
    folder: Path,
    tick: Tick | None = None,
    ece: Score | None = None,
    race_settings: RaceSettings | None = None,
) -> Shipment:
    """Make, prove and time every candidate of a target.

    Args:
        material: The classifier's float file and the images.
        target: What the device needs.
        reference: The torch model, or its answers to the material's images.
        folder: Where model files are written, as ``models/NAME``.
        tick: Told (done, total, note).
        ece: Calibration error, for the proof.
        race_settings: How long the candidates are timed; None takes the defaults.

    Returns:
        What there is to ship; look at its verdict.

    Raises:
        UserError: A file cannot be made from this model at all, or INT8 is asked for and there are no training images.
    """
    timing = replace(race_settings or RaceSettings(), batch=target.batch.best)
    workshop = Workshop(material, target, folder, tick or _untold, timing)
    return ship_from(workshop, _LogitsExam(material, target, ece), reference)


def ship_from(workshop: Workshop, exam: Exam, reference: Any) -> Shipment:
    """Prove and time every candidate of a workshop's target, whatever the task of the model.

    Args:
        workshop: Makes the files.
        exam: What every file is asked, and who judges.
        reference: The torch model, or its answers to the questions.

    Returns:
        What there is to ship; look at its verdict.
    """
    target, told = workshop.target, workshop.told
    told(0, 1, "proving the float file")
    base = _prove_base(workshop, exam, reference)
    prover = _Prover(target, workshop, exam, base, told, dict(base.answers))
    ways = [prover.way(candidate) for candidate in target.candidates]
    ways = _timed(ways, target, workshop.race_settings, told)
    if doubts := list(dict.fromkeys(reason for way in ways for reason in (way.latency or {}).get("reasons", ()))):
        workshop.remarks["latency"] = f"the latencies are an indication only: {'; '.join(doubts)}"
    outcomes = choose([way.outcome for way in ways])
    ways = [replace(way, outcome=outcome) for way, outcome in zip(ways, outcomes, strict=True)]
    verdict, reason = _verdict(ways, base)
    return Shipment(tuple(ways), verdict, reason, base, workshop.notes, workshop.remarks)


def _untold(done: int, total: int, note: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class _LogitsExam:
    """Real images with labels, answered by logits."""

    material: Material
    target: Target
    ece: Score | None

    @property
    def no_figures(self) -> Mapping[str, Any]:
        return {}

    def refusal(self, candidate: Candidate) -> str:
        return ""

    def tolerance(self, precision: Precision) -> ParityTolerance:
        return self.target.tolerance[precision].parity()

    def on_cpu(self, path: Path) -> Runner:
        return OnnxRunner(path, self.material.preprocessing, threads=self.target.threads)

    def opened(self, candidate: Candidate, path: Path) -> Runner:
        return open_candidate(candidate, path, self.material.preprocessing, threads=self.target.threads)

    def prove(
        self, chain: Sequence[Link], precision: Precision, *, budget: bool, tick: Callable[[int, int], None]
    ) -> Proof[HopResult, Answers]:
        whole = Whole(self.tolerance(precision), max_drop=self.target.accuracy_budget_points / _POINTS if budget else None)
        return prove(chain, self.material.images, self.material.labels, whole=whole, tick=tick, ece=self.ece)

    def outcome(self, candidate: Candidate, file: ModelFile, proof: Proof[HopResult, Answers]) -> Outcome:
        whole = proof.whole
        return Outcome(
            candidate,
            proof.verdict,
            proof.reason,
            top1=whole.top1_candidate,
            drop_points=None if whole.drop is None else _POINTS * whole.drop.drop,
            flipped=None if whole.agreement is None else whole.agreement.flipped,
            file_bytes=file.num_bytes,
        )


def _prove_base(workshop: Workshop, exam: Exam, reference: Any) -> Proof[Any, Any]:
    """Torch, the float ONNX file, and the file that takes pixels: what every candidate is made from."""
    tolerance = exam.tolerance("fp32")
    links = [
        Link(_TORCH, reference),
        Link(_FLOAT, exam.on_cpu(workshop.material.float_onnx), tolerance),
        Link(_PIXELS, exam.on_cpu(workshop.pixels), tolerance),
    ]
    return exam.prove(links, "fp32", budget=False, tick=_noted(workshop.told, "proving the float file"))


@dataclass(frozen=True)
class _Prover:
    """Proves candidates of one target; what a link answered is kept for the next chain that has it.

    Attributes:
        target: Its candidates.
        workshop: Makes the files.
        exam: Asks and judges.
        base: The proof of what every candidate is made from.
        told: Told (done, total, note).
        known: Answers so far, by the name of the link.
    """

    target: Target
    workshop: Workshop
    exam: Exam
    base: Proof[Any, Any]
    told: Tick
    known: dict[str, Any]

    def way(self, candidate: Candidate) -> Way:
        """Make and prove a candidate."""
        self.told(0, 1, f"making {candidate.name}")
        settings, unasked = settings_of(candidate), self.exam.no_figures
        if refusal := self.exam.refusal(candidate):
            return Way(Outcome(candidate, "not_run", refusal, figures=unasked), None, None, None, settings)
        try:
            file = self.workshop.make(candidate)
        except UserError as error:
            return Way(Outcome(candidate, "failed", f"it could not be made: {error}", figures=unasked), None, None, None, settings)
        settings |= file.settings
        if self.base.verdict == "failed":
            return Way(
                Outcome(candidate, "failed", self.base.reason, file_bytes=file.num_bytes, figures=unasked), file, self.base, None, settings
            )
        runner, absent, broken = self._opened(candidate, file)
        if broken:
            proof = self._proven(candidate, self._links(candidate, file, None, broken))
            return Way(Outcome(candidate, "failed", broken, file_bytes=file.num_bytes, figures=unasked), file, proof, None, settings)
        links = self._links(candidate, file, runner, absent)
        if runner is not None:
            proof = self._proven(candidate, links)
            return Way(self.exam.outcome(candidate, file, proof), file, proof, runner, settings)
        graph = self._proven(candidate, links[:-1])  # as far as this machine can go, and judged as what ships would be
        proof = self._proven(candidate, [replace(link, runner=self.known.get(link.name, link.runner)) for link in links])
        outcome = self.exam.outcome(candidate, file, graph)
        if outcome.verdict == "passed":
            outcome = replace(outcome, verdict="not_run", reason=f"{absent}; its graph passed on ONNX Runtime's CPU")
        return Way(outcome, file, proof, runner, settings)

    def _opened(self, candidate: Candidate, file: ModelFile) -> tuple[Any, str, str]:
        """A runner, why there is none here, or why the runtime refuses the file."""
        if reason := why_not(candidate) or file.why_not:
            return None, reason, ""
        try:
            return self.exam.opened(candidate, file.path), "", ""
        except UserError as error:
            return None, "", _without_folder(error, file.path)

    def _proven(self, candidate: Candidate, chain: Sequence[Link]) -> Proof[Any, Any]:
        proof = self.exam.prove(chain, candidate.precision, budget=True, tick=_noted(self.told, f"proving {candidate.name}"))
        self.known.update(proof.answers)
        return proof

    def _links(self, candidate: Candidate, file: ModelFile, runner: Any, absent: str) -> list[Link]:
        """The chain to a candidate: what is proven already, the file's graph on the CPU where a GPU will run it, the candidate itself."""
        fp32, own = self.exam.tolerance("fp32"), self.exam.tolerance(candidate.precision)
        links = [Link(_TORCH, self.known[_TORCH]), Link(_FLOAT, self.known[_FLOAT], fp32)]
        if (candidate.runtime, candidate.precision, candidate.on_gpu) == ("onnxruntime", "fp32", False):
            return [*links, Link(candidate.name, self.known[_PIXELS], own)]  # it is this link that was asked already
        links.append(Link(_PIXELS, self.known[_PIXELS], fp32))
        if candidate.on_gpu and candidate.precision != "fp32":
            links.append(self._on_cpu(candidate, file))
        return [*links, Link(candidate.name, runner, own, absent)]

    def _on_cpu(self, candidate: Candidate, file: ModelFile) -> Link:
        """The graph that a GPU will run, on ONNX Runtime's CPU, so that a fault of the graph is found without a GPU."""
        name, own = f"{candidate.precision} onnx", self.exam.tolerance(candidate.precision)
        if name in self.known:
            return Link(name, self.known[name], own)
        graph = file.graph or file.path
        try:
            return Link(name, self.exam.on_cpu(graph), own)
        except UserError as error:
            if candidate.precision != "fp8":
                raise
            return Link(name, None, own, f"ONNX Runtime's CPU has no FP8 ({_without_folder(error, graph)})")


def _without_folder(error: UserError, path: Path) -> str:
    """What a runtime said of a file, for a bundle that others read and that is the same at every export."""
    return str(error).replace(str(path), path.name)


def _timed(ways: Sequence[Way], target: Target, settings: RaceSettings, told: Tick) -> list[Way]:
    """Race those that passed, where this machine is of the target's kind."""
    if target.machine not in ("any", platform.machine()):
        return list(ways)
    runners = {way.name: way.runner for way in ways if way.runner is not None and way.outcome.verdict == "passed"}
    found = race(runners, settings, tick=_noted(told, "timing")) if runners else {}
    return [_with_latency(way, found[way.name], target.threads) if way.name in found else way for way in ways]


def _with_latency(way: Way, latency: dict[str, Any], threads: int) -> Way:
    return replace(way, latency={**latency, "threads": threads}, outcome=replace(way.outcome, p50_ms=float(latency["p50_ms"])))


def _verdict(ways: Sequence[Way], base: Proof[Any, Any]) -> tuple[Verdict, str]:
    if any(way.outcome.chosen for way in ways):
        return "passed", ""
    if base.verdict != "passed":
        return base.verdict, base.reason
    names: dict[str, list[str]] = {}
    for way in ways:
        names.setdefault(way.outcome.reason, []).append(way.name)
    missing = any(way.outcome.verdict == "not_run" for way in ways)
    return ("not_run" if missing else "failed"), "; ".join(f"{', '.join(those)}: {reason}" for reason, those in names.items())


def _noted(told: Tick, note: str) -> Callable[[int, int], None]:
    return lambda done, total: told(done, total, note)
