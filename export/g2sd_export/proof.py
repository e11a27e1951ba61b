"""Is what ships still the model that was trained? Each step of the export is asked on the same real images; what cannot be answered fails.

A chain of links, for example torch, ONNX, ONNX for bytes, INT8: every link is judged against the link before it, so that a fault is
named where it arises, and the last against the first, so that tolerated differences cannot add up unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Int64, UInt8

from .answers import Answers, Count, Tick, answers_of, digest_of
from .class_order import misnumbered
from .edge.agreement import Agreement, ParityTolerance, Verdict, judge
from .edge.runner import Runner
from .paired import PairedDrop, paired_drop

__all__ = ["Hop", "HopResult", "Link", "ParityTolerance", "Proof", "Whole", "compare", "judged_in_turn", "prove", "refuse_bad_chain"]

BATCH = 8
"""Images per call: on a CPU more of them leave the caches (docs/decisions.md)."""

Score = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], float]
"""From logits [N, num_classes] and true classes [N] to a number, such as the calibration error."""


@runtime_checkable
class Hop(Protocol):
    """How one form of a model stands for another, whatever its task: the link, what it is judged against, the verdict and its reason."""

    @property
    def name(self) -> str: ...
    @property
    def after(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def reason(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...


HopT = TypeVar("HopT", bound=Hop)
AnswersT = TypeVar("AnswersT")


@dataclass(frozen=True)
class Link:
    """One form of the model.

    Attributes:
        name: What it is called in the results; no two of a chain alike.
        runner: What runs it, or what it already answered for these images; None where it cannot be run here.
        tolerance: How far it may differ from the link before, as the task of the model has it; of no meaning for the first.
        why_not: Why there is no runner.
    """

    name: str
    runner: Any
    tolerance: Any = field(default_factory=ParityTolerance)
    why_not: str = ""


@dataclass(frozen=True)
class Whole:
    """What is asked of the last link against the first.

    Attributes:
        tolerance: How far it may differ; None takes the last link's own.
        max_drop: Accuracy that it may lose on these images, as a share (0.003 is 0.3 points); None does not ask.
        top1: Low and high between which the first link's accuracy must lie, as another program measured it; None does not ask.
    """

    tolerance: ParityTolerance | None = None
    max_drop: float | None = None
    top1: tuple[float, float] | None = None


@dataclass(frozen=True)
class HopResult:
    """How one form of the model stands for another.

    Attributes:
        name: The link that is judged.
        after: The link that it is judged against.
        verdict: "passed", "failed" or "not_run".
        reason: Why it did not pass, with the numbers; empty when passed.
        num_images: Images that both were asked about.
        agreement: How the logits compare; None where they could not be compared.
        top1_reference: Accuracy of the reference, in [0, 1]; None where the logits could not be compared.
        top1_candidate: Accuracy of the candidate, likewise.
        drop: The accuracies compared image by image; None likewise.
        ece_reference: Calibration error of the reference; None likewise, and where none was asked for.
        ece_candidate: Calibration error of the candidate, likewise.
        tolerance: What was tolerated.
        reference: Runtime and version of the reference; empty where it did not run.
        candidate: Runtime, version and provider of the candidate, likewise.
    """

    name: str
    after: str
    verdict: Verdict
    reason: str
    num_images: int
    tolerance: ParityTolerance
    agreement: Agreement | None = None
    top1_reference: float | None = None
    top1_candidate: float | None = None
    drop: PairedDrop | None = None
    ece_reference: float | None = None
    ece_candidate: float | None = None
    reference: str = ""
    candidate: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, flat but for ``drop`` and ``tolerance``; a number that could not be computed is None."""
        numbers = ("flipped", "flipped_share", "max_abs_logit_diff", "mean_abs_logit_diff", "min_cosine", "mean_kl")
        return {
            "name": self.name,
            "after": self.after,
            "verdict": self.verdict,
            "reason": self.reason,
            "num_images": self.num_images,
            **{key: getattr(self.agreement, key, None) for key in numbers},
            "top1_reference": self.top1_reference,
            "top1_candidate": self.top1_candidate,
            "drop": self.drop.to_dict() if self.drop else None,
            "ece_reference": self.ece_reference,
            "ece_candidate": self.ece_candidate,
            "tolerance": self.tolerance.to_dict(),
            "reference": self.reference,
            "candidate": self.candidate,
        }


