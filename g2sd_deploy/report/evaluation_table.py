"""A standalone evaluation as tables for the terminal, at most 120 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from g2sd_deploy.report import formatting
from g2sd_deploy.report.fields import Fields
from g2sd_deploy.report.measures import MAX_SHARES, Scored, corruption_names, mean_over, on_clean, on_set, preparation, spread
from g2sd_deploy.report.reading_scores import read_evaluation
from g2sd_deploy.report.scores import Evaluation, Interval, ModelScores, Similarity

if TYPE_CHECKING:
    from rich.table import Table

MAX_MODELS = 4  # side by side, where models are columns
_MODEL_WIDTH = 22


def evaluation_tables(metrics: Mapping[str, object]) -> list[Table]:
    """Every result of an evaluation: a table for each way to score, then corruptions, ImageNet-C, occlusion and similarity.

    Args:
        metrics: What the evaluation found, as it is written to JSON.

    Raises:
        UserError: The metrics are not those of an evaluation.
    """
    evaluation = read_evaluation(Fields(metrics, "evaluation"), of_a_run=False)
    scored = [("test images", on_clean(evaluation)), *((name, on_set(evaluation, name)) for name in evaluation.set_names())]
    return [
        *(_scores_table(name, items, evaluation) for name, items in scored if items),
        *_corruption_tables(evaluation),
        *_corrupted_set_tables(evaluation),
        *_occlusion_tables(evaluation),
        *([_similarity_table(evaluation.similarity)] if evaluation.similarity and evaluation.similarity.pairs else []),
    ]


def _scores_table(name: str, items: Sequence[Scored], evaluation: Evaluation) -> Table:
    facts = evaluation.sets.get(name)
    note = " ".join(filter(None, (facts.note if facts else "", _skipped(facts.num_skipped if facts else 0))))
    rows = [
        (
            item.model.name,
            _percent(item.scores.top1, item.scores.intervals.get("top1")),
            _percent(item.scores.top5),
            _number(item.scores.nll),
            _number(item.scores.brier),
            _percent(item.scores.ece),
            _number(item.scores.aurc),
            formatting.count(item.scores.num_images),
            formatting.percent(item.scores.agreement.same if item.scores.agreement else None, 1),
            _number(item.scores.agreement.kl if item.scores.agreement else None),
        )
        for item in items
    ]
    columns = ("top-1 %\n95 %", "top-5\n%", "NLL\nnats", "Brier\n0..2", "ECE\n%", "AURC\n", "images\n", "same as\nteacher", "KL\nnats")
    return _table(name, ("model", *columns), rows, _caption(note, [item.model for item in items]))


def _corruption_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Top-1 by corruption, the mean over severities; regenerated corruptions, never a published set."""
    models = [scores for scores in evaluation.ordered() if scores.corruptions]
    for part in _parts(models):
        rows = [("mean", *(_percent(scores.mean_corruption_top1, scores.mean_corruption_interval) for scores in part))]
        for corruption in corruption_names([scores.corruptions for scores in part]):
            means = (mean_over(scores.corruptions.get(corruption), lambda found: found.top1) for scores in part)
            rows.append((corruption, *map(_percent, means)))
        images = formatting.count(evaluation.num_corruption_images)
        title = f"regenerated corruptions: top-1 %, mean over severities, {images} images each"
        yield _table(title, ("corruption", *(scores.name for scores in part)), rows, evaluation.corruption_note)


def _corrupted_set_tables(evaluation: Evaluation) -> Iterator[Table]:
    for name in dict.fromkeys(name for scores in evaluation.ordered() for name in scores.corrupted_sets):
        rows = []
        for scores in evaluation.ordered():
            if found := scores.corrupted_sets.get(name):
                error = _percent(found.mean_error, found.intervals.get("mean_error"))
                mce = _percent(found.mce, found.intervals.get("mce"), digits=1)
                relative = _percent(found.relative_mce, found.intervals.get("relative_mce"), digits=1)
                rows.append((scores.name, error, mce, relative))
        facts = evaluation.sets.get(name)
        columns = ("model", "mean error %\n95 %", "mCE %\n95 %", "relative mCE %\n95 %")
        shown = [scores for scores in evaluation.ordered() if name in scores.corrupted_sets]
        yield _table(f"{name} (lower is better)", columns, rows, _caption(facts.note if facts else "", shown))


def _occlusion_tables(evaluation: Evaluation) -> Iterator[Table]:
    facts = evaluation.occlusion
    if facts is None:
        return
    places = spread(len(facts.shares), MAX_SHARES)
    for order in dict.fromkeys(order for scores in evaluation.ordered() for order in scores.occlusion):
        rows = [
            (scores.name, *(_percent(scores.occlusion[order].top1[place], digits=1) for place in places))
            for scores in evaluation.ordered()
            if order in scores.occlusion
        ]
        shares = tuple(f"{100 * facts.shares[place]:.0f} %" for place in places)
        salience = f", salience of the {facts.salience}" if facts.salience and order != "random" else ""
        title = f"occlusion, {order.replace('_', ' ')}{salience}: top-1 % with this share of patches removed"
        yield _table(title, ("model", *shares), rows, f"{formatting.count(facts.num_images)} images")


def _similarity_table(similarity: Similarity) -> Table:
    rows = []
    for pair in similarity.pairs:
        equal = pair.at_equal_depth()
        known = [value for value in equal if value is not None]
        shown = (sum(known) / len(known) if known else None, *(equal[place] for place in spread(len(equal), 5)))
        rows.append((pair.name, pair.when, pair.reference, *map(_number, shown)))
    columns = ("model", "when", "beside", "mean", "first\nlayer", "at 1/4", "at 1/2", "at 3/4", "last\nlayer")
    title = f"linear CKA with the layer of another model at equal depth, {formatting.count(similarity.num_images)} images"
    return _table(title, columns, rows, similarity.note)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Table:
    """A plain table without columns in which no row has anything; numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    kept = [index for index in range(len(columns)) if index == 0 or any(row[index] not in ("", formatting.MISSING) for row in rows)]
    table = Table(
        title=Text(title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=Text(caption),
        caption_justify="left",
    )
    for index in kept:
        words = index == 0 or columns[index] in ("when", "beside")
        table.add_column(
            Text(columns[index]), justify="left" if words else "right", overflow="fold", no_wrap=not words, max_width=_MODEL_WIDTH
        )
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept), style="bold" if row[0] == "student" else None)
    return table


def _percent(fraction: float | None, ends: Interval | None = None, *, digits: int = 2) -> str:
    """The number alone, its interval on a second line; the heading says %."""
    shown = formatting.percent(fraction, digits).removesuffix(" %")
    return f"{shown}\n{formatting.percent_range(ends, digits)}" if fraction is not None and ends else shown


def _number(value: float | None) -> str:
    return formatting.MISSING if value is None else f"{value:.3f}"


def _caption(note: str, models: Sequence[ModelScores]) -> str:
    """How the set is scored, then how each model wants its images."""
    by_preparation: dict[str, list[str]] = {}
    for scores in models:
        if scores.preparation:
            by_preparation.setdefault(preparation(scores.preparation), []).append(scores.name)
    alike = len(by_preparation) == 1
    return "\n".join([note, *(f"{'images' if alike else ', '.join(names)}: {words}" for words, names in by_preparation.items())])


def _skipped(number: int) -> str:
    return f"{formatting.count(number)} images could not be read and are not counted." if number else ""


def _parts(models: Sequence[ModelScores]) -> list[Sequence[ModelScores]]:
    return [models[start : start + MAX_MODELS] for start in range(0, len(models), MAX_MODELS)]
