"""Reading a run folder: typed, tolerant of stages that did not run, and clear about a file that is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.report import read_run, result_table


def test_a_full_run_is_read_whole(full_run: Any, tmp_path: Path) -> None:
    run = read_run(full_run.write(tmp_path))
    assert (run.recipe, run.title, run.command) == ("quickstart", "quickstart", "g2sd run recipes/quickstart.yaml")
    assert [stage.name for stage in run.stages] == ["data", "teacher", "generic", "specific", "baseline", "evaluate", "export", "profile"]
    assert run.absent == {stage: f"the recipe has no stage {stage}" for stage in ("pretrain", "finetune", "quantise")}
    assert run.data is not None and run.data.preview_png.startswith(b"\x89PNG")
    assert len(run.training["generic"].history) == 300 and run.training["generic"].history[0].step == 1
    student = run.scores("student")
    assert student is not None and list(student.corruptions["fog"]) == [1, 2, 3, 4, 5]
    assert run.parity.verdict == "passed" and run.parity.tolerance == {"max_abs_logit_diff": 1e-3, "flipped_share": 0.0}
    assert run.export is not None and run.export.bundle_bytes == 1_935_222 + 2_113 + 14_020
    assert run.profile is not None and len(run.profile.rows) == 13 and run.profile.batches() == (1, 8)


def test_the_title_of_the_recipe_is_used(full_run: Any, tmp_path: Path) -> None:
    full_run.run["resolved"]["report"] = {"title": "Spring release"}
    assert read_run(full_run.write(tmp_path)).title == "Spring release"


def test_latency_is_that_of_the_runtime_that_ships(full_run: Any, tmp_path: Path) -> None:
    run = read_run(full_run.write(tmp_path))
    student, teacher = run.shipped_latency("student"), run.shipped_latency("teacher", batch=8)
    assert student is not None and (student.variant, student.batch) == ("fp32-onnxruntime", 1)
    assert teacher is not None and (teacher.runtime, teacher.batch) == ("torch", 8)
    assert run.shipped_latency("baseline") is None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder: it has no run.json"):
        read_run(tmp_path)


def test_a_run_without_a_finished_stage_is_refused(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts, full_run.histories, full_run.preview = {}, {}, b""
    with pytest.raises(UserError, match="holds no finished stage"):
        read_run(full_run.write(tmp_path))


def test_a_run_with_nothing_but_data_is_read(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts, full_run.histories = {"data": full_run.artifacts["data"]}, {}
    run = read_run(full_run.write(tmp_path))
    assert run.parity.verdict == "not_run" and run.parity.reason == "the recipe has a stage export, but this run has not finished it"


@pytest.mark.parametrize(
    ("stage", "path", "value", "message"),
    [
        (
            "evaluate",
            ("metrics", "models", "student", "clean", "top1"),
            "high",
            "student: clean: top1 is 'high', but the report needs a number",
        ),
        ("evaluate", ("metrics", "models", "student", "num_parameters"), 1.5, "num_parameters is 1.5, but the report needs a whole number"),
        ("evaluate", ("metrics", "models", "student", "corruptions", "fog"), {"hard": {}}, "severities .'hard'., wanted whole numbers"),
        ("export", ("metrics", "parity", "verdict"), "maybe", "the verdict is 'maybe', wanted passed, failed or not_run"),
        ("profile", ("metrics", "rows"), {}, "profile/artifact.json: metrics: rows is {}, but the report needs a list of objects"),
        ("data", ("metrics", "num_train"), True, "num_train is True, but the report needs a whole number"),
        ("data", ("metrics",), None, "data/artifact.json: metrics is None, but the report needs an object"),
    ],
)
def test_a_wrong_field_is_named(full_run: Any, tmp_path: Path, stage: str, path: tuple[str, ...], value: object, message: str) -> None:
    place = full_run.artifacts[stage]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UserError, match=message):
        read_run(full_run.write(tmp_path))


def test_a_missing_field_is_named(full_run: Any, tmp_path: Path) -> None:
    del full_run.artifacts["generic"]["metrics"]["train_seconds"]
    with pytest.raises(UserError, match=r"generic/artifact.json: metrics: train_seconds is missing, but the report needs a number"):
        read_run(full_run.write(tmp_path))


def test_a_cut_off_artifact_is_named(full_run: Any, tmp_path: Path) -> None:
    path = full_run.write(tmp_path) / "export" / "artifact.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(UserError, match=r"export/artifact.json is not JSON"):
        read_run(tmp_path)


def test_a_cut_off_history_names_its_line(full_run: Any, tmp_path: Path) -> None:
    path = full_run.write(tmp_path) / "baseline" / "history.jsonl"
    path.write_text(json.dumps({"step": 1, "epoch": 0.1, "loss": 2.0}) + '\n{"step": 2, "ep')
    with pytest.raises(UserError, match=r"baseline/history.jsonl line 2 is not JSON"):
        read_run(tmp_path)


def printed(run: Any, folder: Path, width: int = 80) -> str:
    console = pytest.importorskip("rich.console").Console(width=width, file=None, color_system=None)
    with console.capture() as capture:
        console.print(result_table(read_run(run.write(folder))))
    return str(capture.get())


def test_the_terminal_table_fits_80_columns_and_holds_the_result(full_run: Any, tmp_path: Path) -> None:
    lines = printed(full_run, tmp_path).splitlines()
    assert "…" not in "".join(lines)
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split() and line.split()[0] in ("teacher", "student", "baseline")}
    assert rows["teacher"] == ["2.13", "8.13", "92.36", "100.0", "2.10", "78.51", "5.91", "torch"]
    assert rows["student"] == ["0.481", "1.84", "89.44", "96.8", "1.80", "74.53", "0.913", "onnxruntime"]
    assert rows["baseline"] == ["0.481", "1.84", "85.28", "92.3", "3.40", "68.93", "–", "–"]


def test_the_terminal_table_says_what_did_not_run(teacher_run: Any, tmp_path: Path) -> None:
    text = printed(teacher_run, tmp_path)
    assert "parity not run: the recipe has no stage export" in text
    assert [line.split()[1:] for line in text.splitlines() if line.split()[:1] == ["student"]] == [["–"] * 8]


def test_the_terminal_table_shows_a_failed_verdict_and_no_markup(full_run: Any, tmp_path: Path) -> None:
    full_run.artifacts["export"]["metrics"]["parity"].update(verdict="failed", reason="[green]fine[/green]")
    assert "parity failed: [green]fine[/green]" in printed(full_run, tmp_path)
