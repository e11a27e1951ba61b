"""Pieces that the sections of an evaluation share: numbers with intervals, and how each model is shown its images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Cell, Column, Measured, Row, Table
from g2sd_deploy.report.scores import Corruptions, Evaluation, Interval, ModelScores, Preparation, Scores, shown_name

MAX_CLASS_ROWS = 50
MAX_SHARES = 11  # columns of an occlusion table


@dataclass(frozen=True)
class Scored:
    """One model on one set, with its colour."""

    model: ModelScores
    scores: Scores
    series: str


def on_set(evaluation: Evaluation, scoring: str) -> tuple[Scored, ...]:
    """Every model that was scored in this way."""
    series = evaluation.series()
    return tuple(Scored(found, found.sets[scoring], series[found.name]) for found in evaluation.ordered() if scoring in found.sets)


def on_clean(evaluation: Evaluation) -> tuple[Scored, ...]:
    """Every model on the run's own test set."""
    series = evaluation.series()
    return tuple(Scored(found, found.clean_scores, series[found.name]) for found in evaluation.ordered() if found.clean_scores)


def percent_cell(value: float | None, ends: Interval | None, digits: int = 2) -> Cell:
    """A share in percent, with its interval where there is one."""
    shown = formatting.percent(value, digits)
    return Measured(shown, formatting.percent_range(ends, digits)) if value is not None and ends else shown


def number_cell(value: float | None, ends: Interval | None) -> Cell:
    """A plain number, with its interval where there is one."""
    shown = formatting.significant(value)
    return Measured(shown, formatting.number_range(ends)) if value is not None and ends else shown


def probability_table(title: str, items: Sequence[Scored]) -> Table:
    """How good the probabilities are: likelihood, calibration, and what confidence is worth."""
    rows = []
    for item in items:
        scores, ends = item.scores, item.scores.intervals
        cells = (
            shown_name(item.model.name),
            number_cell(scores.nll, ends.get("nll")),
            number_cell(scores.brier, ends.get("brier")),
            percent_cell(scores.ece, ends.get("ece")),
            percent_cell(scores.ece_equal_mass, ends.get("ece_equal_mass")),
            number_cell(scores.aurc, ends.get("aurc")),
        )
        rows.append(Row(cells, series=item.series, strong=item.model.name == "student"))
    columns = ("Model", "NLL", "Brier", "ECE", "ECE, equal mass", "AURC")
    meanings = {
        "NLL": "NLL: mean negative log-likelihood, in nats.",
        "Brier": "Brier: squared distance of the probabilities from the truth, 0 to 2.",
        "ECE": "ECE: expected calibration error over 15 bins of equal width.",
        "ECE, equal mass": "ECE, equal mass: the same over bins of equally many images.",
        "AURC": "AURC: area under the curve of risk over coverage.",
    }
    table = Table(title, tuple(Column(name, numeric=index > 0) for index, name in enumerate(columns)), tuple(rows)).without_empty_columns()
    told = " ".join(meanings[column.title] for column in table.columns[1:])
    return Table(table.title, table.columns, table.rows, f"Lower is better everywhere. {told}{interval_words(items)}")


def interval_words(items: Sequence[Scored]) -> str:
    """What the small numbers below the others are, where there are any."""
    return " Small: the 95 % interval." if any(item.scores.intervals for item in items) else ""


def preparation(found: Preparation) -> str:
    """Crop, filter and normalisation in a line: '224 px of 256, bicubic, mean .485 .456 .406, std .229 .224 .225'."""
    size = f"{found.image_px} px" + (f" of {found.resize_px}" if found.resize_px else "")
    parts = (size, found.interpolation, f"mean {formatting.channels(found.mean)}", f"std {formatting.channels(found.std)}")
    return ", ".join(filter(None, parts))


