"""Read a profile into a Profile; each field is checked here, once."""

from __future__ import annotations

from typing import Literal, cast, get_args

from g2sd_deploy.report.fields import Fields
from g2sd_deploy.report.latency import (
    BlockTime,
    Conditions,
    Energy,
    Figures,
    Histogram,
    LayerGroup,
    LayerTable,
    LayerTime,
    NotMeasured,
    Phases,
    Profile,
    Ratio,
    Roofline,
    Scenario,
    ServerLoad,
    TimedRow,
    TimingVerdict,
)
from g2sd_deploy.report.scores import Interval

Measured = Literal["measured", "not_run"]


def read_profile(fields: Fields) -> Profile:
    """Everything that a profile says.

    Args:
        fields: The object that the profile stage, `g2sd profile --json` and a device write.

    Raises:
        UserError: A field is missing, of another type, or does not fit the others.
    """
    return Profile(
        machine=dict(fields.maybe_child("machine").values),
        conditions=_conditions(fields.child("conditions")),
        reference=fields.maybe_text("reference"),
        rows=tuple(_row(row) for row in fields.children("rows")),
        layers=tuple(_layer_table(table) for table in fields.children("layers")) if fields.has("layers") else (),
    )


def _conditions(fields: Fields) -> Conditions:
    return Conditions(
        verdict=_timing_verdict(fields),
        reasons=fields.texts("reasons") if fields.has("reasons") else (),
        num_rounds=fields.maybe_count("num_rounds"),
        num_void=fields.maybe_count("num_void"),
        voids={reason: fields.maybe_child("voids").count(reason) for reason in fields.maybe_child("voids").values},
        before=dict(fields.maybe_child("before").values),
        after=dict(fields.maybe_child("after").values),
    )


def _row(fields: Fields) -> TimedRow:
    verdict = _timing_verdict(fields)
    return TimedRow(
        model=fields.text("model"),
        variant=fields.maybe_text("variant"),
        runtime=fields.text("runtime"),
        version=fields.maybe_text("version"),
        provider=fields.maybe_text("provider"),
        precision=fields.maybe_text("precision"),
        digest=fields.maybe_text("digest"),
        file_bytes=fields.maybe_count("file_bytes"),
        batch=fields.count("batch"),
        threads=fields.maybe_count("threads"),
        scenario=_scenario(fields),
        verdict=verdict,
        reasons=fields.texts("reasons") if fields.has("reasons") else (),
        # An invalid row has as many of its numbers as there were to take; it is shown struck where all are there.
        figures=_figures(fields) if verdict == "valid" or (verdict == "invalid" and fields.has("mean_ms")) else None,
    )


def _figures(fields: Fields) -> Figures:
    return Figures(
        p50_ms=fields.maybe_number("p50_ms"),
        p90_ms=fields.maybe_number("p90_ms"),
        p99_ms=fields.maybe_number("p99_ms"),
        p999_ms=fields.maybe_number("p999_ms"),
        p50_interval_ms=_interval(fields, "p50_interval_ms"),
        mean_ms=fields.number("mean_ms"),
        min_ms=fields.number("min_ms"),
        images_per_s=fields.number("images_per_s"),
        num_samples=fields.count("num_samples"),
        warmup_calls=fields.maybe_count("warmup_calls"),
        rounds=_rounds(fields),
        histogram=_histogram(fields.child("histogram")) if fields.has("histogram") else None,
        ratio=_ratio(fields.child("ratio")) if fields.has("ratio") else None,
        phases=_phases(fields.maybe_child("phases")),
        energy=_energy(fields.maybe_child("energy")),
        server=_server(fields.child("server")) if fields.has("server") else None,
        streams=fields.maybe_count("streams"),
    )


def _rounds(fields: Fields) -> dict[int, float]:
    medians = fields.number_list("round_p50_ms") if fields.has("round_p50_ms") else ()
    numbers = fields.number_list("round_index") if fields.has("round_index") else tuple(range(len(medians)))
    if len(numbers) != len(medians):
        fields.refuse("round_index", f"{len(medians)} numbers, one for each of round_p50_ms")
    return {int(number): median for number, median in zip(numbers, medians, strict=True)}


