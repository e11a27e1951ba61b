"""Sections about test sets beside the run's own, and about published sets of corrupted images."""

from collections.abc import Sequence

from g2sd_deploy.report import charts, formatting
from g2sd_deploy.report.document import Block, Cell, Chart, Column, Row, Section, Table
from g2sd_deploy.report.measures import (
    every_severity,
    interval_words,
    number_cell,
    on_set,
    percent_cell,
    preparations,
)
from g2sd_deploy.report.papers import PaperRow, paper_words
from g2sd_deploy.report.scores import CorruptedSet, Evaluation, ModelScores, SetFacts, shown_name


def sets_section(evaluation: Evaluation, paper: PaperRow | None, title: str = "Other test sets") -> Section | None:
    """Top-1 on every set as bars and numbers, the protocol of each, and every other measure on demand; None without sets."""
    names = [name for name in evaluation.set_names() if on_set(evaluation, name)]
    if not names:
        return None
    models = [scores for scores in evaluation.ordered() if scores.sets]
    blocks: list[Block] = [_set_bars(evaluation, names, models), _top1_table(evaluation, names, models, paper)]
    facts = [(name, evaluation.sets[name]) for name in names if name in evaluation.sets]
    blocks += protocol_tables(facts)
    blocks.append(_every_measure(evaluation, names))
    lead = "Each set is scored by its own protocol: compare models on a set, not sets with each other."
    return Section("sets", title, lead, tuple(blocks))


def protocol_tables(facts: Sequence[tuple[str, SetFacts]]) -> list[Table]:
    """How each set was scored, and which images could not be used, as far as these are named."""
    if not facts:
        return []
    rows = [
        Row(
            (name, formatting.count(found.num_images), formatting.count(found.num_classes), formatting.count(found.num_skipped), found.note)
        )
        for name, found in facts
    ]
    columns = (
        Column("Set"),
        Column("Images", numeric=True),
        Column("Classes", numeric=True),
        Column("Skipped", numeric=True),
        Column("Protocol"),
    )
    caption = "Images: scored. Skipped: images that could not be read; they count neither as right nor as wrong."
    tables = [Table("How each set is scored", columns, tuple(rows), caption)]
    skipped = [Row((name, image, reason)) for name, found in facts for image, reason in found.skipped]
    if skipped:
        unnamed = sum(found.num_skipped for _, found in facts) - len(skipped)
        caption = f"{formatting.count(unnamed)} more are not named." if unnamed > 0 else ""
        tables.append(Table("Skipped images", (Column("Set"), Column("Image"), Column("Reason")), tuple(skipped), caption, folded=True))
    return tables


def corrupted_sets_sections(evaluation: Evaluation, paper: PaperRow | None) -> tuple[Section, ...]:
    """A section for each published set of corrupted images."""
    names = dict.fromkeys(name for scores in evaluation.ordered() for name in scores.corrupted_sets)
    return tuple(_corrupted_section(evaluation, name, index, paper) for index, name in enumerate(names))


def _corrupted_section(evaluation: Evaluation, name: str, index: int, paper: PaperRow | None) -> Section:
    found = [(scores, scores.corrupted_sets[name]) for scores in evaluation.ordered() if name in scores.corrupted_sets]
    shown = paper if paper and paper.states(name) else None
    series = evaluation.series()
    rows = tuple(_corrupted_row(scores, corrupted, series[scores.name], name, shown) for scores, corrupted in found)
    columns = ("Model", "Mean error", "mCE", "Relative mCE", "Paper")
    caption = (
        "Lower is better. Mean error: share of wrong decisions, mean over corruptions and severities. mCE: each corruption’s error over "
        "AlexNet’s, then the mean. Relative mCE: the same for what the error grows from clean images."
    )
    caption += " Small: the 95 % interval." if any(corrupted.intervals for _, corrupted in found) else ""
    caption += f" {paper_words(shown)} Nor does it state whether its number is the mean error or mCE." if shown else ""
    caption += preparations([scores for scores, _ in found])
    table = Table(
        name, tuple(Column(title, numeric=place > 0) for place, title in enumerate(columns)), rows, caption
    ).without_empty_columns()
    blocks: list[Block] = [table]
    facts = evaluation.sets.get(name)
    if facts and facts.num_skipped:
        blocks += protocol_tables([(name, facts)])
    corruptions = {scores.name: corrupted.corruptions for scores, corrupted in found if corrupted.corruptions}
    if corruptions:
        blocks.append(every_severity("Top-1 at every severity", corruptions))
    anchor = "corrupted" if index == 0 else f"corrupted-{index}"
    lead = f"The published files, not regenerated. {facts.note if facts else ''}".strip()
    return Section(anchor, name, lead, tuple(blocks))


