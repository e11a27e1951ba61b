"""The table of all students, and what may not be read from it."""

from __future__ import annotations

from collections.abc import Sequence

from g2sd_deploy.report import comparison_dense, formatting
from g2sd_deploy.report.comparison_paired import PairedStudents, paired_table
from g2sd_deploy.report.comparison_runs import Compared, groups, reference_digest, same_machine, same_reference, same_test
from g2sd_deploy.report.dense_scores import measures_of
from g2sd_deploy.report.document import Block, Cell, Column, Measured, Note, Row, Section, Table
from g2sd_deploy.report.latency import TimedRow
from g2sd_deploy.report.measures import percent_cell


def students_section(items: Sequence[Compared], paired: Sequence[PairedStudents]) -> Section:
    """One row a run, then each pair of students on the same images."""
    blocks: list[Block] = [*test_notes(items), *latency_notes(items), students_table(items)]
    if (pairs := paired_table(items, paired)) is not None:
        blocks.append(pairs)
    models = {item.model for item in items}
    lead = "" if models == {"student"} else "A run without a student is shown by its first model, named in its row."
    return Section("students", "Students", lead, tuple(blocks))


def students_table(items: Sequence[Compared]) -> Table:
    """Size, accuracy, calibration, robustness and latency of each run's student; of a task its measures."""
    tests, one_machine, task = groups(items, same_test), timed_on_one_machine(items), items[0].run.task
    scored = [measure.title for measure in measures_of(task)] if task else ["Top-1", "ECE", "Mean of corruptions"]
    titles = ["Run", "Test images", "Parameters", "Size", scored[0], "Of teacher", *scored[1:], "p50 ms", "Of reference", "Timing"]
    rows = tuple(_row(item, tests, one_machine=one_machine) for item in items)
    columns = tuple(Column(title, numeric=title not in ("Run", "Test images", "Timing")) for title in titles)
    caption = (
        f"Size: of the file that ships, else of the weights. {'' if task else 'Top-1: on clean test images. '}"
        f"Of teacher: {items[0].run.measure} over that of the run’s own teacher. Of reference: p50 over that of the reference network, "
        "timed in the same rounds; lower is faster. Small: the 95 % interval."
    )
    return Table("Students side by side", columns, rows, caption).without_empty_columns()


def timed(items: Sequence[Compared]) -> list[Compared]:
    """Runs whose student was timed."""
    return [item for item in items if item.timed is not None and item.timed.figures is not None]


def timed_on_one_machine(items: Sequence[Compared]) -> bool:
    """Whether milliseconds may be compared."""
    return len(groups(timed(items), same_machine)) <= 1


def test_notes(items: Sequence[Compared]) -> list[Note]:
    """That accuracies of different tests are not one chart; nothing where all were tested alike."""
    found = groups(items, same_test)
    if len(found) < 2:
        return []
    told = "; ".join(f"{formatting.listed([item.name for item in group])}: {_test_words(group[0])}" for group in found)
    text = f"These runs were tested on different images or classes ({told}), so accuracies are drawn together only within one test."
    return [Note(text, "Different tests", "idle")]


def latency_notes(items: Sequence[Compared]) -> list[Note]:
    """That latencies of different machines are ratios only, and what cannot be compared at all."""
    with_times = timed(items)
    if timed_on_one_machine(items):
        return []
    machines = groups(with_times, same_machine)
    told = "; ".join(formatting.listed([item.name for item in group]) for group in machines)
    text = f"Timed on {len(machines)} machines ({told}). Milliseconds of different machines say nothing about the models, so "
    if ratios_compare(with_times):
        return [Note(f"{text}latencies are given as ratios to the same reference network, timed on each.", "Different machines", "idle")]
    missing = [item.name for item in with_times if not reference_digest(item.run)]
    why = f"{formatting.listed(missing)} timed none" if missing else "the runs timed different ones"
    return [Note(f"{text}only ratios to one reference network could be compared, and {why}.", "Different machines", "idle")]


def ratios_compare(items: Sequence[Compared]) -> bool:
    """Whether the latency ratios of these runs refer to the same network."""
    return bool(items) and all(same_reference(items[0].run, item.run) for item in items)


def _row(item: Compared, tests: Sequence[Sequence[Compared]], *, one_machine: bool) -> Row:
    run, row = item.run, item.timed
    first, *others = comparison_dense.measure_cells(item) if run.task else _score_cells(item)
    export = run.export if item.model == "student" else None
    size = export.model_bytes / formatting.MIB if export else run.model_mib(item.model)
    test = next(number for number, group in enumerate(tests, 1) if item in group)
    name = item.name if item.model == "student" else f"{item.name}: {item.model}"
    cells: tuple[Cell, ...] = (
        name,
        _test_words(item) if len(tests) > 1 and test else "",
        formatting.millions(run.num_parameters(item.model)),
        formatting.mib(size),
        first,
        formatting.percent(run.share_of_teacher(item.model), 1) if item.model != "teacher" else formatting.MISSING,
        *others,
        _p50(row) if one_machine else formatting.MISSING,
        _ratio(row),
        _timing(row),
    )
    return Row(cells, series=item.series)


def _score_cells(item: Compared) -> list[Cell]:
    """Top-1, calibration and robustness of a classifier."""
    scores = item.scores
    if scores is None:
        return [formatting.MISSING] * 3
    clean = scores.clean
    return [
        percent_cell(clean.top1, clean.intervals.get("top1")),
        percent_cell(clean.ece, clean.intervals.get("ece")),
        percent_cell(scores.mean_corruption_top1, scores.mean_corruption_interval),
    ]


def _test_words(item: Compared) -> str:
    data = item.run.data
    if data is None:
        return "unknown"
    return f"{formatting.count(data.num_test)} of {formatting.count(data.num_classes)} classes, {formatting.short(data.fingerprint)}"


def _p50(row: TimedRow | None) -> Cell:
    found = row.believed if row else None
    if found is None or found.p50_ms is None:
        return formatting.MISSING
    ends = found.p50_interval_ms
    shown = formatting.significant(found.p50_ms)
    return Measured(shown, formatting.number_range(ends)) if ends else shown


def _ratio(row: TimedRow | None) -> Cell:
    found = row.believed.ratio if row and row.believed else None
    return Measured(formatting.significant(found.value), formatting.number_range(found.interval)) if found else formatting.MISSING


def _timing(row: TimedRow | None) -> str:
    """Verdict and what ran it: 'valid, int8-openvino'."""
    if row is None:
        return "not run"
    reasons = f": {', '.join(row.reasons)}" if row.reasons else ""
    return f"{row.verdict.replace('_', ' ')}, {row.way}{reasons}"
