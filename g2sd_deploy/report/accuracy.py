"""Sections about accuracy and calibration on one set, and about robustness to regenerated corruptions."""

from collections.abc import Sequence

from g2sd_deploy.report import charts, charts_scores, formatting
from g2sd_deploy.report.document import Block, Cell, Chart, Column, Gallery, Note, Row, Section, Table
from g2sd_deploy.report.measures import (
    Scored,
    class_table,
    corruption_names,
    every_severity,
    interval_words,
    mean_over,
    number_cell,
    on_clean,
    percent_cell,
    preparations,
    probability_table,
    severity_reach,
)
from g2sd_deploy.report.papers import IMAGENET_VAL, PaperRow, is_imagenet, paper_row, paper_words
from g2sd_deploy.report.scores import Evaluation, Interval, ModelScores, shown_name
from g2sd_deploy.report.summary import STAGES_THAT_TRAIN, RunSummary
from g2sd_deploy.report.verdicts import not_run


def accuracy_section(run: RunSummary) -> Section:
    """Clean accuracy and calibration of every model, and what each cost to train."""
    if run.evaluation is None or not run.evaluation.models:
        return Section("accuracy", "Accuracy", "", (not_run(run, "evaluate"),))
    items = on_clean(run.evaluation)
    images = items[0].scores.num_images
    lead = f"Top-1 on {formatting.count(images)} held-out test images." if images else "Top-1 on held-out test images."
    class_names = run.data.class_names if run.data else ()
    blocks = (accuracy_table("Accuracy on clean test images", items, run), *calibration_blocks("clean", items, class_names))
    return Section("accuracy", "Accuracy", lead, blocks)


def accuracy_table(title: str, items: Sequence[Scored], run: RunSummary | None, teacher: str = "") -> Table:
    """Size and accuracy of every model on one set; of a run also what it was given and what its paper states.

    Args:
        title: Of the table.
        items: At least one model.
        run: None where the models were evaluated by themselves.
        teacher: Name of the model that the others are compared with.
    """
    paper = paper_row(run) if run and is_imagenet(run) else None
    columns = ("Model", "Parameters", "Size", "Top-1", "Paper", "Of teacher", "Top-5", "Same as teacher", "KL", "Training")
    caption = "Higher top-1 and top-5 are better."
    if any(_same(item, run) is not None for item in items):
        named = "" if teacher in ("", "teacher") else f" ({teacher})"
        caption += f" Same as teacher{named}: share of images on which both decide alike."
    if any(item.scores.agreement and item.scores.agreement.kl is not None for item in items):
        caption += " KL: mean divergence from the teacher’s probabilities, in nats; lower is nearer."
    caption += interval_words(items) + (f" {paper_words(paper)}" if paper else "") + preparations([item.model for item in items])
    return Table(
        title=title,
        columns=tuple(Column(name, numeric=index > 0) for index, name in enumerate(columns)),
        rows=tuple(_accuracy_row(item, run, paper) for item in items),
        caption=" ".join((caption, *budget(run))) if run else caption,
    ).without_empty_columns()


def calibration_blocks(prefix: str, items: Sequence[Scored], class_names: Sequence[str]) -> tuple[Block, ...]:
    """Probabilities as a table and as charts, then accuracy by class; each only where it was measured.

    Args:
        prefix: Begins the names of the charts; unique within the page.
        items: Models on one set.
        class_names: Of the set.
    """
    blocks: list[Block] = []
    if len((table := probability_table("Probabilities", items)).columns) > 1:
        blocks.append(table)
    if drawn := (*_reliability(prefix, items), *_risk_coverage(prefix, items)):
        blocks.append(Gallery(drawn))
    if by_class := class_table("Top-1 by class", items, class_names):
        blocks.append(by_class)
    return tuple(blocks)


def robustness_section(run: RunSummary) -> Section:
    """Top-1 under regenerated corruptions: mean over severities as bars and numbers, and every severity on demand."""
    if run.evaluation is None:
        return Section("robustness", "Robustness", "", (not_run(run, "evaluate"),))
    found = corruptions_section(run.evaluation)
    return found or Section("robustness", "Robustness", "", (Note("The recipe evaluates no corruptions.", "Not run", "idle"),))


def corruptions_section(evaluation: Evaluation) -> Section | None:
    """As `robustness_section`, of any evaluation; None where nothing was corrupted."""
    models = [scores for scores in evaluation.ordered() if scores.corruptions]
    if not models:
        return None
    severities = sorted({level for scores in models for levels in scores.corruptions.values() for level in levels})
    num_corruptions = formatting.count(len(corruption_names([scores.corruptions for scores in models])))
    reach = severity_reach(severities)
    lead = f"{num_corruptions} regenerated corruptions at {reach}, {formatting.count(evaluation.num_corruption_images)} test images each."
    table = Table(
        title="Top-1 under corruption",
        columns=(Column("Condition"), *(Column(shown_name(scores.name), numeric=True) for scores in models)),
        rows=tuple(_condition_rows(models)),
        caption=f"Top-1, mean over {reach}; higher is better. {evaluation.corruption_note}".strip() + preparations(models),
    )
    severity_table = every_severity("Top-1 at every severity", {scores.name: scores.corruptions for scores in models})
    return Section("robustness", "Robustness", lead, (_corruption_bars(evaluation, models), table, severity_table))


