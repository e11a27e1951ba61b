"""Sections about the result: accuracy, robustness, parity, latency, size. Means over severities are the only arithmetic."""

from collections.abc import Callable, Mapping, Sequence

from g2sd_deploy.report import charts, formatting
from g2sd_deploy.report.document import Block, Chart, Column, Note, Row, Section, Table
from g2sd_deploy.report.headline import parity_notice, sentence
from g2sd_deploy.report.summary import STAGES_THAT_TRAIN, Export, Latency, ModelScores, Parity, RunSummary, Scores

_UNITS: Mapping[str, Callable[[float | None], str]] = {
    "max_abs_logit_diff": formatting.scientific,
    "mean_abs_logit_diff": formatting.scientific,
    "min_cosine": lambda value: formatting.significant(value, 7),
    "flipped_share": formatting.percent,
    "top1_reference": formatting.percent,
    "top1_candidate": formatting.percent,
}


def not_run(run: RunSummary, stage: str) -> Note:
    """The block that stands in for a stage that did not run."""
    return Note(sentence(run.absent[stage]), "Not run", "idle")


def accuracy_section(run: RunSummary) -> Section:
    """Clean accuracy and calibration of every model, and what each cost to train."""
    models = run.scored_models()
    if not models:
        return Section("accuracy", "Accuracy", "", (not_run(run, "evaluate"),))
    images = models[0].clean.num_images
    columns = ("Model", "Parameters", "Size", "Top-1", "Of teacher", "Top-5", "NLL", "ECE", "Same as teacher", "Training")
    table = Table(
        title="Accuracy on clean test images",
        columns=tuple(Column(title, numeric=index > 0) for index, title in enumerate(columns)),
        rows=tuple(_accuracy_row(run, scores) for scores in models),
        caption="Higher top-1 and top-5 are better; lower NLL (negative log-likelihood) and ECE (expected calibration error) are better. "
        "Same as teacher: share of images on which both decide alike. " + _budget(run),
    )
    lead = f"Top-1 on {formatting.count(images)} held-out test images." if images else "Top-1 on held-out test images."
    return Section("accuracy", "Accuracy", lead, (table,))


def robustness_section(run: RunSummary) -> Section:
    """Top-1 under corruptions: mean over severities as bars and numbers, and every severity on demand."""
    models = [scores for scores in run.scored_models() if scores.corruptions]
    if not models or run.evaluation is None:
        reason = not_run(run, "evaluate") if run.evaluation is None else Note("The recipe evaluates no corruptions.", "Not run", "idle")
        return Section("robustness", "Robustness", "", (reason,))
    severities = sorted({level for scores in models for levels in scores.corruptions.values() for level in levels})
    reach = f"severities {severities[0]} to {severities[-1]}" if len(severities) > 1 else f"severity {severities[0]}"
    num_corruptions, num_images = formatting.count(len(_corruption_names(models))), formatting.count(run.evaluation.num_corruption_images)
    lead = f"{num_corruptions} corruptions at {reach}, {num_images} test images each."
    conditions = _conditions(models)
    bars = [charts.Bars(scores.name, [values[index] for _, values in conditions]) for index, scores in enumerate(models)]
    chart = Chart(
        "Top-1 under corruption", charts.robustness_bars([name for name, _ in conditions], bars), "Top-1; longer bars are better."
    )
    table = Table(
        title="Top-1 under corruption",
        columns=(Column("Condition"), *(Column(formatting.label(scores.name), numeric=True) for scores in models)),
        rows=tuple(Row((name, *map(formatting.percent, values)), strong=place < 2) for place, (name, values) in enumerate(conditions)),
        caption=f"Top-1, mean over {reach}; higher is better. {run.evaluation.corruption_note}".strip(),
    )
    return Section("robustness", "Robustness", lead, (chart, table, _every_severity(models, severities)))


def parity_section(run: RunSummary) -> Section:
    """Every number of the parity check beside what is allowed."""
    parity = run.parity
    blocks: tuple[Block, ...] = (parity_notice(parity),)
    if run.export and parity.num_images is not None:
        blocks += (_parity_table(parity),)
    lead = "The exported file is run on real test images and compared with the model that was scored."
    return Section("parity", "Parity", lead, blocks)


def latency_section(run: RunSummary) -> Section:
    """Accuracy over latency beside the sizes, and every timed row."""
    where = next((stage.environment.get("cpu", "") for stage in run.stages if stage.name == "profile"), "")
    lead = f"Timed on {where}." if where else ""
    return Section("latency", "Latency and size", lead, (*_accuracy_latency(run), *_sizes(run), _latency_table(run)))


