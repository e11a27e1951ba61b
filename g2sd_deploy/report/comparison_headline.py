"""The top of a comparison: who leads, whether that may be chance, and one verdict for each run."""

from __future__ import annotations

from collections.abc import Sequence

from g2sd_deploy.report import formatting
from g2sd_deploy.report.comparison_paired import PairedStudents, p_words, pair_of, points_of_gain
from g2sd_deploy.report.comparison_runs import Compared, groups, same_test
from g2sd_deploy.report.comparison_students import ratios_compare, timed, timed_on_one_machine
from g2sd_deploy.report.document import Headline, KeyFigure, Outcome, Verdict
from g2sd_deploy.report.latency import TimedRow
from g2sd_deploy.report.verdicts import sentence, verdicts_of


def build_headline(items: Sequence[Compared], paired: Sequence[PairedStudents]) -> Headline:
    """Name the most accurate student where all were tested alike; a lead that may be chance is told as one."""
    told, support = _lead(items, paired)
    figures = (_most_accurate(items), _smallest(items), _fastest(items))
    verdicts = tuple(map(_verdict, items))
    return Headline(told, support, tuple(figure for figure in figures if figure), verdicts=verdicts)


def _lead(items: Sequence[Compared], paired: Sequence[PairedStudents]) -> tuple[str, str]:
    """The sentence, and what supports it."""
    ranked = _by_accuracy(items)
    if len(groups(items, same_test)) > 1:
        return (
            "These runs were tested on different images.",
            "Their accuracies cannot be ranked; the sections below say what can be compared.",
        )
    if len(ranked) < 2:
        return "Fewer than two of these runs have been evaluated.", ""
    (first, top1), (second, next_top1) = ranked[:2]
    pair = pair_of(paired, items.index(first), items.index(second))
    measure = first.run.measure
    leads = f"{first.name} is the most accurate of {len(ranked)}, with {formatting.percent(top1)} {measure}"
    gap = f"{formatting.points(top1 - next_top1, 2)} pp over {second.name}"
    if pair is None and first.run.task:
        return f"{leads}.", f"{gap}. Whether that may be chance is not known: the interval of each is in the table below."
    if pair is None:
        return f"{leads}.", f"{gap}; the two were not compared image by image, so it is not known whether that may be chance."
    gain = points_of_gain(pair)
    low_high = gain.interval if pair.gain > 0 or not pair.gain else points_of_gain(_turned(pair)).interval
    numbers = f"{gap} on the same {formatting.count(pair.num_images)} images (95 %: {low_high}, McNemar p {_equals(pair.p_value)})"
    if pair.differs:
        return f"{leads}.", f"{numbers}."
    return f"{first.name} leads with {formatting.percent(top1)} {measure}, but its lead may be chance.", f"{numbers}."


def _turned(pair: PairedStudents) -> PairedStudents:
    low, high = pair.interval
    return PairedStudents(pair.second, pair.first, gain=-pair.gain, interval=(-high, -low))


def _equals(p_value: float) -> str:
    words = p_words(p_value)
    return words if words.startswith("<") else f"= {words}"


def _by_accuracy(items: Sequence[Compared]) -> list[tuple[Compared, float]]:
    scored = [(item, item.score) for item in items if item.score is not None]
    return sorted(scored, key=lambda pair: -pair[1])


def _most_accurate(items: Sequence[Compared]) -> KeyFigure | None:
    ranked = _by_accuracy(items)
    if len(groups(items, same_test)) > 1 or not ranked:
        return None
    first, top1 = ranked[0]
    return KeyFigure(formatting.percent(top1, 1), "most accurate", first.name)


def _smallest(items: Sequence[Compared]) -> KeyFigure | None:
    sized = [(item.run.export.model_bytes, item.name) for item in items if item.run.export and item.model == "student"]
    if len({num_bytes for num_bytes, _ in sized}) < 2:
        return None
    num_bytes, name = min(sized)
    return KeyFigure(formatting.mib(num_bytes / formatting.MIB), "smallest file", name)


def _fastest(items: Sequence[Compared]) -> KeyFigure | None:
    """In milliseconds on one machine, as a ratio on several; None where fewer than two have a number to compare."""
    having = timed(items)
    in_ms = timed_on_one_machine(having)
    if not in_ms and not ratios_compare(having):
        return None
    known = [(value, item.name) for item in having if item.timed and (value := _time(item.timed, in_ms=in_ms)) is not None]
    if len({value for value, _ in known}) < 2:
        return None
    value, name = min(known)
    if in_ms:
        return KeyFigure(formatting.milliseconds(value), "fastest, one image", name)
    return KeyFigure(f"{formatting.significant(value)}×", "fastest, of the reference’s time", name)


def _time(row: TimedRow, *, in_ms: bool) -> float | None:
    """Milliseconds, or the ratio to the reference; None where they may not be used."""
    if in_ms:
        return row.p50_ms
    return row.believed.ratio.value if row.believed and row.believed.ratio else None


def _verdict(item: Compared) -> Verdict:
    """One over all of a run: failed or invalid where any of its verdicts is."""
    found = verdicts_of(item.run)
    outcomes: list[Outcome] = [verdict.outcome for verdict in found]
    order: tuple[Outcome, ...] = ("failed", "invalid", "passed", "valid")
    outcome: Outcome = next((one for one in order if one in outcomes), "not_run")
    outcome = "passed" if outcome == "valid" else outcome
    told = [f"{verdict.subject} {verdict.outcome.replace('_', ' ')}: {verdict.reason}" for verdict in found if verdict.tone != "good"]
    reason = " ".join(told) if told else sentence(f"all {len(found)} verdicts are good")
    parts = tuple((verdict.subject, verdict.outcome) for verdict in found)
    return Verdict(item.name, outcome, reason, "students", parts)
