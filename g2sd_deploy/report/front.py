"""Which ways to run a model are worth having: none of the others is both as accurate and as fast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from g2sd_deploy.report import charts, charts_front, formatting
from g2sd_deploy.report.document import Chart, Column, Row, Section, Table
from g2sd_deploy.report.latency import TimedRow
from g2sd_deploy.report.scores import shown_name
from g2sd_deploy.report.summary import Candidate, RunSummary


@dataclass(frozen=True)
class Point:
    """One way to run one model on one image; `beaten_by` names a better one and is empty on the front.

    `top1` is what models are ranked by: of a run with a task its measure.
    """

    name: str
    series: str
    top1: float
    p50_ms: float
    num_bytes: int | None
    ships: bool = False
    beaten_by: str = ""


def front_section(run: RunSummary) -> Section | None:
    """Accuracy over latency of everything that was both scored and timed; None where there is no such thing."""
    points = points_of(run)
    if not points:
        return None
    marks = [mark_of(run, point, point.name) for point in points]
    caption = "Up and to the left is better. On the line: the front, which nothing here beats in both. Faint: beaten, named in the table."
    lead = "Every model, and every file whose proof passed, that was both scored and timed, one image at a time." + _other_images(run)
    chart = Chart("Accuracy over latency", charts_front.accuracy_latency(marks), caption)
    return Section("front", "Accuracy over latency", lead, (chart, _table(points, score_column(run))))


def points_of(run: RunSummary) -> tuple[Point, ...]:
    """Timed rows and the export's candidates with a known accuracy, the fastest first.

    A file that the profile timed stands at that latency; one that it did not, or could not believe, at the latency of the export.
    """
    rows = [row for row in run.profile.believed(batch=1) if row.p50_ms] if run.profile else []
    timed = [point for row in rows if (point := timed_point(run, row))]
    known = {row.variant for row in rows}
    others = [point for one in (run.export.candidates if run.export else ()) if one.name not in known and (point := _candidate(one))]
    return judged((*timed, *others))


def judged(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points with what beats each of them, the fastest first."""
    ordered = sorted(points, key=lambda point: (point.p50_ms, -point.top1))
    return tuple(replace(point, beaten_by=_better(point, ordered)) for point in ordered)


def _better(point: Point, points: Sequence[Point]) -> str:
    """Name of the most accurate of the points that are at least as good in both and better in one."""
    better = [
        other
        for other in points
        if other.top1 >= point.top1 and other.p50_ms <= point.p50_ms and (other.top1, other.p50_ms) != (point.top1, point.p50_ms)
    ]
    return max(better, key=lambda other: (other.top1, -other.p50_ms)).name if better else ""


def timed_point(run: RunSummary, row: TimedRow) -> Point | None:
    """A timed row with its accuracy; None where either is not known or the file's proof did not pass."""
    candidate = next((one for one in run.export.candidates if one.name == row.variant), None) if run.export and row.variant else None
    if candidate and candidate.verdict != "passed":
        return None
    top1 = candidate.score if candidate else None if row.variant else run.main_score(row.model)
    if top1 is None or row.p50_ms is None:
        return None
    ships = bool(candidate and candidate.chosen)
    return Point(f"{shown_name(row.model)}, {row.way}", charts.series(row.model), top1, row.p50_ms, row.file_bytes, ships)


def _candidate(one: Candidate) -> Point | None:
    if one.verdict != "passed" or one.score is None or one.p50_ms is None:
        return None
    return Point(f"Student, {one.name}", "student", one.score, one.p50_ms, one.file_bytes, one.chosen)


def _other_images(run: RunSummary) -> str:
    """A word of warning where files are scored on fewer images than models."""
    student, num_images = run.scores("student"), run.parity.num_images
    every = run.dense.num_images if run.dense else student.clean.num_images if student else None
    if every is None or num_images in (None, every):
        return ""
    return f" Exported files are scored on {formatting.count(num_images)} of the {formatting.count(every)} test images."


def mark_of(run: RunSummary, point: Point, text: str) -> charts_front.Mark:
    """A point of a chart under a name."""
    on_front, measure = not point.beaten_by, run.measure if run.task else "top-1 accuracy"
    return charts_front.Mark(text, point.series, point.p50_ms, point.top1, on_front, measure)


def score_column(run: RunSummary) -> str:
    """What models are ranked by, as the title of a column: 'Top-1', 'mIoU', 'Box AP'."""
    return run.measure if run.task == "segmentation" else run.measure[:1].upper() + run.measure[1:]


def _table(points: Sequence[Point], score: str) -> Table:
    rows = tuple(
        Row(
            (
                point.name,
                formatting.percent(point.top1),
                formatting.significant(point.p50_ms),
                formatting.mib(point.num_bytes / formatting.MIB if point.num_bytes else None),
                f"beaten by {point.beaten_by.removeprefix('Student, ')}" if point.beaten_by else "on the front",
            ),
            series=point.series,
            strong=point.ships,
            tone="idle" if point.beaten_by else "plain",
        )
        for point in points
    )
    columns = (Column("Way"), *(Column(title, numeric=True) for title in (score, "p50 ms", "Size")), Column("Standing"))
    ships = " Bold: what ships." if any(point.ships for point in points) else ""
    return Table("Where each stands", columns, rows, f"The fastest first.{ships}").without_empty_columns()