def _accuracy_latency(run: RunSummary) -> tuple[Chart, ...]:
    marks = [mark for row in run.latency if row.batch == 1 and (mark := _mark(run, row))]
    if not marks:
        return ()
    caption = (
        "Up and to the left is better. The area of a marker is the size of its file. The exported model stands at the accuracy it "
        "reached in the parity check; models that were not timed are not drawn."
    )
    return (Chart("Accuracy over latency", charts.accuracy_latency(marks), caption),)


def _latency_table(run: RunSummary) -> Table | Note:
    if not run.latency:
        return not_run(run, "profile")
    columns = ("Model", "Runtime", "Batch", "Threads", "p50 ms", "p90 ms", "p99 ms", "Mean ms", "Min ms", "Images/s", "Samples", "Warm-up")
    rows = sorted(run.latency, key=lambda row: row.batch)
    return Table(
        title="Latency of one call",
        columns=tuple(Column(title, numeric=index > 1) for index, title in enumerate(columns)),
        rows=tuple(_latency_row(row) for row in rows),
        caption="Milliseconds of one call of the network on a whole batch of prepared images. "
        "Lower milliseconds and higher images/s are better. Bold: the file that ships.",
    )


def _sizes(run: RunSummary) -> tuple[Block, ...]:
    """Parameters and bytes of every model and of what ships."""
    rows = [
        Row(
            (f"{formatting.label(scores.name)} weights", formatting.millions(scores.num_parameters), formatting.mib(scores.model_mib)),
            scores.name,
        )
        for scores in run.scored_models()
    ]
    rows += _export_rows(run.export) if run.export else []
    blocks: list[Block] = []
    if rows:
        caption = "Smaller is better."
        caption += f" ONNX operator set {run.export.opset}, SHA-256 {formatting.short(run.export.onnx_sha256)}." if run.export else ""
        blocks.append(
            Table("Size on disk", (Column("What"), Column("Parameters", numeric=True), Column("Size", numeric=True)), tuple(rows), caption)
        )
    return tuple(blocks)


def _corruption_names(models: Sequence[ModelScores]) -> list[str]:
    return list(dict.fromkeys(name for scores in models for name in scores.corruptions))


def _conditions(models: Sequence[ModelScores]) -> list[tuple[str, list[float | None]]]:
    """Name of each condition and top-1 of each model under it: clean, the mean, then every corruption."""
    clean: list[float | None] = [scores.clean.top1 for scores in models]
    rows = [("Clean", clean), ("Mean of corruptions", [scores.mean_corruption_top1 for scores in models])]
    for name in _corruption_names(models):
        rows.append((formatting.label(name), [_mean(scores.corruptions.get(name), _top1) for scores in models]))
    return rows


def _accuracy_row(run: RunSummary, scores: ModelScores) -> Row:
    agreement = run.evaluation.agreement.get(scores.name) if run.evaluation else None
    cells = (
        formatting.label(scores.name),
        formatting.millions(scores.num_parameters),
        formatting.mib(scores.model_mib),
        formatting.percent(scores.clean.top1),
        formatting.percent(run.share_of_teacher(scores.name), 1),
        formatting.percent(scores.clean.top5),
        formatting.significant(scores.clean.nll),
        formatting.percent(scores.clean.ece),
        formatting.percent(agreement, 1),
        formatting.duration(run.train_seconds(scores.name)),
    )
    return Row(cells, model=scores.name, strong=scores.name == "student")


def _budget(run: RunSummary) -> str:
    """What the student and the baseline were given, in seconds, so that the comparison can be judged."""
    parts = []
    stages = [run.training[stage] for stage in STAGES_THAT_TRAIN["student"] if stage in run.training]
    if stages:
        spent = " + ".join(f"{formatting.duration(stage.train_seconds)} {stage.stage} ({stage.method})" for stage in stages)
        parts.append(f"Student: {spent}.")
    if "baseline" in run.training:
        spent = formatting.duration(run.training["baseline"].train_seconds)
        parts.append(f"Baseline: the student’s architecture trained on labels alone for {spent}.")
    if run.teacher:
        parts.append(f"The teacher was not trained in this run (source: {run.teacher.source}).")
    return " ".join(parts)


def _top1(scores: Scores) -> float | None:
    return scores.top1


