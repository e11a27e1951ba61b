"""Sections about how the result came to be and how to use it: bundle, data, training, stages, environment."""

import base64
import json
from collections.abc import Sequence

from g2sd_deploy.report import charts, charts_terms, formatting
from g2sd_deploy.report.document import Block, Chart, Code, Column, Facts, Gallery, Image, Note, Row, Section, Table, Tone
from g2sd_deploy.report.summary import TRAINING_STAGES, DataFacts, Rounding, RunSummary, StageRecord, Training
from g2sd_deploy.report.verdicts import not_run, sentence

MAX_CLASS_NAMES = 20
_PACKAGES = {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}  # of runtimes other than ONNX Runtime


def bundle_section(run: RunSummary) -> Section:
    """Commands that check and use the bundle on a device."""
    title = "Using the bundle"
    if run.export is None:
        return Section("bundle", title, "", (not_run(run, "export"),))
    package = _PACKAGES.get(next((one.runtime for one in run.export.candidates if one.chosen), ""), "onnxruntime")
    commands = [
        f"cd export/{run.export.bundle}",
        f"python -m pip install numpy pillow {package}",
        "python -m edge selftest",
        "python -m edge predict IMAGE",
    ]
    lead = (
        f"The bundle is a folder to copy to the device; it needs Python with numpy, Pillow and {package}, and no torch. "
        "Start in the run folder."
    )
    blocks: list[Block] = [Code("Check and use", "\n".join(commands), "sh")]
    if run.parity.verdict != "passed":
        blocks.insert(
            0, Note("This bundle is not proven equal to the model that was scored. See Parity.", "Parity has not passed", _tone(run))
        )
    return Section("bundle", title, lead, tuple(blocks))


def data_section(run: RunSummary) -> Section:
    """What the images are, with samples."""
    data = run.data
    if data is None:
        return Section("data", "Data", "", (not_run(run, "data"),))
    colour = {1: "grey", 3: "RGB"}.get(data.num_channels, f"{data.num_channels} channels")
    shown = ", ".join(data.class_names[:MAX_CLASS_NAMES])
    hidden = len(data.class_names) - MAX_CLASS_NAMES
    facts = Facts(
        (
            ("Training images", formatting.count(data.num_train)),
            ("Test images", formatting.count(data.num_test) + _objects(data)),
            ("Image", f"{data.image_px} × {data.image_px} px, {colour}"),
            ("Classes", f"{formatting.count(data.num_classes)}: {shown}" + (f" and {formatting.count(hidden)} more" if hidden > 0 else "")),
            ("Fingerprint", formatting.short(data.fingerprint)),
        )
    )
    blocks: tuple[Block, ...] = (facts,)
    if data.preview_png:
        uri = "data:image/png;base64," + base64.b64encode(data.preview_png).decode("ascii")
        blocks = (Image(uri, "Sample images."), facts)
    return Section("data", "Data", data.description, blocks)


def _objects(data: DataFacts) -> str:
    return "" if data.num_test_objects is None else f" with {formatting.count(data.num_test_objects)} objects"


def training_section(run: RunSummary) -> Section:
    """Loss curve and cost of every training stage."""
    stages = [run.training[stage] for stage in TRAINING_STAGES if stage in run.training]
    if not stages:
        return Section(
            "training", "Training", "", (Note(" ".join(sentence(run.absent[name]) for name in TRAINING_STAGES), "Not run", "idle"),)
        )
    curves = tuple(chart for stage in stages if charts.drawable(stage.history) for chart in (_curve(stage), *_terms(stage)))
    titles = ("Stage", "Method", "Loss, first", "Loss, final", "Parameters", "Weights", "Images seen", "Images/s", "Time", "Device")
    table = Table(
        title="Cost of training",
        columns=tuple(Column(title, numeric=index > 1) for index, title in enumerate(titles)),
        rows=tuple(_training_row(stage) for stage in stages),
    )
    missing = [name for name in TRAINING_STAGES if name not in run.training and _expected(run, name)]
    absent = (Note(" ".join(sentence(run.absent[name]) for name in missing), "Not run", "idle"),) if missing else ()
    lead = "Losses of different stages measure different things: compare their course, not their height."
    notes = tuple(note for stage in stages for note in _training_notes(stage))
    return Section("training", "Training", lead, (*notes, *((Gallery(curves),) if curves else ()), table, *absent))


def _training_notes(training: Training) -> list[Note]:
    """What a person was warned of, and the verdict on the course of the loss."""
    name = formatting.label(training.stage)
    notes = [Note(text, f"{name}: warning", "bad") for text in training.warnings]
    if training.loss_band is not None:
        verdict, reason = training.loss_band
        notes.append(Note(reason, f"{name}: loss band {verdict.replace('_', ' ')}", "good" if verdict == "passed" else "idle"))
    if training.rounding is not None:
        notes.append(_rounding_note(name, training.rounding))
    return notes


