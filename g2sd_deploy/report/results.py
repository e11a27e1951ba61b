"""Sections about latency and size."""

from g2sd_deploy.report import charts, formatting
from g2sd_deploy.report.document import Block, Chart, Column, Note, Row, Section, Table
from g2sd_deploy.report.headline import sentence
from g2sd_deploy.report.summary import Export, Latency, RunSummary


def not_run(run: RunSummary, stage: str) -> Note:
    """The block that stands in for a stage that did not run."""
    return Note(sentence(run.absent[stage]), "Not run", "idle")


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
    series = run.evaluation.series() if run.evaluation else {}
    rows = [
        Row(
            (f"{formatting.label(scores.name)} weights", formatting.millions(scores.num_parameters), formatting.mib(scores.model_mib)),
            series[scores.name],
        )
        for scores in run.scored_models()
    ]
    rows += _export_rows(run.export) if run.export else []
    blocks: list[Block] = []
    if rows:
        caption = "Smaller is better."
        caption += f" SHA-256 of {run.export.model_file}: {formatting.short(run.export.model_sha256)}." if run.export else ""
        blocks.append(
            Table("Size on disk", (Column("What"), Column("Parameters", numeric=True), Column("Size", numeric=True)), tuple(rows), caption)
        )
    return tuple(blocks)


def _mark(run: RunSummary, row: Latency) -> charts.Mark | None:
    """Where a timed row stands in the plot; the exported file brings its own accuracy from the parity check."""
    scores = run.scores(row.model)
    if scores is None or not row.p50_ms > 0:
        return None
    ships = row.model == "student" and row.runtime != "torch" and run.export is not None
    top1 = run.parity.top1_candidate if ships and run.parity.top1_candidate is not None else scores.clean.top1
    size_mib = run.export.model_bytes / formatting.MIB if ships and run.export else scores.model_mib
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
    return Row(cells, series=charts.series(row.model), strong=row.model == "student" and row.runtime != "torch")


def _export_rows(export: Export) -> list[Row]:
    size = formatting.mib(export.model_bytes / formatting.MIB)
    rows = [Row((f"Exported {export.model_file}", formatting.MISSING, size), "student", strong=True)]
    if export.bundle_bytes:
        rows.append(Row(("Whole bundle", formatting.MISSING, formatting.mib(export.bundle_bytes / formatting.MIB))))
    return rows
