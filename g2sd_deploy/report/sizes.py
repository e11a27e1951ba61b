"""Section about size: parameters and bytes of every model and of what ships."""

from __future__ import annotations

from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Column, Row, Section, Table
from g2sd_deploy.report.scores import series_of
from g2sd_deploy.report.summary import Export, RunSummary


def sizes_section(run: RunSummary) -> Section | None:
    """Weights of each model, the exported file and the bundle; None where nothing has a size yet."""
    series = series_of(run.scored_names())
    rows = [
        Row(
            (f"{formatting.label(name)} weights", formatting.millions(run.num_parameters(name)), formatting.mib(run.model_mib(name))),
            colour,
        )
        for name, colour in series.items()
    ]
    rows += _export_rows(run.export) if run.export else []
    if not rows:
        return None
    columns = (Column("What"), Column("Parameters", numeric=True), Column("Size", numeric=True))
    return Section("size", "Size on disk", "", (Table("Size on disk", columns, tuple(rows), "Smaller is better. Bold: what ships."),))


def _export_rows(export: Export) -> list[Row]:
    size = formatting.mib(export.model_bytes / formatting.MIB)
    rows = [Row((f"Exported {export.model_file}", formatting.MISSING, size), "student", strong=True)]
    if export.bundle_bytes:
        rows.append(Row(("Whole bundle", formatting.MISSING, formatting.mib(export.bundle_bytes / formatting.MIB))))
    return rows