def stages_section(run: RunSummary) -> Section:
    """The recipe, and every stage with its time and digest."""
    columns = (Column("Stage"), Column("Result"), Column("Time", numeric=True), Column("Finished"), Column("Artifact"), Column("Made from"))
    ran = {stage.name: _stage_row(stage) for stage in run.stages}
    rows = [
        *ran.values(),
        *(Row((formatting.label(stage), "not run", "–", "–", "–", reason), tone="idle") for stage, reason in run.absent.items()),
    ]
    total = formatting.duration(sum(stage.seconds for stage in run.stages))
    table = Table("Stages", columns, tuple(rows), f"All stages together took {total}. Artifact: the first 12 characters of its digest.")
    facts = Facts((("Recipe", run.recipe), ("Recipe, SHA-256", formatting.short(run.recipe_sha256))))
    blocks: list[Block] = [facts, table]
    if run.command:
        blocks.insert(1, Code("Command", run.command, "sh"))
    if run.resolved:
        resolved = json.dumps(run.resolved, indent=2, ensure_ascii=False, default=str)
        blocks.append(Code("Resolved recipe", resolved, "json", folded=True))
    return Section("stages", "What was run", "", tuple(blocks))


def environment_section(run: RunSummary) -> Section:
    """The machine and the versions; a fact on which stages differ is listed once per value."""
    environment = _merged(run, "environment")
    tools = _merged(run, "tools")
    tables = tuple(
        Table(title, (Column("What"), Column("Value")), tuple(Row(row) for row in rows))
        for title, rows in (("Machine", environment), ("Versions", tools))
        if rows
    )
    return Section("environment", "Environment", "", tables)


def _tone(run: RunSummary) -> Tone:
    return "bad" if run.parity.verdict == "failed" else "idle"


def _expected(run: RunSummary, stage: str) -> bool:
    """Is it worth a word that this stage is missing? Not the teacher's stages where a finished teacher was given, nor one few ask for."""
    if stage == "quantise":
        return run.resolved.get(stage) is not None
    return not (run.teacher and stage in ("pretrain", "finetune"))


def _rounding_note(name: str, rounding: Rounding) -> Note:
    top1 = [formatting.percent(value) for value in (rounding.top1_float, rounding.top1_before, rounding.top1_after)]
    won = "" if rounding.recovered is None else f"; {formatting.percent(rounding.recovered, 0)} of the loss was won back"
    text = (
        f"Top-1 of the student on {formatting.count(rounding.num_images)} training images that were held out: {top1[0]} in float, "
        f"{top1[1]} rounded to {rounding.bits} bits, {top1[2]} rounded after training{won}."
    )
    return Note(text, f"{name}: rounding", "idle")


def _curve(training: Training) -> Chart:
    drawn = len(charts.drawable(training.history))
    skipped = sum(1 for point in training.history if point.loss != point.loss or abs(point.loss) == float("inf"))
    caption = f"{formatting.label(training.method)}. Thin: logged steps; bold: their running mean. Lower is better."
    caption += f" {skipped} steps without a finite loss are not drawn." if skipped else ""
    caption += f" {drawn} of {len(training.history)} points are drawn." if drawn + skipped < len(training.history) else ""
    return Chart(formatting.label(training.stage), charts.loss_curve(training.stage, training.history), caption)


def _terms(training: Training) -> tuple[Chart, ...]:
    """The parts of the loss, where it has several."""
    names = list(dict.fromkeys(name for point in training.history for name in point.terms))
    lines = charts_terms.drawable_terms(training.history)
    if len(names) < 2 or not lines:
        return ()
    caption = "Running means of what the loss is the sum of, weights applied." + _undrawn(names, lines)
    return (Chart(f"{formatting.label(training.stage)}, by term", charts_terms.term_curves(training.stage, lines), caption),)


def _undrawn(names: Sequence[str], lines: Sequence[charts_terms.TermLine]) -> str:
    """Which terms have no line, and why."""
    missing = [charts_terms.term_name(name) for name in names if name not in {line.name for line in lines}]
    return f" Zero or not finite throughout, and not drawn: {formatting.listed(missing)}." if missing else ""


def _training_row(training: Training) -> Row:
    cells = (
        formatting.label(training.stage),
        formatting.label(training.method),
        formatting.loss(training.first_loss),
        formatting.loss(training.final_loss),
        formatting.millions(training.num_parameters),
        formatting.mib(training.model_bytes / formatting.MIB),
        formatting.count(training.images_seen),
        formatting.significant(training.images_per_s),
        formatting.duration(training.train_seconds),
        training.device or formatting.MISSING,
    )
    return Row(cells, series=charts.stage_series(training.stage))


def _stage_row(stage: StageRecord) -> Row:
    parents = ", ".join(f"{name} {formatting.short(digest)}" for name, digest in stage.parents.items())
    cells = (
        formatting.label(stage.name),
        "done",
        formatting.duration(stage.seconds),
        formatting.moment(stage.finished_at),
        formatting.short(stage.digest),
        parents or formatting.MISSING,
    )
    return Row(cells)


def _merged(run: RunSummary, what: str) -> list[tuple[str, str]]:
    """Name and value of each fact; where stages differ, the value names its stages."""
    seen: dict[str, dict[str, list[str]]] = {}
    for stage in run.stages:
        found = stage.environment if what == "environment" else stage.tools
        for name, value in found.items():
            seen.setdefault(name, {}).setdefault(value, []).append(stage.name)
    rows = []
    for name, values in seen.items():
        for value, stages in values.items():
            rows.append((name, value if len(values) == 1 else f"{value} ({', '.join(stages)})"))
    return rows
