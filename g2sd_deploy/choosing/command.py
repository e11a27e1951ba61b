"""`g2sd pareto`: gather what was exported and timed, find the front, and pick under a budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g2sd_deploy.choosing.front import Budget, Candidate, Front, compared, front_of, pick
from g2sd_deploy.choosing.latencies import Asked, Profile, Timed, as_profile, read_profile, timed
from g2sd_deploy.choosing.points import Found, Point, gather
from g2sd_deploy.errors import UserError

_HERE = "local"
"""What the store calls this machine."""


@dataclass(frozen=True)
class Request:
    """What a person asks.

    Attributes:
        runs: Folders of runs, of exports, or bundles.
        profiles: Files of `g2sd profile`.
        device: Take the latencies that were measured there; None does not.
        asked: Batch and threads.
        budget: What the pick has to keep to.
    """

    runs: tuple[Path, ...]
    profiles: tuple[Path, ...] = ()
    device: str | None = None
    asked: Asked = field(default_factory=Asked)
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Decision:
    """What came out.

    Attributes:
        candidates: Points that are proven and timed, in the order of their latency.
        front: Which of them are worth choosing.
        left_out: Name of every other point, and why.
        timed: Where the latencies come from.
        batch: Images of a call.
        pick: The one to take; None where none keeps to the budget.
        reason: Why that one, or what comes nearest.
        others: What choosing another would change, in sentences.
        merging: What became of every point that merges tokens, in sentences.
    """

    candidates: tuple[Candidate, ...]
    front: Front
    left_out: dict[str, str]
    timed: Timed
    batch: int
    pick: Candidate | None
    reason: str
    others: tuple[str, ...]
    merging: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        members = {one.name for one in self.front.members}
        return {
            "points": [_plain(one, self.front, members) for one in self.candidates],
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out.items()],
            "front": [one.name for one in self.front.members],
            "latency": {"source": self.timed.source, "batch": self.batch, "threads": self.timed.threads},
            "pick": self.pick.name if self.pick is not None else None,
            "reason": self.reason,
            "others": list(self.others),
            "token_merging": list(self.merging),
        }


def decide(request: Request, warn: Callable[[str], None]) -> Decision:
    """Find the front, and the pick.

    Args:
        request: What is asked.
        warn: Told each damaged line of a device's history.

    Raises:
        UserError: Something named is not there or damaged, or no point is both proven and timed.
    """
    found = gather(request.runs)
    known = timed(found, _profiles(request, found, warn), request.asked, advice=_advice(request))
    points = [point for one in found for point in one.points]
    left_out = {point.name: point.why_not for point in points if point.why_not} | dict(known.why_not)
    candidates = sorted((_candidate(point, known) for point in points if point.name in known.latencies), key=lambda one: one.latency.p50_ms)
    if not candidates:
        raise UserError(f"nothing can be compared: {'; '.join(grouped(left_out))}")
    front = front_of(candidates)
    chosen = pick(candidates, request.budget)
    taken = chosen[0] if chosen is not None else None
    return Decision(
        candidates=tuple(candidates),
        front=front,
        left_out=left_out,
        timed=known,
        batch=request.asked.batch,
        pick=taken,
        reason=chosen[1] if chosen is not None else _nothing_fits(candidates, request.budget),
        others=tuple(_others(taken, front, request.budget)) if taken is not None else (),
        merging=tuple(_merging(candidates, front, left_out, points)),
    )


def grouped(reasons: Mapping[str, str]) -> list[str]:
    """Names that share a reason, and the reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{', '.join(those)}: {reason}" for reason, those in names.items()]


def _candidate(point: Point, known: Timed) -> Candidate:
    assert point.accuracy is not None  # a point without is one that may not be chosen
    return Candidate(point, point.accuracy, known.latencies[point.name])


def _profiles(request: Request, found: Sequence[Found], warn: Callable[[str], None]) -> list[Profile]:
    if request.device is not None:
        if request.profiles:
            raise UserError("--device and --profile were both given; a device's results are in the store, a file's in the file: give one")
        return _of_device(request.device, warn)
    own = [as_profile(one.profile, f"the profile of {one.model}") for one in found if one.profile is not None]
    return [*own, *map(read_profile, request.profiles)]