def _corrupted_row(scores: ModelScores, found: CorruptedSet, series: str, name: str, paper: PaperRow | None) -> Row:
    ends = found.intervals
    cells: tuple[Cell, ...] = (
        shown_name(scores.name),
        percent_cell(found.mean_error, ends.get("mean_error")),
        percent_cell(found.mce, ends.get("mce"), 1),
        percent_cell(found.relative_mce, ends.get("relative_mce"), 1),
        formatting.percent(paper.value(scores.name, name) if paper else None, 1),
    )
    return Row(cells, series=series, strong=scores.name == "student")


def _set_bars(evaluation: Evaluation, names: Sequence[str], models: Sequence[ModelScores]) -> Chart:
    series = evaluation.series()
    bars = [
        charts.Bars(
            scores.name,
            series[scores.name],
            [scores.sets[name].top1 if name in scores.sets else None for name in names],
            [scores.sets[name].intervals.get("top1") if name in scores.sets else None for name in names],
        )
        for scores in models
    ]
    drawn = charts.top1_bars("sets", list(names), bars, "Top-1 accuracy of each model on each test set")
    caption = "Top-1; longer bars are better." + (" Lines: 95 % intervals." if any(ends for bar in bars for ends in bar.intervals) else "")
    return Chart("Top-1 by set", drawn, caption)


def _top1_table(evaluation: Evaluation, names: Sequence[str], models: Sequence[ModelScores], paper: PaperRow | None) -> Table:
    columns = [Column("Set")]
    for scores in models:
        columns += [Column(shown_name(scores.name), numeric=True), Column(f"{shown_name(scores.name)}, paper", numeric=True)]
    rows = []
    for name in names:
        cells: list[Cell] = [name]
        for scores in models:
            found = scores.sets.get(name)
            cells.append(percent_cell(found.top1, found.intervals.get("top1"), 1) if found else formatting.MISSING)
            cells.append(formatting.percent(paper.value(scores.name, name) if paper else None, 1))
        rows.append(Row(tuple(cells)))
    items = [item for name in names for item in on_set(evaluation, name)]
    stated = paper is not None and any(paper.states(name) for name in names)
    caption = "Top-1; higher is better." + interval_words(items) + (f" {paper_words(paper)}" if paper and stated else "")
    return Table("Top-1 by set", tuple(columns), tuple(rows), caption + preparations(models)).without_empty_columns()


def _every_measure(evaluation: Evaluation, names: Sequence[str]) -> Table:
    titles = ("Set", "Model", "Top-1", "Top-5", "NLL", "Brier", "ECE", "ECE, equal mass", "AURC", "Same as teacher", "KL")
    rows = []
    for item_name in names:
        for item in on_set(evaluation, item_name):
            scores, ends = item.scores, item.scores.intervals
            agreement = scores.agreement
            cells: tuple[Cell, ...] = (
                item_name,
                shown_name(item.model.name),
                percent_cell(scores.top1, ends.get("top1")),
                percent_cell(scores.top5, ends.get("top5")),
                number_cell(scores.nll, ends.get("nll")),
                number_cell(scores.brier, ends.get("brier")),
                percent_cell(scores.ece, ends.get("ece")),
                percent_cell(scores.ece_equal_mass, ends.get("ece_equal_mass")),
                number_cell(scores.aurc, ends.get("aurc")),
                percent_cell(agreement.same, agreement.intervals.get("same"), 1) if agreement else formatting.MISSING,
                number_cell(agreement.kl, agreement.intervals.get("kl")) if agreement else formatting.MISSING,
            )
            rows.append(Row(cells, strong=item.model.name == "student"))
    columns = tuple(Column(title, numeric=index > 1) for index, title in enumerate(titles))
    return Table("Every measure on every set", columns, tuple(rows), folded=True).without_empty_columns()