@dataclass(frozen=True)
class Proof(Generic[HopT, AnswersT]):
    """What became of a chain.

    Attributes:
        hops: Each link but the first, judged against the last link before it that ran.
        whole: The last link, judged against the first.
        answers: Of every link that ran, by its name: may stand for a runner in another chain over the same images.
    """

    hops: tuple[HopT, ...]
    whole: HopT
    answers: dict[str, AnswersT]

    @property
    def verdict(self) -> Verdict:
        """ "failed" if any hop or the whole failed; else that of the whole, which is "not_run" where the last link did not run."""
        return "failed" if any(result.verdict == "failed" for result in (*self.hops, self.whole)) else self.whole.verdict

    @property
    def reason(self) -> str:
        """Why the verdict is not "passed": each failed hop by its names, then the whole; empty when passed."""
        results = [result for result in (*self.hops, self.whole) if result.verdict == self.verdict]
        told = dict.fromkeys(f"{result.name} against {result.after}: {result.reason}" for result in results)
        words = [each for each in told if not any(other.startswith(f"{each};") for other in told)]  # of two links the hop is in the whole
        return "" if self.verdict == "passed" else "; ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the answers."""
        hops = [hop.to_dict() for hop in self.hops]
        return {"verdict": self.verdict, "reason": self.reason, "hops": hops, "whole": self.whole.to_dict()}


def prove(
    links: Sequence[Link],
    images: UInt8[np.ndarray, "num height width channels"],
    labels: Int64[np.ndarray, " labels"],
    *,
    whole: Whole = Whole(),
    batch_size: int = BATCH,
    tick: Tick | None = None,
    ece: Score | None = None,
) -> Proof[HopResult, Answers]:
    """Run every link once over the images and judge it against the one before, and the last against the first.

    Each runner prepares the images itself, so a wrong mean or standard deviation is caught too. A link that fails does not end
    the chain; one without a runner is left out of it and keeps its reason.

    Args:
        links: In the order of their making, the model that was evaluated first; at least two.
        images: Real images of the size that all want.
        labels: Their true classes. Out of range, or in another order than the model's, they fail the whole.
        whole: What is asked of the last link against the first.
        batch_size: Images per call; the last batch may be smaller, which exercises the free batch size.
        tick: Told the calls that are done, and all of the chain, from 0 on.
        ece: Computes the calibration error of both.

    Returns:
        All results: "failed" for NaN or infinite logits, missing answers, unequal shapes, a runner that gave up and differences
        above the tolerance; "not_run" for an empty set and a link without a runner.

    Raises:
        ValueError: Fewer than two links, two of one name, a first one that cannot run, no reason for a missing runner, answers to
            other images, as many labels as images not given, or ``batch_size`` below 1.
    """
    refuse_bad_chain(links)
    _refuse_bad_input(images, labels, batch_size)
    answers = _ask(links, images, batch_size, tick)
    hops = judged_in_turn(links, answers, lambda link, after: _judge_link(link, after, answers, labels, ece))
    return Proof(hops, _judge_whole(links, whole, answers, labels, ece), answers)


def judged_in_turn(links: Sequence[Link], answers: Mapping[str, object], judge: Callable[[Link, str], HopT]) -> tuple[HopT, ...]:
    """Each link of a chain but the first, judged against the last one before it that has answers.

    Args:
        links: The chain.
        answers: Of the links that ran, by name; the first is among them.
        judge: From a link, and the name of what it is judged against, to a result.
    """
    last_run, hops = links[0].name, []
    for link in links[1:]:
        hops.append(judge(link, last_run))
        last_run = link.name if link.name in answers else last_run
    return tuple(hops)


def compare(
    reference: Runner,
    candidate: Runner,
    images: UInt8[np.ndarray, "num height width channels"],
    labels: Int64[np.ndarray, " labels"],
    *,
    tolerance: ParityTolerance,
    batch_size: int = BATCH,
    tick: Tick | None = None,
) -> HopResult:
    """A chain of two links: does the candidate stand for the reference? Arguments and errors as of ``prove``."""
    links = [Link("reference", reference), Link("candidate", candidate, tolerance)]
    return prove(links, images, labels, batch_size=batch_size, tick=tick).whole


def _refuse_bad_input(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], batch_size: int) -> None:
    if len(images) != len(labels) or batch_size < 1:
        raise ValueError(
            f"proof: {len(images)} images, {len(labels)} labels, batches of {batch_size}; wanted a label per image and batches of 1 up"
        )


