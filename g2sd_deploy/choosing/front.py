"""The front of accuracy against latency, and the pick under a budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from g2sd_deploy.choosing.latencies import Latency
from g2sd_deploy.choosing.points import Accuracy, Point, difference

_POINTS = 100


@dataclass(frozen=True)
class Candidate:
    """A point that may be chosen: it is proven and was timed."""

    point: Point
    accuracy: Accuracy
    latency: Latency

    @property
    def name(self) -> str:
        """That of the point."""
        return self.point.name


@dataclass(frozen=True)
class Budget:
    """What is asked for; None asks nothing.

    Attributes:
        max_latency_ms: Most median latency.
        min_top1: Least accuracy, a share in [0, 1].
    """

    max_latency_ms: float | None = None
    min_top1: float | None = None

    def told(self) -> str:
        """In words; empty where nothing is asked."""
        latency = "" if self.max_latency_ms is None else f"a median of at most {self.max_latency_ms:g} ms"
        top1 = "" if self.min_top1 is None else f"a top-1 of at least {self.min_top1:.2%}"
        return " and ".join(filter(None, (latency, top1)))

    def allows(self, one: Candidate) -> bool:
        """Whether a candidate keeps to it."""
        return self._fast_enough(one) and self._accurate_enough(one)

    def _fast_enough(self, one: Candidate) -> bool:
        return self.max_latency_ms is None or one.latency.p50_ms <= self.max_latency_ms

    def _accurate_enough(self, one: Candidate) -> bool:
        return self.min_top1 is None or one.accuracy.top1 >= self.min_top1

    def nearest(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Where nothing keeps to it: the fastest of those that are accurate enough, and the most accurate of those that are fast enough."""
        accurate = [one for one in candidates if self._accurate_enough(one)]
        fast = [one for one in candidates if self._fast_enough(one)]
        found = [min(accurate, key=lambda one: one.latency.p50_ms)] if accurate else []
        found += [max(fast, key=lambda one: one.accuracy.top1)] if fast else []
        if found:
            return found
        return [min(candidates, key=lambda one: one.latency.p50_ms), max(candidates, key=lambda one: one.accuracy.top1)]


@dataclass(frozen=True)
class Front:
    """What is worth choosing.

    Attributes:
        members: Most accurate first; each is measurably faster than all before it.
        beaten_by: Every other candidate's name, and the member that is at least as accurate and that it is not measurably faster than.
        tied: By name: candidates whose accuracy cannot be told apart from its own.
    """

    members: tuple[Candidate, ...]
    beaten_by: dict[str, Candidate]
    tied: dict[str, tuple[str, ...]]


def front_of(candidates: Sequence[Candidate]) -> Front:
    """Sort out what is beaten.

    A candidate is beaten by one of at least its accuracy when it is not faster by more than the two medians' intervals.
    """
    members: list[Candidate] = []
    beaten: dict[str, Candidate] = {}
    for one in sorted(candidates, key=_by_accuracy):
        if members and one.latency.high_ms >= members[-1].latency.low_ms:
            beaten[one.name] = next(member for member in members if one.latency.high_ms >= member.latency.low_ms)
        else:
            members.append(one)
    tied = {one.name: tuple(other.name for other in candidates if other is not one and is_tied(one, other)) for one in candidates}
    return Front(tuple(members), beaten, tied)


def is_tied(one: Candidate, other: Candidate) -> bool:
    """Whether the images do not tell their accuracies apart."""
    _, low, high = difference(one.accuracy, other.accuracy)
    return low <= 0 <= high


def pick(candidates: Sequence[Candidate], budget: Budget) -> tuple[Candidate, str] | None:
    """The candidate to take, and why; None where none keeps to the budget.

    With a limit on accuracy alone it is the fastest; else the fastest of those that are tied with the most accurate. Of several that are
    as fast within the intervals of their medians the most accurate is taken.
    """
    allowed = [one for one in candidates if budget.allows(one)]
    if not allowed:
        return None
    if budget.max_latency_ms is None and budget.min_top1 is not None:
        return _fastest(allowed), f"the fastest of {len(allowed)} with {budget.told()}"
    best = min(allowed, key=_by_accuracy)
    level = [one for one in allowed if one is best or is_tied(one, best)]
    chosen = _fastest(level)
    among = f" of {len(allowed)} with {budget.told()}" if budget.told() else f" of {len(allowed)}"
    if chosen is best:
        return best, f"the most accurate{among}"
    return chosen, f"the fastest whose accuracy is tied with that of the most accurate, {best.name} ({best.accuracy.top1:.2%}),{among}"


def _fastest(candidates: Sequence[Candidate]) -> Candidate:
    """Of those that are not measurably slower than the fastest, the most accurate."""
    least = min(candidates, key=lambda one: (one.latency.p50_ms, one.name))
    return min((one for one in candidates if one.latency.low_ms <= least.latency.high_ms), key=_by_accuracy)


def compared(one: Candidate, other: Candidate) -> str:
    """What choosing another instead would change."""
    gap, low, high = (_POINTS * value for value in difference(other.accuracy, one.accuracy))
    ratio = other.latency.p50_ms / one.latency.p50_ms
    tied = ", tied" if low <= 0 <= high else ""
    return (
        f"{other.latency.p50_ms:.3g} ms ({ratio:.2f} times the latency) and {gap:+.2f} points of top-1 "
        f"(95 % interval {low:+.2f} to {high:+.2f}{tied})"
    )


def _by_accuracy(one: Candidate) -> tuple[float, float, str]:
    return (-one.accuracy.top1, one.latency.p50_ms, one.name)
