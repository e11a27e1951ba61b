"""The page of a standalone evaluation: the sections of a run's report that speak of models and sets, with no run around them."""

from collections.abc import Mapping

from g2sd_deploy.report import accuracy, formatting, invariance, other_sets
from g2sd_deploy.report.document import Block, Column, Document, Headline, KeyFigure, Row, Section, Table
from g2sd_deploy.report.fields import Fields
from g2sd_deploy.report.measures import Scored, on_set, preparation
from g2sd_deploy.report.reading_scores import read_evaluation
from g2sd_deploy.report.render import Rendered, render_document
from g2sd_deploy.report.scores import Evaluation, shown_name

_MAX_FIGURES = 5


def render_evaluation(metrics: Mapping[str, object], title: str) -> Rendered:
    """Render an evaluation of models by themselves.

    Args:
        metrics: What the evaluation found, as it is written to JSON.
        title: Of the page.

    Returns:
        One HTML page that loads nothing, and the same content as GitHub Markdown.

    Raises:
        UserError: The metrics are not those of an evaluation.
    """
    evaluation = read_evaluation(Fields(metrics, "evaluation"), of_a_run=False)
    found = (
        _overview(evaluation),
        *(_set_section(evaluation, name, index) for index, name in enumerate(evaluation.set_names()) if on_set(evaluation, name)),
        accuracy.corruptions_section(evaluation),
        *other_sets.corrupted_sets_sections(evaluation, None),
        invariance.occlusion_section(evaluation),
        invariance.similarity_section(evaluation),
        _models_section(evaluation),
    )
    document = Document(
        title=title,
        recipe="",
        description="",
        finished="",
        footer="Every number comes from the evaluation’s own files; the page measures nothing.",
        headline=_headline(evaluation),
        sections=tuple(section for section in found if section),
    )
    return render_document(document)


def _set_section(evaluation: Evaluation, name: str, index: int) -> Section:
    """One set: accuracy, calibration and classes, under its protocol."""
    items, facts = on_set(evaluation, name), evaluation.sets.get(name)
    blocks: list[Block] = [accuracy.accuracy_table(f"Accuracy on {name}", items, None, evaluation.teacher)]
    blocks += accuracy.calibration_blocks(f"set-{index}", items, facts.class_names if facts else ())
    if facts and facts.num_skipped:
        blocks += other_sets.protocol_tables([(name, facts)])
    images = f"{formatting.count(items[0].scores.num_images)} images. " if items[0].scores.num_images else ""
    return Section(f"set-{index}", name, f"{images}{facts.note if facts else ''}".strip(), tuple(blocks))


def _overview(evaluation: Evaluation) -> Section | None:
    """Every set in one chart, where there are several."""
    several = sum(1 for name in evaluation.set_names() if on_set(evaluation, name)) > 1
    return other_sets.sets_section(evaluation, None, "All sets") if several else None


def _models_section(evaluation: Evaluation) -> Section:
    """What was evaluated: the files, and how each is shown its images."""
    series = evaluation.series()
    rows = tuple(
        Row(
            (
                shown_name(scores.name),
                formatting.millions(scores.num_parameters),
                formatting.mib(scores.model_mib),
                scores.runtime,
                preparation(scores.preparation) if scores.preparation else "",
                formatting.short(scores.digest),
            ),
            series=series[scores.name],
        )
        for scores in evaluation.ordered()
    )
    columns = (
        Column("Model"),
        Column("Parameters", numeric=True),
        Column("Size", numeric=True),
        Column("Runtime"),
        Column("Images"),
        Column("SHA-256"),
    )
    caption = "Images: crop, filter and normalisation, which belong to the model. SHA-256: the first 12 characters of the file’s."
    return Section("models", "Models", "", (Table("Models", columns, rows, caption).without_empty_columns(),))


def _headline(evaluation: Evaluation) -> Headline:
    """The best model on the first set, and the top-1 of the first few on it."""
    name = next((name for name in evaluation.set_names() if on_set(evaluation, name)), None)
    if name is None:
        return Headline(f"{_counted(len(evaluation.models), 'model')} evaluated.", "", (), ())
    items = on_set(evaluation, name)
    best = max(items, key=lambda item: item.scores.top1)
    among = f", the best of {len(items)} models" if len(items) > 1 else ""
    sentence = f"{shown_name(best.model.name)} is right on {formatting.percent(best.scores.top1, 1)} of {name}{among}."
    return Headline(sentence, "", tuple(_figure(item, name) for item in items[:_MAX_FIGURES]), ())


def _figure(item: Scored, name: str) -> KeyFigure:
    ends = item.scores.intervals.get("top1")
    detail = f"{item.model.name}; 95 %: {formatting.percent_range(ends, 1)}" if ends else item.model.name
    return KeyFigure(formatting.percent(item.scores.top1, 1), f"top-1 on {name}", detail)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
