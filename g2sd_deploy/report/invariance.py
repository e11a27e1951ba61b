"""Sections about what models look at: accuracy with patches removed, similarity of layers, attention distance."""

from collections.abc import Sequence

from g2sd_deploy.report import charts_layers, charts_scores, formatting
from g2sd_deploy.report.document import Block, Chart, Column, Gallery, Row, Section, Table
from g2sd_deploy.report.measures import MAX_SHARES, preparations, spread
from g2sd_deploy.report.scores import Evaluation, LayerPair, OcclusionFacts, Similarity, series_of, shown_name

ORDERS = {
    "random": "Patches removed at random",
    "salient_first": "Most salient patches removed first",
    "salient_last": "Least salient patches removed first",
}


def occlusion_section(evaluation: Evaluation) -> Section | None:
    """Top-1 over the share of removed patches, and the same relative to each model's own clean accuracy; None where not measured."""
    facts = evaluation.occlusion
    orders = [order for order in ORDERS if any(order in scores.occlusion for scores in evaluation.models.values())]
    if facts is None or not orders:
        return None
    absolute = tuple(_occlusion_chart(evaluation, facts, order, relative=False) for order in orders)
    relative = tuple(
        _occlusion_chart(evaluation, facts, order, relative=True)
        for order in orders
        if any(order in scores.occlusion and scores.occlusion[order].relative for scores in evaluation.models.values())
    )
    blocks: list[Block] = [Gallery(absolute), *((Gallery(relative),) if relative else ()), _occlusion_table(evaluation, facts, orders)]
    salience = f" Salience: the attention of the {facts.salience}." if facts.salience else ""
    fill = f" Removed patches are filled with the {facts.fill}." if facts.fill else ""
    lead = f"{formatting.count(facts.num_images)} images, each cut into {facts.grid} × {facts.grid} patches.{salience}{fill}"
    return Section("occlusion", "Occlusion", lead, tuple(blocks))


def similarity_section(evaluation: Evaluation) -> Section | None:
    """Maps of CKA between the layers of the reference and of each model, and attention distances; None where not measured."""
    found = evaluation.similarity
    if found is None or not (found.pairs or found.attention_distance):
        return None
    blocks: list[Block] = []
    if found.pairs:
        maps = tuple(_similarity_chart(index, pair) for index, pair in enumerate(found.pairs))
        blocks += [Gallery(maps), _equal_depth_table(found)]
    if found.attention_distance:
        blocks.append(Gallery(_distance_charts(evaluation, found)))
    blocks += [_cka_table(pair) for pair in found.pairs]
    lead = f"Layers are compared on {formatting.count(found.num_images)} images. {found.note}".strip()
    return Section("similarity", "Similarity of representations", lead, tuple(blocks))


def moment_of(name: str, when: str) -> str:
    """'Student, after generic'."""
    return f"{shown_name(name)}, {when}" if when and when != name else shown_name(name)


def _occlusion_chart(evaluation: Evaluation, facts: OcclusionFacts, order: str, *, relative: bool) -> Chart:
    series, lines = evaluation.series(), []
    for scores in evaluation.ordered():
        curve = scores.occlusion.get(order)
        if curve is None or (relative and not curve.relative):
            continue
        values = curve.relative if relative else curve.top1
        known = [(share, value) for share, value in zip(facts.shares, values, strict=True) if value is not None]
        if known:
            share, value = zip(*known, strict=True)
            lines.append(charts_scores.Line(scores.name, series[scores.name], share, value, () if relative else curve.interval))
    what = "top-1, of that of whole images" if relative else "top-1"
    name = f"occlusion-{order.replace('_', '-')}" + ("-relative" if relative else "")
    drawn = charts_scores.line_chart(name, lines, ("patches removed", what), f"{ORDERS[order]}: {what}", (300, 240))
    caption = "Each model’s accuracy over its own on whole images." if relative else "Bands: 95 % intervals." if lines[0].intervals else ""
    return Chart(ORDERS[order] + (", relative" if relative else ""), drawn, caption)


def _occlusion_table(evaluation: Evaluation, facts: OcclusionFacts, orders: Sequence[str]) -> Table:
    places = spread(len(facts.shares), MAX_SHARES)
    models = [scores for scores in evaluation.ordered() if scores.occlusion]
    rows = [
        Row(
            (
                ORDERS[order],
                shown_name(scores.name),
                *(formatting.percent(scores.occlusion[order].top1[place], 1) for place in places),
            )
        )
        for order in orders
        for scores in models
        if order in scores.occlusion
    ]
    shares = (Column(formatting.percent(facts.shares[place], 0), numeric=True) for place in places)
    caption = "Columns: share of patches that are removed." + (" Not every share is shown." if len(places) < len(facts.shares) else "")
    return Table(
        "Top-1 with patches removed", (Column("Order"), Column("Model"), *shares), tuple(rows), caption + preparations(models), folded=True
    )


def _similarity_chart(index: int, pair: LayerPair) -> Chart:
    drawn = charts_layers.similarity_map(f"cka-{index}", pair)
    return Chart(moment_of(pair.name, pair.when), drawn, f"Linear CKA with the layers of the {pair.reference}.")


def _equal_depth_table(found: Similarity) -> Table:
    rows = []
    for pair in found.pairs:
        equal = pair.at_equal_depth()
        known = [value for value in equal if value is not None]
        mean = sum(known) / len(known) if known else None
        rows.append(
            Row(
                (moment_of(pair.name, pair.when), pair.reference, *(formatting.significant(value) for value in (mean, equal[0], equal[-1])))
            )
        )
    columns = (
        Column("Model"),
        Column("Beside"),
        Column("Mean", numeric=True),
        Column("First layer", numeric=True),
        Column("Last layer", numeric=True),
    )
    caption = (
        "CKA of each layer with the layer of the other model at equal depth; 1 is equal but for rotation and scale, 0 unrelated. "
        "In the maps, the diagonal from the lower left to the upper right."
    )
    return Table("Similarity at equal depth", columns, tuple(rows), caption)


def _cka_table(pair: LayerPair) -> Table:
    rows = [
        Row((layer, *("–" if value is None else f"{value:.2f}" for value in values)))
        for layer, values in zip(pair.rows, pair.cka, strict=True)
    ]
    columns = (Column(f"Layer of {pair.reference}"), *(Column(name, numeric=True) for name in pair.columns))
    return Table(f"CKA: {moment_of(pair.name, pair.when)}", columns, tuple(rows), "Columns: layers of the model.", folded=True)


def _distance_charts(evaluation: Evaluation, found: Similarity) -> tuple[Chart, ...]:
    """One chart per model and moment, all to one scale."""
    drawn = [item for item in found.attention_distance if any(value is not None for heads in item.px for value in heads)]
    series = evaluation.series() | series_of(item.name for item in drawn if item.name not in evaluation.models)
    top_px = 1.08 * max((value for item in drawn for heads in item.px for value in heads if value is not None), default=1.0)
    return tuple(
        Chart(
            f"Attention distance: {moment_of(item.name, item.when)}",
            charts_layers.distance_dots(f"distance-{index}", item, series[item.name], top_px),
            "Dots: heads; line: their mean. Low heads look nearby, high ones across the image.",
        )
        for index, item in enumerate(drawn)
    )