def _of_device(name: str, warn: Callable[[str], None]) -> list[Profile]:
    from g2sd_deploy.devices import find_device, store

    known = name if name in store.names() else find_device(name).name
    return [as_profile(entry.profile, f"{known}, {entry.at}") for entry in store.results(known, warn)]


def _advice(request: Request) -> str:
    models = " ".join(map(str, request.runs))
    if request.device is None:
        return f"time it: g2sd profile {models} --out FILE.json, and give --profile FILE.json"
    return f"time it: g2sd profile {models}" + ("" if request.device == _HERE else f" --device {request.device}")


def _nothing_fits(candidates: Sequence[Candidate], budget: Budget) -> str:
    near = [f"{one.name} has {one.latency.p50_ms:.3g} ms and {one.accuracy.top1:.2%}" for one in dict.fromkeys(budget.nearest(candidates))]
    return f"nothing has {budget.told()}; nearest: {', '.join(near)}"


def _others(taken: Candidate, front: Front, budget: Budget) -> list[str]:
    """Its neighbours on the front: the next one that is faster, and the next one that is more accurate."""
    rest = [one for one in front.members if one is not taken]
    faster = [one for one in rest if one.latency.p50_ms < taken.latency.p50_ms]
    better = [one for one in rest if one.accuracy.top1 > taken.accuracy.top1]
    found = []
    for word, one in (
        ("next faster", max(faster, key=lambda each: each.latency.p50_ms, default=None)),
        ("next more accurate", min(better, key=lambda each: each.accuracy.top1, default=None)),
    ):
        if one is not None:
            over = "" if budget.allows(one) else "; it does not keep to the budget"
            found.append(f"{word}: {one.name} instead has {compared(taken, one)}{over}")
    return found


def _merging(candidates: Sequence[Candidate], front: Front, left_out: dict[str, str], points: Sequence[Point]) -> list[str]:
    """Of every point that merges tokens: is it kept or dropped, and what does it do to the same file without merging."""
    told = [f"token merging: {point.name} is left out: {left_out[point.name]}" for point in points if _is_left_out(point, left_out)]
    for one in candidates:
        if not one.point.merged_per_block:
            continue
        plain = next((other for other in candidates if _is_plain_of(other, one)), None)
        against = f"; against {plain.name} it has {compared(plain, one)}" if plain is not None else ""
        beaten = front.beaten_by.get(one.name)
        if beaten is None:
            told.append(f"token merging: {one.name} is kept, it is on the front{against}")
        else:
            told.append(
                f"token merging: {one.name} is DROPPED, {beaten.name} is at least as accurate ({beaten.accuracy.top1:.2%} and "
                f"{one.accuracy.top1:.2%}) and no slower ({beaten.latency.p50_ms:.3g} and {one.latency.p50_ms:.3g} ms){against}"
            )
    return told


def _is_left_out(point: Point, left_out: dict[str, str]) -> bool:
    return bool(point.merged_per_block) and point.name in left_out


def _is_plain_of(plain: Candidate, merging: Candidate) -> bool:
    """Whether one is the same student, number format and runtime without merging."""
    same = plain.accuracy.images.weights == merging.accuracy.images.weights and plain.point.variant == merging.point.variant
    return same and not plain.point.merged_per_block


def _plain(one: Candidate, front: Front, members: set[str]) -> dict[str, Any]:
    beaten = front.beaten_by.get(one.name)
    return {
        "name": one.name,
        "model": one.point.model,
        "variant": one.point.variant,
        "precision": one.point.precision,
        "runtime": one.point.runtime,
        "token_merging": one.point.merged_per_block,
        "top1": one.accuracy.top1,
        "top1_interval": list(one.accuracy.interval),
        "num_images": one.accuracy.images.num,
        "images": one.accuracy.images.where,
        "p50_ms": one.latency.p50_ms,
        "p50_interval_ms": [one.latency.low_ms, one.latency.high_ms],
        "machine": one.latency.machine,
        "latency_source": one.latency.source,
        "file_bytes": one.point.file_bytes,
        "on_front": one.name in members,
        "beaten_by": beaten.name if beaten is not None else None,
        "tied_with": list(front.tied[one.name]),
    }