def _histogram(fields: Fields) -> Histogram:
    found = Histogram(fields.number_list("edges_ms"), tuple(int(count) for count in fields.number_list("counts")))
    if len(found.edges_ms) != len(found.counts) + 1:
        fields.refuse("edges_ms", f"{len(found.counts) + 1} numbers, one more than counts")
    return found


def _ratio(fields: Fields) -> Ratio:
    return Ratio(fields.text("to"), fields.number("value"), _interval(fields, "interval") or fields.refuse("interval", "two numbers"))


def _phases(fields: Fields) -> Phases | NotMeasured:
    if not _is_measured(fields):
        return NotMeasured(fields.maybe_text("reason"))
    return Phases(fields.number("to_device_ms"), fields.number("compute_ms"), fields.number("from_device_ms"))


def _energy(fields: Fields) -> Energy | NotMeasured:
    if not _is_measured(fields):
        return NotMeasured(fields.maybe_text("reason"))
    return Energy(fields.number("mj_per_image"), fields.maybe_text("source"))


def _server(fields: Fields) -> ServerLoad:
    return ServerLoad(fields.number("rate_per_s"), fields.number("achieved_per_s"), fields.count("num_queries"), fields.maybe_count("seed"))


def _layer_table(fields: Fields) -> LayerTable:
    measured = _is_measured(fields)
    return LayerTable(
        model=fields.text("model"),
        variant=fields.maybe_text("variant"),
        runtime=fields.text("runtime"),
        batch=fields.count("batch"),
        threads=fields.maybe_count("threads"),
        verdict="measured" if measured else "not_run",
        reason=fields.maybe_text("reason"),
        unprofiled_ms=fields.number("unprofiled_ms") if measured else None,
        overhead=fields.maybe_number("overhead"),
        attributed_share=fields.maybe_number("attributed_share"),
        roofline=_roofline(fields.child("roofline")) if fields.has("roofline") else None,
        groups=tuple(_group(group) for group in fields.children("groups")) if fields.has("groups") else (),
        blocks=tuple(_block(block) for block in fields.children("blocks")) if fields.has("blocks") else (),
        layers=tuple(_layer(layer) for layer in fields.children("layers")) if fields.has("layers") else (),
    )


def _roofline(fields: Fields) -> Roofline:
    notes = fields.texts("notes") if fields.has("notes") else ()
    return Roofline(fields.numbers("peak_gflops"), fields.maybe_number("bandwidth_gb_s"), notes)


def _group(fields: Fields) -> LayerGroup:
    return LayerGroup(
        name=fields.text("group"),
        ms=fields.number("ms"),
        share=fields.maybe_number("share"),
        gflop=fields.maybe_number("gflop"),
        mbyte=fields.maybe_number("mbyte"),
        roofline_share=fields.maybe_number("roofline_share"),
        bound=fields.maybe_text("bound"),
        parts=fields.numbers("parts"),
    )


def _block(fields: Fields) -> BlockTime:
    parts = (fields.maybe_number(key) or 0.0 for key in ("attention_ms", "mlp_ms", "norm_ms", "other_ms"))
    return BlockTime(fields.count("block"), *parts)


def _layer(fields: Fields) -> LayerTime:
    return LayerTime(
        name=fields.maybe_text("name"),
        operator=fields.maybe_text("op"),
        group=fields.maybe_text("group"),
        part=fields.maybe_text("part"),
        block=fields.maybe_count("block"),
        ms=fields.number("ms"),
    )


def _interval(fields: Fields, key: str) -> Interval | None:
    if not fields.has(key):
        return None
    ends = fields.number_list(key)
    return (ends[0], ends[1]) if len(ends) == 2 else fields.refuse(key, "two numbers")


def _is_measured(fields: Fields) -> bool:
    """Is it there? What is left out altogether was not run, either."""
    verdict = fields.maybe_text("verdict") or "not_run"
    return verdict == "measured" if verdict in get_args(Measured) else fields.refuse("verdict", "measured or not_run")


def _timing_verdict(fields: Fields) -> TimingVerdict:
    verdict = fields.text("verdict")
    return cast(TimingVerdict, verdict) if verdict in get_args(TimingVerdict) else fields.refuse("verdict", "valid, invalid or not_run")


def _scenario(fields: Fields) -> Scenario:
    scenario = fields.maybe_text("scenario") or "single_stream"
    return cast(Scenario, scenario) if scenario in get_args(Scenario) else fields.refuse("scenario", "single_stream, offline or server")
