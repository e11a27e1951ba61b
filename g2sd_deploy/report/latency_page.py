"""Section about latency: verdict of the conditions, distributions, every row, copies, and what was not timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from g2sd_deploy.report import charts, charts_latency, formatting
from g2sd_deploy.report.document import Block, Cell, Chart, Column, Gallery, Measured, Note, Row, Section, Table, Tone
from g2sd_deploy.report.latency import Conditions, Energy, Figures, NotMeasured, Phases, Profile, TimedRow, TimingVerdict
from g2sd_deploy.report.machine_page import machine_tables
from g2sd_deploy.report.scores import shown_name
from g2sd_deploy.report.summary import RunSummary
from g2sd_deploy.report.verdicts import not_run, row_name, sentence

_MAX_LISTED = 3  # invalid rows beyond which their reasons are folded
_PERCENTILES = ("p50 ms", "p90 ms", "p99 ms", "p99.9 ms")
_TONES: Mapping[TimingVerdict, Tone] = {"valid": "good", "invalid": "bad", "not_run": "idle"}
_SCENARIOS = {"offline": "Offline: as many images as it can", "server": "Server: requests that arrive at random"}


def latency_section(run: RunSummary) -> Section:
    """Everything that was timed; first whether it can be believed."""
    if run.profile is None:
        return Section("latency", "Latency", "", (not_run(run, "profile"),))
    profile, default = run.profile, run.export.default if run.export else ""
    blocks: list[Block] = [conditions_note(profile.conditions), *_charts(profile)]
    single = [row for row in profile.rows if row.scenario == "single_stream" and row.verdict != "not_run"]
    if single:
        blocks.append(_single_table(profile, single, default))
    for scenario, title in _SCENARIOS.items():
        if rows := [row for row in profile.rows if row.scenario == scenario and row.verdict != "not_run"]:
            blocks.append(_load_table(title, rows))
    blocks += [*_copies(profile), *_invalid(profile), *_not_run(profile), *machine_tables(profile)]
    cpu = profile.machine.get("cpu")
    return Section("latency", "Latency", f"Timed on {cpu}." if cpu else "", tuple(blocks))


def conditions_note(conditions: Conditions) -> Note:
    """Whether the machine was quiet and steady while it was timed, and what rounds were thrown away."""
    parts = [sentence(reason) for reason in conditions.reasons]
    if conditions.num_rounds is not None:
        void = conditions.num_void or 0
        kept = conditions.num_rounds - void
        parts.append(f"{formatting.count(kept)} of {_number(conditions.num_rounds, 'round')} count, {formatting.count(void)} void.")
    if conditions.verdict == "valid":  # else the reasons have said so
        parts += [f"{_number(count, 'round')}: {reason}." for reason, count in conditions.voids.items()]
    title = f"Conditions {conditions.verdict.replace('_', ' ')}"
    return Note(" ".join(parts) or "Nothing disturbed the measurement.", title, _TONES[conditions.verdict])


def _charts(profile: Profile) -> tuple[Gallery, ...]:
    """For each batch size how the samples spread, and how the rounds went."""
    drawn: list[Chart] = []
    for batch in profile.batches():
        rows = [_drawn(row) for row in profile.believed(batch=batch) if row.p50_ms]
        if any(row.histogram and sum(row.histogram.counts) for row in rows):
            svg = charts_latency.distributions(f"latency-{batch}", f"Latency at batch {batch}", rows)
            caption = "Each row to its own height; the line is its median, on the right in numbers. The slowest 0.5 % are not drawn."
            drawn.append(Chart(f"Latency at batch {batch}", svg, caption))
        if any(len(row.rounds) > 1 for row in rows):
            svg = charts_latency.courses(f"rounds-{batch}", f"Rounds at batch {batch}", [row for row in rows if len(row.rounds) > 1])
            caption = "Median of each round against the row’s; on the right the furthest. Bands: rounds that are void."
            drawn.append(Chart(f"Medians of rounds, batch {batch}", svg, caption))
    return (Gallery(tuple(drawn), wide=True),) if drawn else ()


def _drawn(row: TimedRow) -> charts_latency.Timed:
    figures = row.believed
    assert figures is not None and figures.p50_ms is not None, "only rows to believe are drawn"
    text = f"{shown_name(row.model)}, {row.way}"
    return charts_latency.Timed(text, charts.series(row.model), figures.p50_ms, figures.histogram, figures.rounds)


def _single_table(profile: Profile, rows: Sequence[TimedRow], default: str) -> Table:
    """One call at a time: percentiles, ratio, throughput, energy."""
    names = ("Model", "Way", "Batch", *_PERCENTILES, "Ratio", "Images/s", "mJ/image", "Threads", "Samples")
    ordered = sorted(rows, key=lambda row: row.batch)
    caption = (
        "Milliseconds of one call of the network on a whole batch of prepared images; small: the 95 % interval. "
        "An en dash: too few samples for that percentile. Bold: the file that ships."
    )
    if any(row.believed and row.believed.ratio for row in rows):
        caption += f" Ratio: p50 over that of {profile.reference}, paired by round, with its 95 % interval; below 1 is faster."
    if any(row.verdict == "invalid" for row in rows):
        caption += " Struck: invalid, not used anywhere."
    caption += _energy_words(rows)
    return Table(
        "Latency of one call",
        tuple(Column(name, numeric=index > 1) for index, name in enumerate(names)),
        tuple(_single_row(row, default) for row in ordered),
        caption,
    ).without_empty_columns()


def _single_row(row: TimedRow, default: str) -> Row:
    figures = row.figures
    cells: tuple[Cell, ...] = (
        shown_name(row.model),
        _way(row),
        formatting.count(row.batch),
        *_figure_cells(figures, with_ratio=row.verdict == "valid"),
        formatting.count(row.threads),
        formatting.count(figures.num_samples if figures else None),
    )
    return Row(cells, series=charts.series(row.model), strong=bool(default) and row.variant == default, tone=_tone(row))


def _way(row: TimedRow) -> Cell:
    """What ran it; under the name of a bundle's variant the runtime with its version."""
    runtime = " ".join(filter(None, (row.runtime, row.version, row.how)))
    return Measured(row.variant, runtime) if row.variant else runtime


