"""Sections that lay the curves of several runs over each other: corruptions, occlusion, losses, and time by kind of layer."""

from __future__ import annotations

from collections.abc import Sequence

from g2sd_deploy.report import charts, charts_scores, formatting
from g2sd_deploy.report.comparison_charts import WIDTH_PX, LossLine, height_px, overlaid_losses
from g2sd_deploy.report.comparison_runs import MAX_DRAWN, Compared, groups, same_test
from g2sd_deploy.report.comparison_students import timed_on_one_machine
from g2sd_deploy.report.document import Block, Chart, Column, Gallery, Row, Section, Table
from g2sd_deploy.report.invariance import ORDERS
from g2sd_deploy.report.latency import LayerTable
from g2sd_deploy.report.measures import corruption_names, mean_over, percent_cell
from g2sd_deploy.report.scores import Interval, ModelScores
from g2sd_deploy.report.summary import TRAINING_STAGES

_Value = tuple[float | None, Interval | None]


def robustness_section(items: Sequence[Compared]) -> Section | None:
    """Top-1 of every run's student under each corruption; None where fewer than two runs of one test were corrupted."""
    blocks: list[Block] = []
    corrupted = [item for item in items if item.scores and item.scores.corruptions]
    for number, group in enumerate(groups(corrupted, same_test)):
        if len(group) > 1:
            blocks += _robustness(number, group)
    lead = "The students of all runs on the same corrupted images." if blocks else ""
    return Section("robustness", "Robustness", lead, tuple(blocks)) if blocks else None


def occlusion_section(items: Sequence[Compared]) -> Section | None:
    """Top-1 over the share of removed patches; None where fewer than two runs of one test measured it."""
    measured = [item for item in items if item.scores and item.scores.occlusion]
    if len(items) > MAX_DRAWN:
        return None
    drawn = [
        _occlusion(f"occlusion-{order.replace('_', '-')}-{number}", order, having)
        for number, group in enumerate(groups(measured, same_test))
        for order in ORDERS
        if len(having := [item for item in group if item.scores and order in item.scores.occlusion]) > 1
    ]
    return Section("occlusion", "Occlusion", "The students of all runs.", (Gallery(tuple(drawn)),)) if drawn else None


def losses_section(items: Sequence[Compared]) -> Section | None:
    """Losses of each stage that several runs trained; None where there is none, or too many runs for one chart."""
    if len(items) > MAX_DRAWN:
        return None
    drawn = []
    for stage in TRAINING_STAGES:
        having = [item for item in items if stage in item.run.training and charts.drawable(item.run.training[stage].history)]
        if len(having) > 1:
            drawn.append(_losses(stage, having))
    lead = "Losses of equal methods on equal data may be compared in height; of others only their course."
    return Section("training", "Training", lead, (Gallery(tuple(drawn)),)) if drawn else None


def layers_section(items: Sequence[Compared]) -> Section | None:
    """Time by kind of layer of what ships; None where fewer than two runs looked into it."""
    found = [(item, table) for item in items if (table := _layers(item)) is not None]
    if len(found) < 2:
        return None
    one_machine = timed_on_one_machine([item for item, _ in found])
    names = list(dict.fromkeys(group.name for _, table in found for group in table.groups))
    rows = tuple(Row((formatting.label(name), *(_group_cell(table, name, in_ms=one_machine) for _, table in found))) for name in names)
    columns = (Column("Layers"), *(Column(f"{item.name}, {table.way}", numeric=True) for item, table in found))
    caption = (
        "Milliseconds of one call, and the share of it." if one_machine else "Share of one call; the runs were timed on different machines."
    )
    return Section("blocks", "Time by kind of layer", "", (Table("Time by kind of layer", columns, rows, caption),))


def _robustness(number: int, group: Sequence[Compared]) -> list[Block]:
    conditions = _conditions([item.scores for item in group if item.scores])
    columns = (Column("Condition"), *(Column(item.name, numeric=True) for item in group))
    rows = tuple(
        Row((name, *(percent_cell(*value) for value in values)), strong=place < 2) for place, (name, values) in enumerate(conditions)
    )
    severities = {level for item in group if item.scores for levels in item.scores.corruptions.values() for level in levels}
    caption = f"Top-1; corruptions: mean over severities {min(severities)} to {max(severities)}. Higher is better."
    table = Table("Top-1 under corruption", columns, rows, caption)
    if not all(item.series for item in group):
        return [table]
    bars = [
        charts.Bars(item.name, item.series, [values[place][0] for _, values in conditions], [values[place][1] for _, values in conditions])
        for place, item in enumerate(group)
    ]
    told = "Top-1 accuracy of each run’s student on clean images and under each corruption; the table holds the numbers."
    drawn = charts.top1_bars(f"robustness-{number}", [name for name, _ in conditions], bars, told)
    return [Chart("Top-1 under corruption", drawn, "Longer bars are better. Lines: 95 % intervals, where they were measured."), table]


def _conditions(models: Sequence[ModelScores]) -> list[tuple[str, list[_Value]]]:
    """Name of each condition, and what each student reaches: clean, the mean, then every corruption that all of them met."""
    clean: list[_Value] = [(scores.clean.top1, scores.clean.intervals.get("top1")) for scores in models]
    means: list[_Value] = [(scores.mean_corruption_top1, scores.mean_corruption_interval) for scores in models]
    conditions = [("Clean", clean), ("Mean of its corruptions", means)]
    for name in corruption_names([scores.corruptions for scores in models]):
        if all(name in scores.corruptions for scores in models):
            found: list[_Value] = [(mean_over(scores.corruptions[name], lambda one: one.top1), None) for scores in models]
            conditions.append((formatting.label(name), found))
    return conditions


def _occlusion(name: str, order: str, having: Sequence[Compared]) -> Chart:
    lines = []
    for item in having:
        facts, scores = item.run.evaluation.occlusion if item.run.evaluation else None, item.scores
        assert facts is not None and scores is not None
        curve = scores.occlusion[order]
        lines.append(charts_scores.Line(item.name, item.series, facts.shares, curve.top1, curve.interval))
    drawn = charts_scores.line_chart(
        name, lines, ("patches removed", "top-1"), f"{ORDERS[order]}: top-1 of each run", (WIDTH_PX, height_px(len(lines)))
    )
    return Chart(ORDERS[order], drawn, "Bands: 95 % intervals.")


def _losses(stage: str, having: Sequence[Compared]) -> Chart:
    drawn = overlaid_losses(stage, [LossLine(item.name, item.series, item.run.training[stage].history) for item in having])
    methods = list(dict.fromkeys(item.run.training[stage].method for item in having))
    caption = "Running means. Lower is better."
    if len(methods) > 1:
        caption = (
            f"Running means. The runs trained by different methods ({formatting.listed(methods)}): compare the course, not the height."
        )
    return Chart(formatting.label(stage), drawn, caption)


def _layers(item: Compared) -> LayerTable | None:
    """Of what ships, else of any file of the student, one image at a time."""
    tables = item.run.profile.layers if item.run.profile else ()
    own = [table for table in tables if table.model == item.model and table.groups and table.verdict == "measured"]
    default = item.run.export.default if item.run.export else ""
    return min(own, key=lambda table: (table.batch != 1, table.variant != default), default=None)


def _group_cell(table: LayerTable, name: str, *, in_ms: bool) -> str:
    group = next((group for group in table.groups if group.name == name), None)
    if group is None:
        return formatting.MISSING
    share = formatting.percent(group.share, 1)
    return f"{formatting.significant(group.ms)} ms, {share}" if in_ms else share
