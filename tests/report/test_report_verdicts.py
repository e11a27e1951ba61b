"""The top of the page: every verdict, and where things come from."""

from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import read_run
from g2sd_deploy.report.provenance import digests_of, licences_of
from g2sd_deploy.report.verdicts import verdicts_of


def told(run: Any, folder: Path) -> dict[str, tuple[str, str]]:
    """Outcome and reason of each verdict."""
    return {one.subject: (one.outcome, one.reason) for one in verdicts_of(read_run(run.write(folder)))}


def test_every_verdict_of_a_run_is_listed_with_what_it_sums_up(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["specific"]["metrics"]["loss_band"] = {"verdict": "failed", "reason": "the loss left the band at step 120"}
    found = verdicts_of(read_run(full_run.write(tmp_path)))
    assert [(one.subject, one.outcome, one.anchor) for one in found] == [
        ("Parity of the file that ships", "passed", "parity"),
        ("Ways to run it", "passed", "parity"),
        ("Loss band of specific", "failed", "training"),
        ("Latency", "valid", "latency"),
    ]
    assert found[1].parts == (
        ("int8-onnxruntime", "failed"),
        ("fp32-onnxruntime", "passed"),
        ("int8-dynamic-onnxruntime", "passed"),
        ("bf16-openvino", "not_run"),
    )
    assert found[1].reason == "1 failed, 2 passed, 1 not run; fp32-onnxruntime ships."
    assert len(found[3].parts) == 13 and ("student, torch, batch 8", "invalid") in found[3].parts


def test_what_did_not_run_is_listed_as_such(teacher_run: Any, tmp_path: Path) -> None:
    assert told(teacher_run, tmp_path) == {
        "Parity of the file that ships": ("not_run", "The recipe has no stage export."),
        "Latency": ("not_run", "The recipe has no stage profile."),
    }


@pytest.mark.parametrize(
    ("verdicts", "conditions", "outcome"),
    [
        ({"fp32-onnxruntime": "valid", "": "invalid"}, "valid", "valid"),
        ({"fp32-onnxruntime": "invalid", "": "valid"}, "valid", "invalid"),
        ({"fp32-onnxruntime": "valid", "": "valid"}, "invalid", "invalid"),
        ({"fp32-onnxruntime": "not_run", "": "invalid"}, "valid", "invalid"),
        ({"fp32-onnxruntime": "not_run", "": "not_run"}, "valid", "not_run"),
    ],
)
def test_latency_is_invalid_where_the_conditions_or_what_ships_are(
    full_run: Any, tmp_path: Path, verdicts: dict[str, str], conditions: str, outcome: str
) -> None:
    profile = full_run.artifacts["profile"]["metrics"]
    profile["rows"] = [row | {"verdict": verdicts[row["variant"]]} for row in profile["rows"] if row["variant"] in verdicts]
    profile["conditions"]["verdict"] = conditions
    assert told(full_run, tmp_path)["Latency"][0] == outcome


def test_no_way_that_passed_is_a_failure(full_run: Any, tmp_path: Path) -> None:
    for one in full_run.artifacts["export"]["metrics"]["candidates"]:
        one["verdict"] = "failed"
    assert told(full_run, tmp_path)["Ways to run it"][0] == "failed"


@pytest.mark.parametrize(("first", "outcome"), [("not_run", "not_run"), ("failed", "failed")])
def test_ways_that_nothing_here_can_run_are_no_failure(full_run: Any, tmp_path: Path, first: str, outcome: str) -> None:
    candidates = full_run.artifacts["export"]["metrics"]["candidates"]
    for one in candidates:
        one["verdict"] = "not_run"
    candidates[0]["verdict"] = first
    assert told(full_run, tmp_path)["Ways to run it"][0] == outcome


def test_licences_are_those_of_the_bundle_and_for_the_teacher_those_of_the_catalogue(full_run: Any, tmp_path: Path) -> None:
    assert licences_of(read_run(full_run.write(tmp_path / "bundle"))) == {
        "code": "Apache-2.0 AND MIT",
        "model": "Apache-2.0",
        "data": "MIT",
        "teacher": "MIT",
    }
    full_run.manifest["licences"]["teacher"] = "CC-BY-NC-4.0"
    assert licences_of(read_run(full_run.write(tmp_path / "stated")))["teacher"] == "CC-BY-NC-4.0"


def test_everything_that_the_result_was_made_from_has_its_digest(full_run: Any, tmp_path: Path) -> None:
    run = full_run.artifacts
    found = digests_of(read_run(full_run.write(tmp_path)))
    assert list(found) == [
        "Recipe",
        "Data: list of files and labels",
        "Teacher, masked: masked.safetensors",
        "Teacher, classifier: classifier.safetensors",
        "Generic: model.safetensors",
        "Specific: model.safetensors",
        "Baseline: model.safetensors",
        "Shipped file: models/fp32.onnx",
        "Bundle: manifest.json",
    ]
    assert found["Shipped file: models/fp32.onnx"] == run["export"]["metrics"]["model_sha256"]
    assert all(len(digest) == 64 for digest in found.values())


def test_reasons_that_differ_in_their_amounts_are_told_once(full_run: Any, tmp_path: Path) -> None:
    rows = full_run.artifacts["profile"]["metrics"]["rows"]
    for amount, row in zip((38, 45.5, 9), [row for row in rows if row["verdict"] == "valid"], strict=False):
        row.update(verdict="invalid", reasons=[f"the latency drifted by -{amount} % over the rounds"])
    latency = verdicts_of(read_run(full_run.write(tmp_path)))[-1]
    assert "3 rows: the latency drifted by -45.5 to -9 % over the rounds" in latency.reason
    assert latency.reason.count("drifted") == 1
