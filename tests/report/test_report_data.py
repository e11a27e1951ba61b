"""report.json: the page's content for programs, under keys that stay."""

import json
import math
import re
from pathlib import Path
from typing import Any

from g2sd_deploy.report import Rendered, read_run, render_report

KEYS = {
    "": "format kind title recipe description command finished_at headline verdicts figures evaluation front latency export training data "
    "provenance stages absent resolved",
    "headline": "sentence support",
    "figures": "share_of_teacher times_smaller gain_over_baseline p50_ms times_faster",
    "provenance": "licences digests teacher",
    "latency": "machine conditions reference rows layers",
    "latency.conditions": "verdict reasons num_rounds num_void voids before after",
    "latency.rows.0": "model variant runtime version provider precision digest file_bytes batch threads scenario verdict reasons figures",
    "latency.rows.0.figures": "p50_ms p90_ms p99_ms p999_ms p50_interval_ms mean_ms min_ms images_per_s num_samples warmup_calls rounds "
    "histogram ratio phases energy server streams",
    "verdicts.0": "subject verdict reason section parts",
    "front.0": "name series top1 p50_ms num_bytes ships beaten_by",
    "training.generic": "stage method first_loss final_loss num_parameters model_bytes images_seen images_per_s train_seconds device "
    "history warnings loss_band rounding",
}


def at(found: Any, path: str) -> Any:
    """What lies at a dotted path; numbers are places in lists."""
    for key in filter(None, path.split(".")):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def test_the_keys_are_those_that_are_documented(full_report: Rendered) -> None:
    found = json.loads(full_report.json)
    assert {path: " ".join(at(found, path)) for path in KEYS} == KEYS
    documented = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    for path, keys in KEYS.items():
        missing = [key for key in keys.split() if f"`{key}`" not in documented]
        assert missing == [], f"docs/report.md does not name {missing} of {path or 'the report'}"


def test_figures_are_the_numbers_of_the_artifacts(full_report: Rendered) -> None:
    found = json.loads(full_report.json)
    assert (found["format"], found["kind"], found["finished_at"]) == (1, "run", "2026-11-21T18:00:00Z")
    figures = {name: round(value, 6) for name, value in found["figures"].items()}
    assert figures == {
        "share_of_teacher": round(0.8944 / 0.9236, 6),
        "times_smaller": round(2_131_978 / 481_354, 6),
        "gain_over_baseline": round(0.8944 - 0.8528, 6),
        "p50_ms": 0.913,
        "times_faster": round(5.91 / 0.913, 6),
    }
    assert at(found, "evaluation.models.student.corruptions.fog.3.top1") > 0.5
    assert at(found, "latency.rows.0.figures.ratio") is None and at(found, "latency.rows.1.figures.ratio.to") == "reference"


def test_verdicts_are_those_of_the_page(full_report: Rendered) -> None:
    told = [(one["subject"], one["verdict"]) for one in json.loads(full_report.json)["verdicts"]]
    assert told == [("Parity of the file that ships", "passed"), ("Ways to run it", "passed"), ("Latency", "valid")]
    shown = re.findall(r"<b>(?:✓|✗|–) ([\w ]+)</b><div><a href=\"#\w+\">(.*?)</a>", full_report.html)
    assert [(subject, outcome.replace(" ", "_")) for outcome, subject in shown] == told


def test_a_number_that_does_not_exist_is_null(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["generic"]["metrics"].update(final_loss=math.nan, images_per_s=math.inf)
    found = json.loads(render_report(read_run(full_run.write(tmp_path))).json, parse_constant=refuse)
    assert found["training"]["generic"]["final_loss"] is None and found["training"]["generic"]["images_per_s"] is None


def refuse(name: str) -> None:
    """What Python would read and no other program."""
    raise AssertionError(f"{name} is no JSON")


def test_a_run_of_a_teacher_alone_has_the_same_keys(teacher_run: Any, tmp_path: Path) -> None:
    found = json.loads(render_report(read_run(teacher_run.write(tmp_path))).json)
    assert " ".join(found) == KEYS[""]
    assert found["latency"] is None and found["export"] is None and set(found["figures"].values()) == {None}
    assert found["absent"]["export"] == "the recipe has no stage export"