def refuse_bad_chain(links: Sequence[Link]) -> None:
    """Raise ValueError unless there are two links or more of different names, the first with a runner and each with one or a reason."""
    names = [link.name for link in links]
    if len(links) < 2 or len(set(names)) < len(names) or links[0].runner is None:
        wanted = "two links or more, of different names, the first with a runner"
        raise ValueError(f"proof: a chain of {', '.join(names) or 'nothing'}; wanted {wanted}")
    for link in links:
        if link.runner is None and not link.why_not:
            raise ValueError(f"proof: {link.name} has neither a runner nor a reason why not")


def _ask(links: Sequence[Link], images: npt.NDArray[np.uint8], batch_size: int, tick: Tick | None) -> dict[str, Answers]:
    """Answers of every link that can run, in order."""
    digest = digest_of(images)
    runners = [link.runner for link in links if link.runner is not None and not isinstance(link.runner, Answers)]
    count = Count(tick, len(runners) * -(-len(images) // batch_size))
    answers = {}
    for link in links:
        if isinstance(link.runner, Answers):
            if link.runner.images != digest:
                raise ValueError(f"proof: the answers of {link.name} belong to other images")
            answers[link.name] = link.runner
        elif link.runner is not None:
            answers[link.name] = answers_of(link.runner, images, digest, batch_size=batch_size, count=count)
    return answers


def _judge_link(link: Link, after: str, answers: dict[str, Answers], labels: npt.NDArray[np.int64], ece: Score | None) -> HopResult:
    if link.name in answers:
        return _judge(link.name, after, answers, link.tolerance, labels, ece)
    return HopResult(link.name, after, "not_run", link.why_not, 0, link.tolerance, reference=answers[after].runtime)


def _judge_whole(
    links: Sequence[Link], whole: Whole, answers: dict[str, Answers], labels: npt.NDArray[np.int64], ece: Score | None
) -> HopResult:
    first, last = links[0], links[-1]
    result = _judge_link(replace(last, tolerance=whole.tolerance or last.tolerance), first.name, answers, labels, ece)
    objections = [] if result.agreement is None else _objections(whole, result, answers[first.name], labels)
    if not objections:
        return result
    return replace(result, verdict="failed", reason="; ".join([*filter(None, [result.reason]), *objections]))


def _judge(
    name: str, after: str, answers: dict[str, Answers], tolerance: ParityTolerance, labels: npt.NDArray[np.int64], ece: Score | None
) -> HopResult:
    left, right = answers[after], answers[name]
    hop = HopResult(name, after, "failed", "", len(labels), tolerance, reference=left.runtime, candidate=right.runtime)
    for who, side in (("reference", left), ("candidate", right)):
        if side.problem:
            return replace(hop, reason=f"the {who} {side.problem}")
    if not len(labels):
        return replace(hop, verdict="not_run", reason="there are no images to compare")
    verdict, reason, agreement = judge(left.logits, right.logits, tolerance)
    hop = replace(hop, verdict=verdict, reason=reason, agreement=agreement)
    if agreement is None:
        return hop
    before, after_ = (side.logits.argmax(axis=1) == labels for side in (left, right))
    return replace(
        hop,
        top1_reference=float(before.mean()),
        top1_candidate=float(after_.mean()),
        drop=paired_drop(before, after_),
        ece_reference=ece(left.logits, labels) if ece else None,
        ece_candidate=ece(right.logits, labels) if ece else None,
    )


def _objections(whole: Whole, result: HopResult, first: Answers, labels: npt.NDArray[np.int64]) -> list[str]:
    """What speaks against the whole though the logits may agree."""
    assert result.drop is not None and result.top1_reference is not None
    objections = []
    num_classes = first.logits.shape[1]
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        place = outside[0]
        objections.append(f"label {labels[place]} of image {place} is no class of 0 to {num_classes - 1}; do the labels count from 1?")
    if wrong := misnumbered(first.logits.argmax(axis=1), labels):
        objections.append(wrong)
    if whole.top1 is not None and not whole.top1[0] <= result.top1_reference <= whole.top1[1]:
        wanted = f"between {whole.top1[0]:.3%} and {whole.top1[1]:.3%}, as it was evaluated"
        objections.append(f"{result.after} has a top-1 of {result.top1_reference:.3%}; wanted {wanted}")
    if whole.max_drop is not None and result.drop.drop > whole.max_drop:
        objections.append(f"{_in_points(result.drop)}, tolerated {100 * whole.max_drop:.3g}")
    return objections


def _in_points(drop: PairedDrop) -> str:
    low, high = (100 * limit for limit in drop.interval)
    return f"{100 * drop.drop:.3g} points of top-1 are lost (95 % interval {low:.3g} to {high:.3g}, p {drop.p_value:.2g})"
