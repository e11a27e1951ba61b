"""Section about where things come from: licences, and the digests by which every file can be told from another."""

from __future__ import annotations

from collections.abc import Iterator

from g2sd_deploy.report import formatting
from g2sd_deploy.report.document import Block, Column, Row, Section, Table
from g2sd_deploy.report.summary import TRAINING_STAGES, RunSummary, TeacherFacts

UNKNOWN = "unknown"


def provenance_section(run: RunSummary) -> Section:
    """Teacher, licences and full digests."""
    blocks: list[Block] = [_teacher_table(run.teacher)] if run.teacher and run.teacher.files else []
    if licences := licences_of(run):
        rows = tuple(Row((formatting.label(what), name), tone="idle" if name == UNKNOWN else "plain") for what, name in licences.items())
        caption = "As the bundle and the catalogue of teachers state them; SPDX names where there are any."
        blocks.append(Table("Licences", (Column("Of"), Column("Licence")), rows, caption))
    digests = tuple(Row(pair) for pair in digests_of(run).items())
    caption = "The same file has the same digest, as sha256sum tells it."
    blocks.append(Table("Digests", (Column("What"), Column("SHA-256")), digests, caption))
    return Section("provenance", "Provenance", "What this result was made from, and under which terms.", tuple(blocks))


def licences_of(run: RunSummary) -> dict[str, str]:
    """Licence of the code, the model, the data and the teacher, as far as anybody says."""
    found = dict(run.export.licences) if run.export else {}
    of_teacher = {file.licence for file in run.teacher.files if file.licence} if run.teacher else set()
    if of_teacher and found.get("teacher", UNKNOWN) == UNKNOWN:
        found["teacher"] = formatting.listed(sorted(of_teacher))
    return found


def digests_of(run: RunSummary) -> dict[str, str]:
    """SHA-256 of everything by which the run can be told from another, in the order in which it was made."""
    return {name: digest for name, digest in _digests(run) if digest}


def _digests(run: RunSummary) -> Iterator[tuple[str, str]]:
    yield "Recipe", run.recipe_sha256
    yield "Data: list of files and labels", run.data.fingerprint if run.data else ""
    for file in run.teacher.files if run.teacher else ():
        yield f"Teacher, {file.role}: {file.file}", file.sha256
    for stage in run.stages:
        for name, record in stage.files.items() if stage.name in TRAINING_STAGES else ():
            if name.endswith(".safetensors"):
                yield f"{formatting.label(stage.name)}: {name}", record.sha256
    if run.export:
        yield f"Shipped file: {run.export.model_file}", run.export.model_sha256
        yield "Bundle: manifest.json", run.export.manifest_sha256


def _teacher_table(teacher: TeacherFacts) -> Table:
    rows = tuple(
        Row((formatting.label(file.role), file.source, file.description or formatting.MISSING, file.licence or UNKNOWN))
        for file in teacher.files
    )
    columns = (Column("Role"), Column("Source"), Column("What it is"), Column("Licence"))
    return Table("Teacher", columns, rows, "The teacher was not trained in this run.")
