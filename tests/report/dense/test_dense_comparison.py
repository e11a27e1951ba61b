"""Several runs of one task on one page; runs of different tasks are refused."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.report import PairedStudents, Rendered, RunSummary, read_run, render_comparison

STUDENTS, BASELINES = (0.6857, 0.6732, 0.6901), (0.6414, 0.6755, 0.6388)


@pytest.fixture
def study(dense_run: Callable[..., Any], tmp_path: Path) -> Callable[[str], list[RunSummary]]:
    """Three runs that differ in nothing but their seed."""

    def made(task: str) -> list[RunSummary]:
        runs = []
        for seed, (student, baseline) in enumerate(zip(STUDENTS, BASELINES, strict=True)):
            run = dense_run(task)
            run.full.run["resolved"]["seed"] = seed
            for name, value in (("student", student), ("baseline", baseline)):
                model = run.models[name]
                scores, key = (model, "miou") if task == "segmentation" else (model["box"], "ap")
                scores[key] = value
            runs.append(read_run(run.write(tmp_path / f"{task}{seed}")))
        return runs

    return made


def page(runs: Sequence[RunSummary], paired: Sequence[PairedStudents] = ()) -> tuple[Rendered, Any]:
    rendered = render_comparison(runs, [f"/runs/seed{number}" for number in range(len(runs))], paired)
    return rendered, json.loads(rendered.json)


def rows(markdown: str, table: str) -> list[list[str]]:
    text = markdown.partition(f"### {table}\n\n")[2].partition("\n\n")[0]
    return [[cell.strip().strip("*").replace("\\", "") for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


@pytest.mark.parametrize(("task", "measure"), [("segmentation", "mIoU"), ("detection", "Box AP")])
def test_seeds_of_a_study_stand_side_by_side_with_mean_and_spread(
    task: str, measure: str, study: Callable[[str], list[RunSummary]]
) -> None:
    rendered, _ = page(study(task))
    table = rows(rendered.markdown, f"{measure} of each run")
    gains = [student - baseline for student, baseline in zip(STUDENTS, BASELINES, strict=True)]
    assert [row[2:4] for row in table[:3]] == [
        [f"{100 * student:.2f} %", f"{100 * baseline:.2f} %"] for student, baseline in zip(STUDENTS, BASELINES, strict=True)
    ]
    assert table[3] == ["Mean", "71.31 %", *(f"{100 * sum(v) / 3:.2f} %" for v in (STUDENTS, BASELINES)), f"+{100 * sum(gains) / 3:.2f}"]
    spread = [f"{100 * statistics.stdev(values):.2f} pp" for values in (STUDENTS, BASELINES)]
    assert table[4] == ["Standard deviation", "0.00 pp", *spread, f"{100 * statistics.stdev(gains):.2f}"]
    assert "The student is ahead of the baseline in 2 of 3 runs" in rendered.markdown
    assert "The runs differ in nothing but their seed." in rendered.markdown


def test_runs_that_differ_in_more_than_the_seed_have_no_mean(study: Callable[[str], list[RunSummary]]) -> None:
    first, second, third = study("segmentation")
    third.resolved["generic"]["epochs"] = 3  # type: ignore[index]
    rendered, _ = page([first, second, third])
    assert [row[0] for row in rows(rendered.markdown, "mIoU of each run")] == [f"quickstart_segmentation (seed{n})" for n in range(3)]
    assert "Over the seeds" not in rendered.markdown


def test_the_students_and_the_leader_are_told_in_the_measure(study: Callable[[str], list[RunSummary]]) -> None:
    rendered, data = page(study("segmentation"), [PairedStudents(0, 1, "no predictions"), PairedStudents(0, 2, "no predictions")])
    assert data["headline"]["sentence"] == "quickstart_segmentation (seed2) is the most accurate of 3, with 69.01 % mIoU."
    assert data["headline"]["support"].startswith("+0.44 pp over quickstart_segmentation (seed0).")
    assert (data["task"], data["one_test"], data["paired"]) == ("segmentation", True, [])
    students = rows(rendered.markdown, "Students side by side")
    assert [row[3].split()[0] for row in students] == ["68.57", "67.32", "69.01"]
    assert [run["miou"] for run in data["runs"]] == list(STUDENTS)
    assert [run["others"]["baseline"]["miou"] for run in data["runs"]] == list(BASELINES)
    assert data["runs"][0]["share_of_teacher"] == pytest.approx(0.6857 / 0.7131)
    assert "Pair by pair" not in rendered.markdown and "Top-1" not in rendered.markdown


def test_classes_of_all_students_stand_side_by_side(study: Callable[[str], list[RunSummary]]) -> None:
    runs = study("detection")
    rendered, _ = page(runs)
    for key, word in (("box_ap", "Box AP"), ("mask_ap", "Mask AP")):
        found = {row[0]: row[1:] for row in rows(rendered.markdown, f"{word} by class")}
        assert runs[0].dense is not None and "Dress" not in found
        values = runs[0].dense.models["student"].by_class[key]
        assert found["Bag"] == [f"{100 * (values['Bag'] or 0):.1f} %"] * 3
        assert list(found) == sorted(found, key=lambda name: values[name] or 0.0)


def test_runs_of_different_tasks_are_refused(study: Callable[[str], list[RunSummary]], full_run: Any, tmp_path: Path) -> None:
    pixels, objects, classes = study("segmentation")[0], study("detection")[0], read_run(full_run.write(tmp_path / "full"))
    with pytest.raises(UserError, match=r"different tasks \(segmentation: quickstart_segmentation; detection: quickstart_detection\)"):
        page([pixels, objects])
    with pytest.raises(UserError, match=r"classification: quickstart; segmentation: quickstart_segmentation"):
        page([classes, pixels])


def test_other_test_images_are_not_ranked(study: Callable[[str], list[RunSummary]], dense_run: Callable[..., Any], tmp_path: Path) -> None:
    other = dense_run("segmentation")
    other.metrics("data").update(fingerprint="0" * 64, num_test=40)
    rendered, data = page([study("segmentation")[0], read_run(other.write(tmp_path / "other"))])
    assert data["one_test"] is False and data["headline"]["sentence"] == "These runs were tested on different images."
    assert "\n## Class by class\n" not in rendered.markdown
