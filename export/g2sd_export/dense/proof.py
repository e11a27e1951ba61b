"""Is the segmenter or detector that ships still the one that was trained?

The same chain as a classifier's, judged by pixels or boxes and by the metrics of the task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..answers import Count, Tick
from ..edge.agreement import Verdict
from ..edge.dense.agreement import DenseAgreement, judge_dense
from ..edge.dense.tolerance import DenseTolerance
from ..proof import Link, Proof, judged_in_turn, refuse_bad_chain
from .questions import BATCH, DenseAnswers, Questions, answers_to, calls_of

Scores = Mapping[str, float | None]
"""Metrics in [0, 1] by name, as ``miou``, ``ap`` and ``mask_ap``; None where one is undefined."""
Metric = Callable[[Iterable[Any]], Scores]
"""From what was found in each image, in order (a map of classes, or ``Detections``), to the metrics of the task."""

_POINTS = 100
_NUMBERS = {
    "changed_share": "changed_share",
    "worst_changed_share": "changed_share_of_image",
    "unmatched_share": "unmatched_share",
    "max_score_diff": "max_score_diff",
    "max_box_shift_px": "max_box_shift_px",
    "mask_changed_share": "changed_mask_share",
}


class Scorer:
    """Metrics of answers, each computed once however many chains it is part of.

    Args:
        metric: Scores what was found in the images.
        questions: The images.
    """

    def __init__(self, metric: Metric, questions: Questions) -> None:
        self._metric, self._questions = metric, questions
        self._known: list[tuple[DenseAnswers, Scores]] = []

    def __call__(self, answers: DenseAnswers) -> Scores:
        """Metrics of answers to these questions."""
        for one, scores in self._known:
            if one is answers:
                return scores
        scores = dict(self._metric(answers.results(self._questions)))
        self._known.append((answers, scores))
        return scores


@dataclass(frozen=True)
class DenseHop:
    """How one form of the model stands for another.

    Attributes:
        name: The link that is judged.
        after: The link that it is judged against.
        verdict: "passed", "failed" or "not_run".
        reason: Why it did not pass, with the numbers; empty when passed.
        num_images: Images that both were asked about.
        tolerance: What was tolerated; None for a link that did not run.
        agreement: How the answers compare; None where they could not be compared.
        scores_reference: Metrics of the reference, by name; empty where the answers could not be compared.
        scores_candidate: Of the candidate, likewise.
        reference: Runtime and version of the reference; empty where it did not run.
        candidate: Runtime, version and provider of the candidate, likewise.
    """

    name: str
    after: str
    verdict: Verdict
    reason: str
    num_images: int
    tolerance: DenseTolerance
    agreement: DenseAgreement | None = None
    scores_reference: Scores = field(default_factory=dict)
    scores_candidate: Scores = field(default_factory=dict)
    reference: str = ""
    candidate: str = ""

    @property
    def drops(self) -> dict[str, float]:
        """Points that the candidate lost, by metric; of those that both have."""
        pairs = {key: (value, self.scores_candidate.get(key)) for key, value in self.scores_reference.items()}
        return {key: _POINTS * (one - other) for key, (one, other) in pairs.items() if one is not None and other is not None}

    @property
    def figures(self) -> dict[str, float | None]:
        """Shares, differences and metrics by their names in results; what the task does not have is left out."""
        shares = {name: getattr(self.agreement, key) for name, key in _NUMBERS.items() if hasattr(self.agreement, key)}
        before = {f"{key}_reference": value for key, value in self.scores_reference.items()}
        after = {f"{key}_candidate": value for key, value in self.scores_candidate.items()}
        return {**shares, **before, **after}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, flat but for ``tolerance``."""
        return {
            "name": self.name,
            "after": self.after,
            "verdict": self.verdict,
            "reason": self.reason,
            "num_images": self.num_images,
            **self.figures,
            "tolerance": self.tolerance.to_dict(),
            "reference": self.reference,
            "candidate": self.candidate,
        }


