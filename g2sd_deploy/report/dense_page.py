"""Sections about what a segmenter or detector reaches: its measures, class by class, and pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

from g2sd_deploy.report import charts, formatting
from g2sd_deploy.report.accuracy import budget
from g2sd_deploy.report.dense_pictures import pictures_block
from g2sd_deploy.report.dense_scores import BY_CLASS, DenseEvaluation, DenseModel, measures_of
from g2sd_deploy.report.document import Block, Cell, Chart, Column, Gallery, Row, Section, Table
from g2sd_deploy.report.measures import percent_cell
from g2sd_deploy.report.papers import PaperRow, paper_words, task_row
from g2sd_deploy.report.scores import series_of, shown_name
from g2sd_deploy.report.summary import RunSummary
from g2sd_deploy.report.verdicts import not_run

MAX_DRAWN_CLASSES = 20
MAX_CLASS_ROWS = 300


def quality_section(run: RunSummary) -> Section:
    """Every measure of every model, and what each cost to train."""
    title = "Accuracy"
    if run.dense is None:
        return Section("accuracy", title, "", (not_run(run, "evaluate"),))
    paper = task_row(run)
    blocks: list[Block] = [_models_table(run, run.dense, paper)]
    if len((areas := _areas_table(run.dense)).columns) > 1:
        blocks.append(areas)
    objects = run.data.num_test_objects if run.data and run.task == "detection" else None
    found = f" with {formatting.count(objects)} objects" if objects else ""
    lead = f"On {formatting.count(run.dense.num_images)} held-out test images{found}."
    return Section("accuracy", title, lead, tuple(blocks))


def classes_section(run: RunSummary) -> Section | None:
    """Each class by itself: bars where they are few, and every number; None where nothing was evaluated."""
    if run.dense is None or not run.dense.class_names:
        return None
    blocks = (*_class_blocks(run.dense), _class_table(run.dense))
    absent = run.dense.absent_classes()
    lead = f"Without a figure, as no test image has them: {formatting.listed(absent[:MAX_DRAWN_CLASSES])}." if absent else ""
    return Section("classes", "Class by class", lead, blocks)


def pictures_section(run: RunSummary) -> Section | None:
    """Test images, their truth and each model's answer side by side; None where there are none."""
    if run.dense is None or not run.dense.pictures:
        return None
    least = run.dense.shown_score
    objects = "Objects that a model is sure of." if least is None else f"Objects that a model gives a score of {least:g} or more."
    shown = "Colours are classes, named where there is room." if run.dense.task == "segmentation" else objects
    lead = f"Test images, evenly spread over the set and not chosen by how they turned out. {shown}"
    return Section("pictures", "Side by side", lead, (pictures_block(run.dense),))


def _models_table(run: RunSummary, dense: DenseEvaluation, paper: PaperRow | None) -> Table:
    """Size, the measures that are not about the size of objects, share of the teacher's, the paper's and training time."""
    measures = measures_of(dense.task)
    series = series_of(run.scored_names())
    titles = ["Model", "Parameters", "Size", *(measure.title for measure in measures), "Of teacher"]
    stated = [measure for measure in measures if paper and paper.states(measure.key)]
    titles += [f"Paper, {_within(measure.title)}" for measure in stated] + ["Training"]
    rows = []
    for model in dense.ordered():
        cells: list[Cell] = [
            shown_name(model.name),
            formatting.millions(model.num_parameters),
            formatting.mib(run.model_mib(model.name)),
            *(percent_cell(model.figures[measure.key], model.intervals.get(measure.key)) for measure in measures),
            formatting.percent(run.share_of_teacher(model.name), 1),
            *(formatting.percent(paper.value(model.name, measure.key) if paper else None, 1) for measure in stated),
            formatting.duration(run.train_seconds(model.name)),
        ]
        rows.append(Row(tuple(cells), series=series[model.name], strong=model.name == "student"))
    columns = tuple(Column(title, numeric=index > 0) for index, title in enumerate(titles))
    told = "; ".join(measure.told for measure in measures if measure.told)
    caption = f"Higher is better. {told}. Of teacher: {run.measure} over the teacher’s."
    caption += " Small: the 95 % interval." if any(model.intervals for model in dense.ordered()) else ""
    caption += f" {paper_words(paper)}" if paper else ""
    return Table("Models", columns, tuple(rows), " ".join((caption, *budget(run)))).without_empty_columns()


