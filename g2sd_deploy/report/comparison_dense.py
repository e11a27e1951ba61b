"""Several runs of one task side by side: student, baseline and teacher of each, their spread over seeds, and every class."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from g2sd_deploy.report import formatting
from g2sd_deploy.report.comparison_origin import differing_settings
from g2sd_deploy.report.comparison_runs import Compared, groups, same_test
from g2sd_deploy.report.dense_scores import BY_CLASS, MEASURES, Measure, measures_of
from g2sd_deploy.report.document import Block, Cell, Column, Note, Row, Section, Table
from g2sd_deploy.report.measures import percent_cell
from g2sd_deploy.report.scores import MODELS, shown_name

_FOLDED_FROM = 20


def measure_cells(item: Compared) -> list[Cell]:
    """Every such measure of a run's student."""
    assert item.run.task is not None
    measures = measures_of(item.run.task)
    model = item.run.dense.models.get(item.model) if item.run.dense else None
    if model is None:
        return [formatting.MISSING] * len(measures)
    return [percent_cell(model.figures[measure.key], model.intervals.get(measure.key)) for measure in measures]


def scores_data(item: Compared) -> dict[str, object]:
    """The scores of a run's student as data, and what its teacher and baseline reach."""
    assert item.run.task is not None
    dense = item.run.dense
    model = dense.models.get(item.model) if dense else None
    return {
        **{measure.key: model.figures[measure.key] if model else None for measure in MEASURES[item.run.task]},
        "intervals": dict(model.intervals) if model else {},
        "others": {one.name: dict(one.figures) for one in dense.ordered() if one.name != item.model} if dense else {},
    }


def models_section(items: Sequence[Compared]) -> Section | None:
    """Teacher, student and baseline of each run; over runs that differ in nothing but their seed also mean and spread."""
    task, evaluated = items[0].run.task, [item for item in items if item.run.dense]
    if task is None or len(evaluated) < 2:
        return None
    seeds = _only_seeds(evaluated)
    measures = [measure for measure in MEASURES[task] if measure.key in BY_CLASS[task]]
    blocks: list[Block] = [_notes(evaluated)] if seeds else []
    blocks += [_models_table(evaluated, measure, seeds=seeds) for measure in measures]
    lead = "The runs differ in nothing but their seed." if seeds else ""
    return Section("models", "Teacher, student and baseline", lead, tuple(blocks))


def classes_section(items: Sequence[Compared]) -> Section | None:
    """Each class of the students, where all were tested alike; None where they were not."""
    task, evaluated = items[0].run.task, [item for item in items if item.run.dense]
    if task is None or len(evaluated) < 2 or len(groups(evaluated, same_test)) > 1:
        return None
    blocks = tuple(_class_table(evaluated, key, word) for key, word in BY_CLASS[task].items())
    return Section("classes", "Class by class", "The students of all runs.", blocks)


def _only_seeds(items: Sequence[Compared]) -> bool:
    """Are these repetitions: one test, and no setting differs but the seed?"""
    return len(groups(items, same_test)) == 1 and {row[0] for row in differing_settings(items)} == {"seed"}


def _figure(item: Compared, model: str, key: str) -> float | None:
    dense = item.run.dense
    return dense.models[model].figures[key] if dense and model in dense.models else None


def _gain(item: Compared, key: str) -> float | None:
    """Student over baseline."""
    student, baseline = _figure(item, "student", key), _figure(item, "baseline", key)
    return None if student is None or baseline is None else student - baseline


def _notes(items: Sequence[Compared]) -> Note:
    """In how many runs the student is ahead of the baseline."""
    run = items[0].run
    assert run.dense is not None
    gains = [gain for item in items if (gain := _gain(item, run.dense.main.key)) is not None]
    if not gains:
        return Note("No run has both a student and a baseline.", "", "idle")
    ahead = sum(gain > 0 for gain in gains)
    mean = formatting.points(statistics.fmean(gains), 2)
    text = f"The student is ahead of the baseline in {ahead} of {len(gains)} runs, by {mean} pp of {run.measure} on the mean."
    return Note(text, "Over the seeds", "idle")


def _models_table(items: Sequence[Compared], measure: Measure, *, seeds: bool) -> Table:
    columns = (
        Column("Run"),
        *(Column(shown_name(model), numeric=True) for model in MODELS),
        Column("Student over baseline, pp", numeric=True),
    )
    values = [([_figure(item, model, measure.key) for model in MODELS], _gain(item, measure.key)) for item in items]
    rows = [
        Row((item.name, *map(formatting.percent, figures), _points(gain)), series=item.series)
        for item, (figures, gain) in zip(items, values, strict=True)
    ]
    if seeds:
        every = [[figures[place] for figures, _ in values] for place in range(len(MODELS))]
        gains = [gain for _, gain in values]
        rows.append(Row(("Mean", *(formatting.percent(_mean(column)) for column in every), _points(_mean(gains))), strong=True))
        spread = (f"{100 * found:.2f} pp" if (found := _spread(column)) is not None else formatting.MISSING for column in every)
        rows.append(
            Row(("Standard deviation", *spread, formatting.MISSING if _spread(gains) is None else f"{100 * (_spread(gains) or 0):.2f}"))
        )
    caption = f"{measure.title}; higher is better." + (" The standard deviation is that of a sample." if seeds else "")
    return Table(f"{measure.title} of each run", columns, tuple(rows), caption).without_empty_columns()


def _points(gain: float | None) -> str:
    return formatting.MISSING if gain is None else formatting.points(gain, 2)


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a run lacks the number."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) == len(values) > 1 else None


def _class_table(items: Sequence[Compared], key: str, word: str) -> Table:
    found = [item.run.dense.models[item.model].by_class[key] for item in items if item.run.dense]
    names = [name for name in found[0] if any(values.get(name) is not None for values in found)]
    ordered = sorted(names, key=lambda name: sum(values.get(name) or 0.0 for values in found))
    rows = tuple(Row((name, *(formatting.percent(values.get(name), 1) for values in found))) for name in ordered)
    columns = (Column("Class"), *(Column(item.name, numeric=True) for item in items))
    title = f"{word[:1].upper()}{word[1:]} by class"
    return Table(title, columns, rows, "The hardest on the mean come first.", folded=len(rows) > _FOLDED_FROM)