def _mean(levels: Mapping[int, Scores] | None, of: Callable[[Scores], float | None]) -> float | None:
    """Mean over severities; None where a severity lacks the number."""
    values = [of(scores) for scores in (levels or {}).values()]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _every_severity(models: list[ModelScores], severities: list[int]) -> Table:
    titles = ["Corruption", "Model", *(f"Severity {level}" for level in severities), "Mean top-5", "Mean NLL", "Mean ECE"]
    rows = []
    for corruption in _corruption_names(models):
        for scores in models:
            levels = scores.corruptions.get(corruption, {})
            top1 = [formatting.percent(levels[level].top1 if level in levels else None) for level in severities]
            top5 = formatting.percent(_mean(levels, lambda found: found.top5))
            nll = formatting.significant(_mean(levels, lambda found: found.nll))
            ece = formatting.percent(_mean(levels, lambda found: found.ece))
            cells = (formatting.label(corruption), formatting.label(scores.name), *top1, top5, nll, ece)
            rows.append(Row(cells, strong=scores.name == "student"))
    columns = tuple(Column(title, numeric=index > 1) for index, title in enumerate(titles))
    return Table(
        "Top-1 at every severity",
        columns,
        tuple(rows),
        "Severity columns are top-1; the last three are means over the severities.",
        folded=True,
    )


def _parity_table(parity: Parity) -> Table:
    rows = [
        _parity_row(
            parity,
            "flipped_share",
            f"Decisions that flip ({formatting.count(parity.flipped)} of {formatting.count(parity.num_images)})",
            parity.flipped_share,
        ),
        _parity_row(parity, "max_abs_logit_diff", "Largest logit difference", parity.max_abs_logit_diff),
        _parity_row(parity, "mean_abs_logit_diff", "Mean logit difference", parity.mean_abs_logit_diff),
        _parity_row(parity, "min_cosine", "Smallest cosine of logits", parity.min_cosine),
        _parity_row(parity, "top1_reference", f"Top-1 of {parity.reference or 'the reference'}", parity.top1_reference),
        _parity_row(parity, "top1_candidate", f"Top-1 of {parity.candidate or 'the candidate'}", parity.top1_candidate),
    ]
    num_images = formatting.count(parity.num_images)
    caption = f"{parity.reference} against {parity.candidate} on {num_images} test images. Smaller differences are better."
    columns = (Column("Check"), Column("Measured", numeric=True), Column("Allowed", numeric=True))
    return Table("Parity", columns, tuple(rows), caption)


def _parity_row(parity: Parity, key: str, label: str, measured: float | None) -> Row:
    shown = _UNITS[key]
    allowed = parity.tolerance.get(key)
    if allowed is None:
        return Row((label, shown(measured), "no limit"))
    floor = key.startswith("min_")
    within = measured is not None and (measured >= allowed if floor else measured <= allowed)
    mark = "at least" if floor else "at most"
    return Row((label, shown(measured), f"{mark} {shown(allowed)}"), tone="plain" if within else "bad")


def _mark(run: RunSummary, row: Latency) -> charts.Mark | None:
    """Where a timed row stands in the plot; the exported file brings its own accuracy from the parity check."""
    scores = run.scores(row.model)
    if scores is None or not row.p50_ms > 0:
        return None
    ships = row.model == "student" and row.runtime != "torch" and run.export is not None
    top1 = run.parity.top1_candidate if ships and run.parity.top1_candidate is not None else scores.clean.top1
    size_mib = run.export.onnx_bytes / formatting.MIB if ships and run.export else scores.model_mib
    return charts.Mark(row.model, f"{formatting.label(row.model)}, {row.runtime}", row.p50_ms, top1, size_mib)


def _latency_row(row: Latency) -> Row:
    cells = (
        formatting.label(row.model),
        f"{row.runtime} {row.version}",
        formatting.count(row.batch),
        formatting.count(row.threads),
        *(formatting.significant(value) for value in (row.p50_ms, row.p90_ms, row.p99_ms, row.mean_ms, row.min_ms)),
        formatting.significant(row.images_per_s),
        formatting.count(row.num_samples),
        formatting.count(row.warmup),
    )
    return Row(cells, model=row.model, strong=row.model == "student" and row.runtime != "torch")


def _export_rows(export: Export) -> list[Row]:
    rows = [Row(("Exported model.onnx", formatting.MISSING, formatting.mib(export.onnx_bytes / formatting.MIB)), "student", strong=True)]
    if export.bundle_bytes:
        rows.append(Row(("Whole bundle", formatting.MISSING, formatting.mib(export.bundle_bytes / formatting.MIB))))
    return rows
