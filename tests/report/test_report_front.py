"""Accuracy over latency: who is on the front, who beats whom, and at which latency a file stands."""

from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import charts_front, read_run
from g2sd_deploy.report.front import Point, judged, points_of


def point(name: str, top1: float, p50_ms: float) -> Point:
    return Point(name, "student", top1, p50_ms, None)


def test_a_point_is_on_the_front_unless_another_is_as_good_in_both_and_better_in_one() -> None:
    given = [
        point("slow and best", 0.92, 6.0),
        point("beaten", 0.88, 2.0),
        point("fast", 0.85, 0.5),
        point("good", 0.89, 1.0),
        point("as good, slower", 0.89, 1.5),
    ]
    found = judged(given)
    assert [one.name for one in found] == ["fast", "good", "as good, slower", "beaten", "slow and best"]
    assert {one.name: one.beaten_by for one in found if one.beaten_by} == {"as good, slower": "good", "beaten": "good"}


def test_two_equal_points_are_both_on_the_front() -> None:
    assert [one.beaten_by for one in judged([point("a", 0.9, 1.0), point("b", 0.9, 1.0)])] == ["", ""]


def test_models_stand_at_their_own_accuracy_and_files_at_that_of_their_proof(full_run: Any, tmp_path: Path) -> None:
    found = {one.name: (one.top1, one.p50_ms, one.beaten_by, one.ships) for one in points_of(read_run(full_run.write(tmp_path)))}
    assert found == {
        "Student, fp32-onnxruntime": (0.8944, 0.913, "", True),
        "Student, int8-dynamic-onnxruntime": (0.8926, 1.02, "Student, fp32-onnxruntime", False),
        "Student, torch": (0.8944, 2.47, "Student, fp32-onnxruntime", False),
        "Teacher, torch": (0.9236, 5.91, "", False),
    }


def test_a_file_that_the_profile_did_not_time_stands_at_the_latency_of_the_export(full_run: Any, tmp_path: Path) -> None:
    metrics = full_run.artifacts["profile"]["metrics"]
    metrics["rows"] = [row for row in metrics["rows"] if row["variant"] != "int8-dynamic-onnxruntime"]
    found = {one.name: one.p50_ms for one in points_of(read_run(full_run.write(tmp_path)))}
    assert found["Student, int8-dynamic-onnxruntime"] == 1.01


def test_a_file_whose_proof_failed_is_not_among_them(full_run: Any, tmp_path: Path) -> None:
    for one in full_run.artifacts["export"]["metrics"]["candidates"]:
        if one["name"] == "int8-dynamic-onnxruntime":
            one.update(verdict="failed", reason="too much accuracy is lost")
    assert "Student, int8-dynamic-onnxruntime" not in [one.name for one in points_of(read_run(full_run.write(tmp_path)))]


def mark(name: str, latency_ms: float, top1: float, *, on_front: bool = True) -> charts_front.Mark:
    return charts_front.Mark(name, "student", latency_ms, top1, on_front)


@pytest.mark.parametrize("slowest", [1.4, 2_000.0])
def test_the_front_is_named_and_the_beaten_are_not(slowest: float) -> None:
    marks = [mark("fast", 1.0, 0.85), mark("beaten", 1.2, 0.80, on_front=False), mark("good", slowest, 0.92)]
    svg = charts_front.accuracy_latency(marks)
    assert ">fast<" in svg and ">good<" in svg and "beaten<" not in svg
    assert "On the front: fast: 85.00 %, 1.00 ms; good: 92.00 %," in svg and "1 others are beaten." in svg


def test_one_model_alone_is_drawn() -> None:
    assert ">alone<" in charts_front.accuracy_latency([mark("alone", 2.5, 0.9)])


def test_no_name_covers_another() -> None:
    marks = [mark(f"student, way {index}", 1.0 + 0.01 * index, 0.88 + 0.0004 * index) for index in range(4)]
    svg = charts_front.accuracy_latency(marks)
    assert sum(f"way {index}<" in svg for index in range(4)) >= 3