@dataclass(frozen=True)
class DenseWhole:
    """What is asked of the last link against the first.

    Attributes:
        tolerance: How far its answers may differ.
        max_drop_points: Points of any metric that it may lose; None does not ask.
    """

    tolerance: DenseTolerance
    max_drop_points: float | None = None


def prove_dense(
    links: Sequence[Link],
    questions: Questions,
    score: Scorer,
    whole: DenseWhole,
    *,
    batch_size: int = BATCH,
    tick: Tick | None = None,
) -> Proof[DenseHop, DenseAnswers]:
    """Run every link once over the images and judge it against the one before, and the last against the first.

    Args:
        links: In the order of their making, the model that was evaluated first; at least two. What runs is a network (``name``,
            ``version``, ``infer``) or the ``DenseAnswers`` that one gave.
        questions: Real images, cut as the task says.
        score: Scores the answers to these questions.
        whole: What is asked of the last link against the first.
        batch_size: Square inputs per call; the last batch may be smaller, which exercises the free batch size.
        tick: Told the calls that are done, and all of the chain.

    Returns:
        All results: "failed" for answers that are NaN, missing or of another shape, a network that gave up and differences above the
        tolerance; "not_run" for a link without a runner and where there are no images.

    Raises:
        ValueError: Fewer than two links, two of one name, a first one that cannot run, no reason for a missing runner, answers to
            other images.
    """
    refuse_bad_chain(links)
    judge = _Judge(_ask(links, questions, batch_size, tick), questions, score)
    hops = judged_in_turn(links, judge.answers, judge.link)
    return Proof(hops, judge.whole(links, whole), judge.answers)


def _ask(links: Sequence[Link], questions: Questions, batch_size: int, tick: Tick | None) -> dict[str, DenseAnswers]:
    runners = [link.runner for link in links if link.runner is not None and not isinstance(link.runner, DenseAnswers)]
    count = Count(tick, len(runners) * calls_of(questions, batch_size))
    answers = {}
    for link in links:
        if isinstance(link.runner, DenseAnswers):
            if link.runner.images != questions.digest:
                raise ValueError(f"proof: the answers of {link.name} belong to other images")
            answers[link.name] = link.runner
        elif link.runner is not None:
            answers[link.name] = answers_to(link.runner, questions, batch_size=batch_size, count=count)
    return answers


@dataclass(frozen=True)
class _Judge:
    answers: dict[str, DenseAnswers]
    questions: Questions
    score: Scorer

    def link(self, link: Link, after: str) -> DenseHop:
        if link.name not in self.answers:
            return DenseHop(link.name, after, "not_run", link.why_not, 0, link.tolerance, reference=self.answers[after].runtime)
        left, right = self.answers[after], self.answers[link.name]
        num = len(self.questions.placements)
        hop = DenseHop(link.name, after, "failed", "", num, link.tolerance, reference=left.runtime, candidate=right.runtime)
        if not num:
            return replace(hop, verdict="not_run", reason="there are no images to compare")
        for who, side in (("reference", left), ("candidate", right)):
            if side.problem:
                return replace(hop, reason=f"the {who} {side.problem}")
        verdict, reason, agreement = judge_dense(left.answer, right.answer, self.questions.task, link.tolerance)
        hop = replace(hop, verdict=verdict, reason=reason, agreement=agreement)
        if agreement is None:
            return hop
        return replace(hop, scores_reference=self.score(left), scores_candidate=self.score(right))

    def whole(self, links: Sequence[Link], whole: DenseWhole) -> DenseHop:
        result = self.link(replace(links[-1], tolerance=whole.tolerance), links[0].name)
        if whole.max_drop_points is None:
            return result
        lost = {key: points for key, points in result.drops.items() if points > whole.max_drop_points}
        objections = [f"{points:.3g} points of {key} are lost, tolerated {whole.max_drop_points:.3g}" for key, points in lost.items()]
        if not objections:
            return result
        return replace(result, verdict="failed", reason="; ".join([*filter(None, [result.reason]), *objections]))
