"""A profile on the terminal."""

from typing import Any

from rich.console import Console

from g2sd_deploy.profiling.table import notes_of, profile_table


def row(model: str, *reasons: str, **values: Any) -> dict[str, Any]:
    told = {"variant": "", "runtime": "torch", "precision": "fp32", "batch": 1, "threads": 2, "scenario": "single_stream"}
    numbers = {"p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": None, "images_per_s": 1000.0, "ratio": None}
    return {"model": model, **told, **numbers, "verdict": "invalid" if reasons else "valid", "reasons": list(reasons), **values}


def profile(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"rows": list(rows), "conditions": {"verdict": "valid", "reasons": [], "num_void": 0, "num_rounds": 10, "voids": {}}}


def test_reasons_that_differ_in_their_amounts_are_told_once_with_the_range() -> None:
    found = profile(
        row("a", "known to within 12.1 % only (wanted 2 %)"),
        row("b", "known to within 4.4 % only (wanted 2 %)", "drifted by -7 %"),
        row("c", "known to within 5 % only (wanted 2 %)"),
    )
    assert notes_of(found) == ["[1] known to within 4.4 to 12.1 % only (wanted 2 %)", "[2] drifted by -7 %"]
    console = Console(width=120)
    with console.capture() as text:
        console.print(profile_table(found))
    verdicts = [line.split("invalid")[1].strip() for line in text.get().splitlines() if "invalid" in line]
    assert verdicts == ["[1]", "[1] [2]", "[1]"]


def test_a_valid_profile_needs_no_notes() -> None:
    assert notes_of(profile(row("a"))) == []