def _figure_cells(figures: Figures | None, *, with_ratio: bool) -> tuple[Cell, ...]:
    if figures is None:
        return (formatting.MISSING,) * 7
    p50 = formatting.significant(figures.p50_ms)
    ratio = figures.ratio if with_ratio else None
    return (
        Measured(p50, _ends(figures.p50_interval_ms)) if figures.p50_interval_ms else p50,
        *(formatting.significant(value) for value in (figures.p90_ms, figures.p99_ms, figures.p999_ms)),
        Measured(formatting.significant(ratio.value), formatting.number_range(ratio.interval)) if ratio else formatting.MISSING,
        formatting.significant(figures.images_per_s),
        formatting.significant(figures.energy.mj_per_image) if isinstance(figures.energy, Energy) else formatting.MISSING,
    )


def _load_table(title: str, rows: Sequence[TimedRow]) -> Table:
    """Offline and server rows: what was asked for, what was served, and the tail."""
    names = ("Model", "Way", "Batch", "Threads", "Streams", "Asked for, 1/s", "Served, 1/s", "Images/s", *_PERCENTILES)
    served = rows[0].scenario == "server"
    return Table(
        title,
        tuple(Column(name, numeric=index > 1) for index, name in enumerate(names)),
        tuple(_load_row(row) for row in rows),
        "Milliseconds from the arrival of a request to its answer." if served else "Batches back to back on every stream.",
    ).without_empty_columns()


def _load_row(row: TimedRow) -> Row:
    figures, missing = row.figures, formatting.MISSING
    server = figures.server if figures else None
    numbers = (figures.images_per_s, figures.p50_ms, figures.p90_ms, figures.p99_ms, figures.p999_ms) if figures else (None,) * 5
    cells = (
        shown_name(row.model),
        row.way,
        formatting.count(row.batch),
        formatting.count(row.threads),
        formatting.count(figures.streams) if figures else missing,
        formatting.significant(server.rate_per_s) if server else missing,
        formatting.significant(server.achieved_per_s) if server else missing,
        *(formatting.significant(value) for value in numbers),
    )
    return Row(cells, series=charts.series(row.model), tone=_tone(row))


def _copies(profile: Profile) -> tuple[Block, ...]:
    """Copies to and from the device, apart from the work, where the device has memory of its own."""
    found = [(row, figures.phases) for row in profile.rows if (figures := row.believed) and isinstance(figures.phases, Phases)]
    if not found:
        return ()
    rows = tuple(
        Row(
            (
                _full_name(row),
                *(formatting.significant(value) for value in (phases.to_device_ms, phases.compute_ms, phases.from_device_ms)),
            ),
            series=charts.series(row.model),
        )
        for row, phases in found
    )
    columns = (Column("Row"), *(Column(title, numeric=True) for title in ("To the device, ms", "Work, ms", "From the device, ms")))
    caption = "One call timed in parts; the parts need not add up to the median above."
    return (Table("Copies to and from the device", columns, rows, caption),)


def _invalid(profile: Profile) -> tuple[Block, ...]:
    """Why rows are struck."""
    rows = [row for row in profile.rows if row.verdict == "invalid"]
    return _reasons("Invalid rows", rows, folded=len(rows) > _MAX_LISTED)


def _not_run(profile: Profile) -> tuple[Block, ...]:
    """What was not timed, and why, folded."""
    rows = [row for row in profile.rows if row.verdict == "not_run"]
    return _reasons("Not timed", rows, folded=True)


def _reasons(title: str, rows: Sequence[TimedRow], *, folded: bool) -> tuple[Block, ...]:
    if not rows:
        return ()
    listed = tuple(Row((_full_name(row), sentence("; ".join(row.reasons) or "no reason was recorded")), tone="idle") for row in rows)
    return (Table(f"{title} ({len(rows)})", (Column("Row"), Column("Why")), listed, folded=folded),)


def _energy_words(rows: Sequence[TimedRow]) -> str:
    """Where the energy was read, or why it was not."""
    energies = [row.figures.energy for row in rows if row.figures]
    sources = _distinct(energies, lambda one: one.source if isinstance(one, Energy) else "")
    reasons = _distinct(energies, lambda one: one.reason if isinstance(one, NotMeasured) else "")
    told = f" mJ/image: energy of one image, from {formatting.listed(sources)}; smaller is better." if sources else ""
    return told + (f" Energy was not measured: {'; '.join(reasons).rstrip('.')}." if reasons and not sources else "")


def _distinct(energies: Sequence[Energy | NotMeasured], of: Callable[[Energy | NotMeasured], str]) -> list[str]:
    return list(dict.fromkeys(text for one in energies if (text := of(one))))


def _ends(ends: tuple[float, float]) -> str:
    return "–".join(formatting.significant(end) for end in ends)


def _number(count: int, noun: str) -> str:
    return f"{formatting.count(count)} {noun}" + ("" if count == 1 else "s")


def _full_name(row: TimedRow) -> str:
    """'Student, int8-openvino, batch 8'."""
    return row_name(replace(row, model=shown_name(row.model)))


def _tone(row: TimedRow) -> Tone:
    return "void" if row.verdict == "invalid" else "plain"
