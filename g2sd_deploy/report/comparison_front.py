"""Accuracy over latency of everything that several runs scored and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from g2sd_deploy.report import charts_front, formatting
from g2sd_deploy.report.comparison_runs import MAX_DRAWN, Compared, groups, same_machine, same_test
from g2sd_deploy.report.comparison_students import ratios_compare
from g2sd_deploy.report.document import Block, Chart, Column, Note, Row, Section, Table
from g2sd_deploy.report.front import Point, judged, mark_of, points_of, score_column, timed_point
from g2sd_deploy.report.summary import RunSummary

_APART = ", as "
RATIO = charts_front.TimeAxis("p50 over that of the reference", lambda value: f"{formatting.significant(value)} of the reference")


def front_section(items: Sequence[Compared]) -> Section | None:
    """The front over all runs: in milliseconds on one machine, in ratios on several; None where nothing was both scored and timed."""
    timed = [item for item in items if points_of(item.run)]
    blocks: list[Block] = []
    for number, group in enumerate(groups(timed, same_test)):
        if len(group) > 1:
            blocks += _front(f"front-{number}", group)
    lead = "Every model and every file of all runs that was both scored and timed, one image at a time."
    return Section("front", "Accuracy over latency", lead, tuple(blocks)) if blocks else None


def _front(name: str, group: Sequence[Compared]) -> list[Block]:
    in_ms = len(groups(group, same_machine)) == 1
    if not in_ms and not ratios_compare(group):
        text = "The runs were timed on different machines and share no reference network, so there is no common axis of time."
        return [Note(text, "No common front", "idle")]
    points = judged(point for item in group for point in (_points(item) if in_ms else _ratios(item)))
    if not points:
        return []
    axis = charts_front.MILLISECONDS if in_ms else RATIO
    run = group[0].run
    table = _table(points, score_column(run), "p50 ms" if in_ms else "Of reference")
    if len(group) > MAX_DRAWN or not all(item.series for item in group):
        return [table]
    labels = {item.name: item.label for item in group}
    marks = [_mark(run, point, labels) for point in points]
    caption = "Up and to the left is better. On the line: the front over all runs. Faint: beaten, named in the table."
    return [Chart("Accuracy over latency", charts_front.accuracy_latency(marks, axis, name), caption), table]


def _mark(of: RunSummary, point: Point, labels: Mapping[str, str]) -> charts_front.Mark:
    run, way = point.name.split(_APART)
    return mark_of(of, point, f"{labels[run]}, {way}")


def _points(item: Compared) -> list[Point]:
    return [_named(item, point) for point in points_of(item.run)]


def _ratios(item: Compared) -> list[Point]:
    """Rows with a ratio, which stands where the milliseconds would."""
    rows = item.run.profile.believed(batch=1) if item.run.profile else ()
    found = [(timed_point(item.run, row), row.figures.ratio if row.figures else None) for row in rows]
    return [replace(_named(item, point), p50_ms=ratio.value) for point, ratio in found if point is not None and ratio is not None]


def _named(item: Compared, point: Point) -> Point:
    """The point of a run, told apart from those of others; of its student only the way is said."""
    way = point.name.removeprefix("Student, ")
    return replace(point, name=f"{item.name}{_APART}{way[:1].lower()}{way[1:]}", series=item.series)


def _table(points: Sequence[Point], score: str, time: str) -> Table:
    rows = []
    for point in points:
        run, way = point.name.split(_APART)
        size = formatting.mib(point.num_bytes / formatting.MIB if point.num_bytes else None)
        standing = f"beaten by {point.beaten_by}" if point.beaten_by else "on the front"
        numbers = (formatting.percent(point.top1), formatting.significant(point.p50_ms), size)
        rows.append(Row((run, way, *numbers, standing), point.series, strong=point.ships, tone="idle" if point.beaten_by else "plain"))
    columns = (Column("Run"), Column("Way"), *(Column(title, numeric=True) for title in (score, time, "Size")), Column("Standing"))
    return Table("Where each stands", columns, tuple(rows), "The fastest first. Bold: what ships.").without_empty_columns()