def preparations(models: Sequence[ModelScores]) -> str:
    """How the images are prepared for each model, as a sentence; empty where it was not recorded."""
    names: dict[str, list[str]] = {}
    for scores in models:
        if scores.preparation:
            names.setdefault(preparation(scores.preparation), []).append(scores.name)
    if len(names) == 1 and len(models) > 1:
        return f" Images are prepared alike for every model: {next(iter(names))}."
    return "".join(f" Images for {formatting.listed(found)}: {prepared}." for prepared, found in names.items())


def corruption_names(corruptions: Sequence[Corruptions]) -> list[str]:
    """Every corruption that any model was scored on."""
    return list(dict.fromkeys(name for found in corruptions for name in found))


def severity_reach(severities: Sequence[int]) -> str:
    """'severities 1 to 5', or 'severity 3'."""
    return f"severities {severities[0]} to {severities[-1]}" if len(severities) > 1 else f"severity {severities[0]}"


def mean_over(levels: Mapping[int, Scores] | None, of: Callable[[Scores], float | None]) -> float | None:
    """Mean over severities; None where a severity lacks the number."""
    values = [of(scores) for scores in (levels or {}).values()]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def every_severity(title: str, corruptions: Mapping[str, Corruptions]) -> Table:
    """Top-1 of each model under each corruption at each severity, folded.

    Args:
        title: Of the table.
        corruptions: By the name of the model.
    """
    severities = sorted({level for found in corruptions.values() for levels in found.values() for level in levels})
    titles = ["Corruption", "Model", *(f"Severity {level}" for level in severities), "Mean top-5", "Mean NLL", "Mean ECE"]
    rows = []
    for corruption in corruption_names(tuple(corruptions.values())):
        for name, found in corruptions.items():
            levels = found.get(corruption, {})
            top1 = [formatting.percent(levels[level].top1 if level in levels else None) for level in severities]
            top5 = formatting.percent(mean_over(levels, lambda scores: scores.top5))
            nll = formatting.significant(mean_over(levels, lambda scores: scores.nll))
            ece = formatting.percent(mean_over(levels, lambda scores: scores.ece))
            rows.append(Row((formatting.label(corruption), shown_name(name), *top1, top5, nll, ece), strong=name == "student"))
    columns = tuple(Column(name, numeric=index > 1) for index, name in enumerate(titles))
    caption = "Severity columns are top-1; the last three are means over the severities."
    return Table(title, columns, tuple(rows), caption, folded=True)


def class_table(title: str, items: Sequence[Scored], class_names: Sequence[str]) -> Table | None:
    """Top-1 of each class, the worst first, folded; None where it was not measured.

    Args:
        title: Of the table.
        items: Models on one set; the student decides the order, else the first model that has the numbers.
        class_names: By class; classes are numbered where these do not fit.
    """
    known = [(item, found) for item in items if (found := item.scores.per_class)]
    if not known:
        return None
    leader, first = next((pair for pair in known if pair[0].model.name == "student"), known[0])
    filled = [(top1, index) for index, top1 in enumerate(first.top1) if top1 is not None]
    fits = len(class_names) == len(first.num)
    rows = [
        Row(
            (
                class_names[index] if fits else f"class {index}",
                formatting.count(first.num[index]),
                *(formatting.percent(found.top1[index] if index < len(found.top1) else None, 1) for _, found in known),
            )
        )
        for _, index in sorted(filled)[:MAX_CLASS_ROWS]
    ]
    columns = (
        Column("Class"),
        Column("Images", numeric=True),
        *(Column(shown_name(item.model.name), numeric=True) for item, _ in known),
    )
    hidden, empty = len(filled) - len(rows), len(first.top1) - len(filled)
    caption = f"Top-1; the classes that {leader.model.name} gets wrong most often come first."
    caption += f" {formatting.count(hidden)} better classes are not shown." if hidden else ""
    caption += f" {formatting.count(empty)} classes have no image." if empty else ""
    return Table(title, columns, tuple(rows), caption, folded=True)


def spread(count: int, most: int) -> list[int]:
    """At most `most` places among `count`, evenly spread, with both ends."""
    return list(range(count)) if count <= most else [round(step * (count - 1) / (most - 1)) for step in range(most)]
