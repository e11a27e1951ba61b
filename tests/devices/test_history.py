"""Latency over time: ratios between valid measurements only."""

from __future__ import annotations

from typing import Any

from g2sd_deploy.devices.history import series_of
from g2sd_deploy.devices.store import Entry


def row(p50_ms: float | None, verdict: str = "valid", **changes: Any) -> dict[str, Any]:
    reasons = [] if verdict == "valid" else ["another process used 40 % of the processors"]
    values = {"model": "small", "variant": "int8-openvino", "batch": 1, "threads": 2, "scenario": "single_stream", "digest": "ab" * 32}
    return {**values, "runtime": "openvino", "version": "2026.4", "verdict": verdict, "reasons": reasons, "p50_ms": p50_ms, **changes}


def entry(day: int, *rows: dict[str, Any], **machine: Any) -> Entry:
    return Entry(f"2026-11-{day:02d}T10:00:00Z", {"machine": {"cpu": "Cortex-A76", **machine}, "rows": list(rows)})


def test_ratios_refer_to_the_first_and_to_the_valid_one_before() -> None:
    (series,) = series_of("pi", [entry(1, row(10.0)), entry(2, row(12.0)), entry(3, row(9.0))])
    assert [point.to_first for point in series.points] == [None, 1.2, 0.9]
    assert [point.to_previous for point in series.points] == [None, 1.2, 0.75]


def test_an_invalid_measurement_is_shown_and_nothing_is_computed_from_it() -> None:
    entries = [
        entry(1, row(50.0, "invalid")),
        entry(2, row(10.0)),
        entry(3, row(80.0, "invalid", ratio={"value": 3.0})),
        entry(4, row(11.0)),
    ]
    (series,) = series_of("pi", [*entries, entry(5, row(None, "not_run"))])
    assert [point.verdict for point in series.points] == ["invalid", "valid", "invalid", "valid", "not_run"]
    assert [point.to_first for point in series.points] == [None, None, None, 1.1, None]
    assert [point.to_previous for point in series.points] == [None, None, None, 1.1, None]
    assert series.points[2].p50_ms == 80.0
    assert series.points[2].to_reference is None
    assert series.points[2].reasons == ("another process used 40 % of the processors",)


def test_models_variants_batches_and_threads_are_followed_apart() -> None:
    rows = [row(1.0), row(2.0, batch=8), row(3.0, threads=1), row(4.0, variant="fp32-openvino"), row(5.0, model="tiny")]
    found = series_of("pi", [entry(1, *rows), entry(2, *rows)])
    assert [[point.p50_ms for point in series.points] for series in found] == [[value] * 2 for value in (1.0, 2.0, 3.0, 4.0, 5.0)]


def test_a_model_is_found_by_its_name_or_its_digest() -> None:
    entries = [entry(1, row(1.0), row(2.0, model="tiny", digest="cd" * 32))]
    assert [series.model for series in series_of("pi", entries, model="cdcd")] == ["tiny"]
    assert [series.model for series in series_of("pi", entries, model="sma")] == ["small"]
    assert series_of("pi", entries, model="large") == []


def test_what_changed_between_two_measurements_is_said() -> None:
    entries = [
        entry(1, row(1.0), power_mode="15W"),
        entry(2, row(1.0, digest="cd" * 32), power_mode="15W"),
        entry(3, row(1.0, digest="cd" * 32, version="2027.0"), power_mode="30W"),
    ]
    (series,) = series_of("pi", entries)
    assert [point.changed for point in series.points] == [(), ("file",), ("runtime", "power mode")]


def test_the_ratio_to_the_reference_is_of_the_same_session() -> None:
    (series,) = series_of(
        "pi", [entry(1, row(1.0, ratio={"to": "reference", "value": 0.25, "interval": [0.24, 0.26]})), entry(2, row(1.0))]
    )
    assert [point.to_reference for point in series.points] == [0.25, None]
