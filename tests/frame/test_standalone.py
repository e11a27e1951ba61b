"""evaluate, export, profile and report on files that a person names."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

G2sd = Callable[..., Any]
ON = ("--on", "bundled:fashion-mnist", "--max-images", "40")
QUICK = ("--calibration-images", "16", "--not-corrupted", "--timing-seconds", "0.1")
ONLY = ("--only", "fp32-onnxruntime")


def error_of(answer: Any, code: int = 2) -> str:
    assert answer.code == code and answer.err.startswith("error: ") and answer.err.count("\n") == 1, answer.err
    return str(answer.err.removeprefix("error: ").removesuffix("\n"))


def test_an_exported_classifier_is_a_bundle_that_proves_itself(g2sd: G2sd, smoke_run: Any, tmp_path: Path, python: str) -> None:
    out = tmp_path / "new" / "bundle"
    answer = g2sd("export", smoke_run.folder / "specific", *ON, *ONLY, "--out", out, "--json")
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    parity = made["parity"]
    assert (made["bundle"], made["verdict"], parity["flipped"], parity["num_images"]) == (str(out), "passed", 0, 40)
    assert made["default"] == "fp32-onnxruntime" and made["standing"]["float"]["top1"] == made["standing"]["shipped"]["top1"]
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    done = subprocess.run([python, "-B", "-m", "edge", "selftest"], cwd=out, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert error_of(g2sd("export", smoke_run.folder / "specific", *ON, "--out", out)) == (
        f"--out {out}: exists and is not empty; give a new folder for the bundle"
    )


def test_latency_is_measured_per_model_and_batch(g2sd: G2sd, smoke_run: Any) -> None:
    models = [smoke_run.folder / "specific", smoke_run.folder / "export"]
    options = ("--runtime", "onnxruntime", "--batch", "1,2", "--threads", "1", "--seconds", "0.1", "--percentile", "50", "--json")
    answer = g2sd("profile", *models, *options)
    assert answer.code in (0, 1), answer.err  # whether a latency is believed is a matter of the moment
    rows = json.loads(answer.out)["rows"]
    assert {(row["model"], row["variant"], row["batch"], row["threads"]) for row in rows} == {
        (*model, batch, 1) for model in ((str(models[0]), ""), (str(models[1]), "fp32-onnxruntime"), ("reference", "")) for batch in (1, 2)
    }
    assert all(0 < row["min_ms"] <= row["p50_ms"] for row in rows)


def test_a_report_is_written_where_asked_for(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    answer = g2sd("report", smoke_run.folder, "--out", tmp_path / "page")
    assert answer.out.splitlines() == [str(tmp_path / "page" / f"report.{kind}") for kind in ("html", "md", "json")]
    for path in map(Path, answer.out.splitlines()):
        assert path.stat().st_size > 1000
    assert g2sd("report", smoke_run.folder, "--out", tmp_path / "page").code == 0, "a page may be written again"


def test_a_report_of_an_unfinished_run_is_written_into_it(g2sd: G2sd, own_run: Path) -> None:
    for name in ("export", "profile", "report"):
        (own_run / name / "artifact.json").unlink()
    answer = g2sd("report", own_run)
    assert answer.code == 0 and (own_run / "report.html").is_file()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gone.onnx", "{0}: there is no such model; give a classifier (.safetensors), a stage's folder, a bundle, an ONNX file, "),
        ("data", "{0}: holds neither classifier.safetensors nor a bundle's manifest.json; give a classifier (.safetensors), a stage's"),
        ("run.json", "{0}: is a file of no known kind; give "),
        ("generic/generic.safetensors", "{0}: holds a generic model; wanted a classifier model here"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "profile"])
def test_what_is_no_model_is_named(command: str, model: str, message: str, g2sd: G2sd, smoke_run: Any) -> None:
    path = smoke_run.folder / model
    arguments = (command, path, *ON) if command == "evaluate" else (command, path)
    assert error_of(g2sd(*arguments)).startswith(message.format(path))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gone", "there is no such model; give a classifier (.safetensors)"),
        ("data", "holds neither classifier.safetensors nor a bundle's manifest.json"),
        ("run.json", "is a file of no known kind"),
        ("export", "is a bundle, which has been exported already; give the classifier it was made from"),
    ],
)
def test_what_cannot_be_exported_is_named(model: str, message: str, g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    path = smoke_run.folder / model
    assert error_of(g2sd("export", path, *ON, "--out", tmp_path / "bundle")).startswith(f"{path}: {message}")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_stage_is_not_scored(g2sd: G2sd, own_run: Path) -> None:
    with (own_run / "specific" / "classifier.safetensors").open("ab") as file:
        file.write(b"\0")
    for command in ("evaluate", "profile"):
        arguments = ON if command == "evaluate" else ()
        assert "so it was changed or cut off after specific wrote it" in error_of(g2sd(command, own_run / "specific", *arguments))
    assert "so it was changed or cut off after specific wrote it" in error_of(
        g2sd("export", own_run / "specific", *ON, "--out", own_run / "new")
    )


@pytest.mark.parametrize("batch", ["", "0", "1;8", "1,-8", "one", "\u0663\u00b2"])
def test_batches_that_are_no_numbers_are_refused(batch: str, g2sd: G2sd, smoke_run: Any) -> None:
    error = error_of(g2sd("profile", smoke_run.folder / "specific", "--batch", batch))
    assert error == f"--batch {batch}: wanted whole numbers above 0 with commas between them, for example 1,8"


def test_a_folder_that_is_no_run_has_no_report(g2sd: G2sd, tmp_path: Path) -> None:
    assert "is not a run folder: it has no run.json" in error_of(g2sd("report", tmp_path))


def test_an_output_that_cannot_be_written_is_named(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "sub"
    for answer in (g2sd("report", smoke_run.folder, "--out", out), g2sd("export", smoke_run.folder / "specific", *ON, *ONLY, "--out", out)):
        assert re.fullmatch(rf"--out {re.escape(str(out))}: cannot be written \(.+\); give a folder you may write to", error_of(answer))


def test_int8_is_never_calibrated_on_the_images_that_judge_it(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    command = ("export", smoke_run.folder / "specific", *ON, "--calibrate-split", "test", "--out", tmp_path / "bundle")
    assert error_of(g2sd(*command)) == (
        "--calibrate-split test: INT8 would be calibrated on the images that judge it; give another split, or other images with "
        "--calibrate-on"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "cpu-x68"), "there is no target cpu-x68; did you mean cpu-x86?"),
        (("--only", "fp64"), "target cpu-x86 has no candidate fp64; its candidates are int8-bf16-openvino, "),
    ],
)
def test_a_target_or_candidate_that_does_not_exist_is_named(
    arguments: tuple[str, ...], message: str, g2sd: G2sd, smoke_run: Any, tmp_path: Path
) -> None:
    assert error_of(g2sd("export", smoke_run.folder / "specific", *ON, *arguments, "--out", tmp_path / "bundle")).startswith(message)


def test_targets_are_listed_and_shown(g2sd: G2sd) -> None:
    names = [line.split()[0] for line in g2sd("targets", "list").out.splitlines()]
    assert names == [row["name"] for row in json.loads(g2sd("targets", "list", "--json").out)["targets"]]
    assert "jetson-orin-jp6" in names
    assert "\nname: cpu-arm\n" in g2sd("targets", "show", "cpu-arm").out


def test_every_candidate_of_a_target_gets_a_verdict_and_a_reason(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    answer = g2sd("export", smoke_run.folder / "specific", *ON, *QUICK, "--out", out, "--json")
    assert answer.code == 0, answer.err
    made = json.loads(answer.out)
    assert sum(one["chosen"] for one in made["candidates"]) == 1
    for one in made["candidates"]:
        assert one["verdict"] in ("passed", "failed", "not_run") and made["reasons"][one["name"]], one
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["default"] == made["default"] and manifest["provenance"]["calibration"]["ids"]
    assert len(manifest["provenance"]["candidates"]) == len(made["candidates"]) == 6