def _corruption_bars(evaluation: Evaluation, models: Sequence[ModelScores]) -> Chart:
    conditions, series = _conditions(models), evaluation.series()
    bars = [
        charts.Bars(
            scores.name, series[scores.name], [values[index][0] for _, values in conditions], [ends[index][1] for _, ends in conditions]
        )
        for index, scores in enumerate(models)
    ]
    told = "Top-1 accuracy of each model on clean images and under each corruption"
    drawn = charts.top1_bars("robustness", [name for name, _ in conditions], bars, told)
    caption = "Top-1; longer bars are better." + (" Lines: 95 % intervals." if any(ends for bar in bars for ends in bar.intervals) else "")
    return Chart("Top-1 under corruption", drawn, caption)


def _conditions(models: Sequence[ModelScores]) -> list[tuple[str, list[tuple[float | None, Interval | None]]]]:
    """Name of each condition, and top-1 of each model under it with its interval: clean, the mean, then every corruption."""
    rows: list[tuple[str, list[tuple[float | None, Interval | None]]]] = []
    if all(scores.clean_scores for scores in models):
        rows.append(("Clean", [(scores.clean.top1, scores.clean.intervals.get("top1")) for scores in models]))
    rows.append(("Mean of corruptions", [(scores.mean_corruption_top1, scores.mean_corruption_interval) for scores in models]))
    for name in corruption_names([scores.corruptions for scores in models]):
        means = [mean_over(scores.corruptions.get(name), lambda found: found.top1) for scores in models]
        rows.append((formatting.label(name), [(mean, None) for mean in means]))
    return rows


def _condition_rows(models: Sequence[ModelScores]) -> list[Row]:
    summed = ("Clean", "Mean of corruptions")
    return [
        Row((name, *(percent_cell(value, ends) for value, ends in values)), strong=place < 2 and name in summed)
        for place, (name, values) in enumerate(_conditions(models))
    ]


def _accuracy_row(item: Scored, run: RunSummary | None, paper: PaperRow | None) -> Row:
    scores, name = item.scores, item.model.name
    agreement = scores.agreement
    cells: tuple[Cell, ...] = (
        shown_name(name),
        formatting.millions(item.model.num_parameters),
        formatting.mib(item.model.model_mib),
        percent_cell(scores.top1, scores.intervals.get("top1")),
        formatting.percent(paper.value(name, IMAGENET_VAL) if paper else None, 1),
        formatting.percent(run.share_of_teacher(name) if run else None, 1),
        percent_cell(scores.top5, scores.intervals.get("top5")),
        percent_cell(_same(item, run), agreement.intervals.get("same") if agreement else None, 1),
        number_cell(agreement.kl if agreement else None, agreement.intervals.get("kl") if agreement else None),
        formatting.duration(run.train_seconds(name) if run else None),
    )
    return Row(cells, series=item.series, strong=name == "student")


def _same(item: Scored, run: RunSummary | None) -> float | None:
    """Share of images decided as the teacher decides."""
    if item.scores.agreement:
        return item.scores.agreement.same
    return run.evaluation.agreement.get(item.model.name) if run and run.evaluation else None


def budget(run: RunSummary) -> list[str]:
    """What the student and the baseline were given, in seconds, so that the comparison can be judged."""
    parts = []
    stages = [run.training[stage] for stage in STAGES_THAT_TRAIN["student"] if stage in run.training]
    if stages:
        spent = " + ".join(f"{formatting.duration(stage.train_seconds)} {stage.stage} ({stage.method})" for stage in stages)
        parts.append(f"Student: {spent}.")
    if "baseline" in run.training:
        spent = formatting.duration(run.training["baseline"].train_seconds)
        how = "the same generic student fine-tuned" if run.baseline_is_generic else "the student’s architecture trained"
        parts.append(f"Baseline: {how} on labels alone for {spent}.")
    if run.teacher:
        parts.append(f"The teacher was not trained in this run (source: {run.teacher.source}).")
    return parts


def _reliability(prefix: str, items: Sequence[Scored]) -> tuple[Chart, ...]:
    caption = "Dots on the dashed line are honest, dots below it too sure. The area of a dot is its share of the images."
    return tuple(
        Chart(
            f"Reliability, {item.model.name}",
            charts_scores.reliability_diagram(f"{prefix}-reliability-{index}", item.model.name, item.series, item.scores.reliability),
            caption,
        )
        for index, item in enumerate(items)
        if any(found.accuracy is not None for found in item.scores.reliability)
    )


def _risk_coverage(prefix: str, items: Sequence[Scored]) -> tuple[Chart, ...]:
    curves = [(item.model.name, item.series, curve) for item in items if (curve := item.scores.risk_coverage) and curve.coverage]
    if not curves:
        return ()
    caption = "Errors among the images that the model is surest of. Lower is better; the right end is the whole set."
    return (Chart("Risk over coverage", charts_scores.risk_coverage_curves(f"{prefix}-risk", curves), caption),)
