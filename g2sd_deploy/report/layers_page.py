"""Section about where in the model the time goes: blocks, kinds of layers, single layers."""

from __future__ import annotations

from g2sd_deploy.report import charts_latency, formatting
from g2sd_deploy.report.document import Block, Chart, Column, Gallery, Row, Section, Table
from g2sd_deploy.report.latency import LayerTable
from g2sd_deploy.report.scores import shown_name
from g2sd_deploy.report.summary import RunSummary
from g2sd_deploy.report.verdicts import sentence

MAX_LAYERS = 20
_NAMES = {"mlp": "MLP"}
_LEAST = 0.001  # GFLOP or MB


def layers_section(run: RunSummary) -> Section | None:
    """Time by block, by kind of layer and by layer of every model that was looked into; None where none was asked for."""
    tables = run.profile.layers if run.profile else ()
    if not tables:
        return None
    measured = [table for table in tables if table.verdict == "measured"]
    drawn = tuple(_chart(index, table) for index, table in enumerate(measured) if table.blocks)
    blocks: list[Block] = [Gallery(drawn)] if drawn else []
    ships = run.export.default if run.export else ""
    blocks += [_groups(table, folded=len(measured) > 1 and table.variant != ships) for table in measured if table.groups]
    blocks += [_slowest(table) for table in measured if table.layers]
    if missing := [table for table in tables if table.verdict == "not_run"]:
        rows = tuple(Row((_name(table), sentence(table.reason or "no reason was recorded")), tone="idle") for table in missing)
        blocks.append(Table(f"Not looked into ({len(missing)})", (Column("Model"), Column("Why")), rows, folded=True))
    lead = (
        "Shares come from the runtime’s own profiler, which slows a model down; times are scaled to a call without it. "
        "“Between layers” is what no layer accounts for: dispatch and copies."
    )
    return Section("blocks", "Time by block", lead, tuple(blocks))


def _name(table: LayerTable) -> str:
    return f"{shown_name(table.model)}, {table.way}, batch {table.batch}"


def _chart(index: int, table: LayerTable) -> Chart:
    name = _name(table)
    caption = f"One call takes {formatting.milliseconds(table.unprofiled_ms)}"
    caption += f", under the profiler {table.overhead:.2f} times that." if table.overhead is not None else "."
    return Chart(name, charts_latency.block_bars(f"blocks-{index}", f"Time by block of {name}", table.blocks), caption)


def _groups(table: LayerTable, *, folded: bool) -> Table:
    """Time, work and distance from the roofline of each kind of layer."""
    columns = ("Layers", "ms", "Share", "GFLOP", "MB", "Of the roofline", "Bound by")
    rows = tuple(
        Row(
            (
                _NAMES.get(group.name, formatting.label(group.name)),
                formatting.significant(group.ms),
                formatting.percent(group.share, 1),
                _work(group.gflop),
                _work(group.mbyte),
                formatting.percent(group.roofline_share, 0),
                group.bound or formatting.MISSING,
            )
        )
        for group in table.groups
    )
    caption = (
        "Of the roofline: speed over the most that arithmetic or memory of this machine allows; more than that comes out of its caches."
    )
    if table.attributed_share is not None:
        caption += f" {formatting.percent(table.attributed_share, 1)} of the time belongs to a layer of the model."
    if table.roofline:
        peaks = [f"{formatting.significant(peak)} GFLOP/s in {name}" for name, peak in table.roofline.peak_gflops.items()]
        peaks += [f"{formatting.significant(table.roofline.bandwidth_gb_s)} GB/s"] if table.roofline.bandwidth_gb_s is not None else []
        caption += f" Measured on this machine: {formatting.listed(peaks)}." if peaks else ""
        caption += "".join(f" {sentence(note)}" for note in table.roofline.notes)
    titled = tuple(Column(title, numeric=0 < index < 6) for index, title in enumerate(columns))
    return Table(f"Time by kind of layer, {_name(table)}", titled, rows, caption, folded).without_empty_columns()


def _work(value: float | None) -> str:
    """Three digits, unless it is too little to matter."""
    return f"< {_LEAST}" if value is not None and 0 < value < _LEAST else formatting.significant(value)


def _slowest(table: LayerTable) -> Table:
    """The layers that take longest, folded."""
    slowest = sorted(table.layers, key=lambda layer: -layer.ms)[:MAX_LAYERS]
    rows = tuple(
        Row(
            (
                layer.name or formatting.MISSING,
                layer.operator,
                layer.group,
                layer.part,
                formatting.MISSING if layer.block is None else str(layer.block),
                formatting.significant(layer.ms),
            )
        )
        for layer in slowest
    )
    columns = (
        Column("Layer"),
        Column("Operator"),
        Column("Group"),
        Column("Part"),
        Column("Block", numeric=True),
        Column("ms", numeric=True),
    )
    hidden = len(table.layers) - len(slowest)
    caption = f"The slowest first; {formatting.count(hidden)} more are not shown." if hidden else "The slowest first."
    return Table(f"Slowest layers, {_name(table)}", columns, rows, caption, folded=True).without_empty_columns()