def _areas_table(dense: DenseEvaluation) -> Table:
    """Of a detector, precision by the size of the objects; no columns but the first for a segmenter."""
    measures = measures_of(dense.task, by_size=True)
    rows = tuple(_numbers_row(dense, model, [measure.key for measure in measures]) for model in dense.ordered())
    columns = (Column("Model"), *(Column(measure.title, numeric=True) for measure in measures))
    caption = (
        f"AP by the size of the objects. {formatting.label(measures[0].told)}. A size that no object has is left out." if measures else ""
    )
    return Table("By size of the objects", columns, rows, caption).without_empty_columns()


def _numbers_row(dense: DenseEvaluation, model: DenseModel, keys: Sequence[str]) -> Row:
    series = series_of(one.name for one in dense.ordered())[model.name]
    cells = (shown_name(model.name), *(formatting.percent(model.figures[key]) for key in keys))
    return Row(cells, series=series, strong=model.name == "student")


def _class_blocks(dense: DenseEvaluation) -> tuple[Block, ...]:
    """Bars of every class, or of those that the leading model finds hardest where there are too many to read."""
    drawn = tuple(_class_bars(dense, key, word) for key, word in BY_CLASS[dense.task].items() if _ordered_classes(dense, key))
    return drawn if len(drawn) < 2 else (Gallery(drawn, wide=True),)


def _class_bars(dense: DenseEvaluation, key: str, word: str) -> Chart:
    names, series = _ordered_classes(dense, key), series_of(model.name for model in dense.ordered())
    shown = names[:MAX_DRAWN_CLASSES]
    bars = [charts.Bars(model.name, series[model.name], [model.by_class[key].get(name) for name in shown]) for model in dense.ordered()]
    svg = charts.top1_bars(
        f"classes-{key.replace('_', '-')}",
        [formatting.shortened(name, 24) for name in shown],
        bars,
        f"{_capital(word)} of each model by class",
    )
    caption = f"{_capital(word)}; longer bars are better; the hardest for the {_leader(dense).name} first."
    hidden = len(names) - len(shown)
    caption += f" {formatting.count(hidden)} easier classes are in the table alone." if hidden else ""
    return Chart(f"{_capital(word)} by class", svg, caption)


def _class_table(dense: DenseEvaluation) -> Table:
    """Every class with a figure, the hardest first; folded where it is long."""
    kinds = BY_CLASS[dense.task]
    names = _ordered_classes(dense, next(iter(kinds)))
    columns = [Column("Class")]
    for word in kinds.values():
        columns += [
            Column(f"{shown_name(model.name)}, {word}" if len(kinds) > 1 else shown_name(model.name), numeric=True)
            for model in dense.ordered()
        ]
    rows = [
        Row((name, *(formatting.percent(model.by_class[key].get(name), 1) for key in kinds for model in dense.ordered())))
        for name in names[:MAX_CLASS_ROWS]
    ]
    hidden = len(names) - len(rows)
    caption = f"{_capital(formatting.listed(list(kinds.values())))}; the classes that the {_leader(dense).name} finds hardest come first."
    caption += f" {formatting.count(hidden)} easier classes are not shown." if hidden else ""
    return Table("Every class", tuple(columns), tuple(rows), caption, folded=len(names) > MAX_DRAWN_CLASSES)


def _leader(dense: DenseEvaluation) -> DenseModel:
    """The model that decides the order: the student, else the first."""
    return dense.models.get("student", dense.ordered()[0])


def _ordered_classes(dense: DenseEvaluation, key: str) -> list[str]:
    """Classes with a figure of any model, by the leading model's; those that it has none for come last."""
    absent, values = set(dense.absent_classes()), _leader(dense).by_class[key]
    known = [name for name in dense.class_names if name not in absent]
    return sorted(known, key=lambda name: (values[name] is None, values[name] or 0.0))


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]


def _within(title: str) -> str:
    """'Box AP' within a phrase: 'box AP'."""
    return title if title.startswith(("m", "a", "A")) else title[:1].lower() + title[1:]
