"""Reading the evaluation of a task: one clear error for each thing that is missing or wrong, and the same numbers as data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from g2sd_deploy.errors import UserError
from g2sd_deploy.report import read_run, result_table
from g2sd_deploy.report.dense_scores import MEASURES


def without(key: str, *path: str) -> Callable[[Any], None]:
    """Takes a field out of the metrics of the evaluation."""

    def change(metrics: Any) -> None:
        for step in path:
            metrics = metrics[step]
        del metrics[key]

    return change


def with_value(value: object, key: str, *path: str) -> Callable[[Any], None]:
    """Puts a value into the metrics of the evaluation."""

    def change(metrics: Any) -> None:
        for step in path:
            metrics = metrics[step]
        metrics[key] = value

    return change


WRONG_PIXELS = {
    "no score": (without("miou", "models", "teacher"), r"evaluate/artifact.json: metrics: models: teacher: miou is missing"),
    "no size": (without("num_parameters", "models", "student"), r"student: num_parameters is missing"),
    "a score above 1": (with_value(68.6, "miou", "models", "student"), r"student: miou is 68.6, but the report needs a share of 0 to 1"),
    "a score in words": (with_value("good", "aacc", "models", "student"), r"aacc is 'good', but the report needs a number"),
    "half an interval": (
        with_value([0.6], "miou_interval", "models", "student"),
        r"miou_interval is \[0.6\], but the report needs two shares",
    ),
    "a turned interval": (with_value([0.7, 0.6], "miou_interval", "models", "student"), r"miou_interval is \[0.7, 0.6\]"),
    "no classes": (without("iou_by_class", "models", "baseline"), r"baseline: iou_by_class is missing"),
    "a class too few": (without("Bag", "models", "student", "iou_by_class"), r"each of class_names and no other, not so for Bag"),
    "a class too many": (with_value(0.5, "Hat", "models", "student", "iou_by_class"), r"each of class_names and no other, not so for Hat"),
    "another model": (with_value({}, "models"), r"models is .*, but the report needs one or more of teacher, student, baseline"),
    "no images": (without("num_images"), r"evaluate/artifact.json: metrics: num_images is missing"),
    "another task": (
        with_value("detection", "task"),
        r"task is 'detection', but the report needs segmentation, the task of the run.s recipe\. The file",
    ),
    "an unknown task": (with_value("depth", "task"), r"task is 'depth', but the report needs one of segmentation, detection"),
    "no task": (without("task"), r"evaluate/artifact.json: metrics: task is missing"),
    "no truth beside an image": (with_value([{"image": "picture_0_image.png"}], "pictures"), r"pictures\[0\]: truth is missing"),
    "a picture that is not there": (
        with_value([{"image": "picture_0_image.png", "truth": "gone.png"}], "pictures"),
        r"pictures\[0\]: truth is gone.png, which is not in evaluate. Run its stage again",
    ),
    "a picture elsewhere": (
        with_value([{"image": "../data/preview.png", "truth": "picture_0_truth.png"}], "pictures"),
        r"image is '../data/preview.png', but the report needs the name of a file in the same folder",
    ),
    "a picture that is none": (
        with_value([{"image": "picture_0_image.png", "truth": "artifact.json"}], "pictures"),
        r"evaluate/artifact.json is no PNG image",
    ),
}
WRONG_OBJECTS = {
    "no boxes": (without("box", "models", "teacher"), r"models: teacher: box is missing, but the report needs an object"),
    "no AP50": (without("ap50", "models", "student", "box"), r"student: box: ap50 is missing"),
    "no mask AP": (without("ap", "models", "student", "mask"), r"student: mask: ap is missing, but the report needs a number, or null"),
    "no mask AP by class": (without("mask_ap_by_class", "models", "student"), r"mask_ap_by_class is missing"),
    "a negative AP": (with_value(-1.0, "ap_large", "models", "student", "box"), r"box: ap_large is -1.0, but the report needs a share"),
}


@pytest.mark.parametrize("name", WRONG_PIXELS)
def test_a_wrong_field_of_a_segmenter_ends_in_an_error_that_names_it(name: str, dense_run: Callable[..., Any], tmp_path: Path) -> None:
    change, message = WRONG_PIXELS[name]
    refused("segmentation", change, message, dense_run, tmp_path)


@pytest.mark.parametrize("name", WRONG_OBJECTS)
def test_a_wrong_field_of_a_detector_ends_in_an_error_that_names_it(name: str, dense_run: Callable[..., Any], tmp_path: Path) -> None:
    change, message = WRONG_OBJECTS[name]
    refused("detection", change, message, dense_run, tmp_path)


def refused(task: str, change: Callable[[Any], None], message: str, dense_run: Callable[..., Any], folder: Path) -> None:
    run = dense_run(task)
    change(run.metrics("evaluate"))
    with pytest.raises(UserError, match=message):
        read_run(run.write(folder))


def test_a_task_that_the_report_does_not_know_is_refused(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("segmentation")
    run.full.run["resolved"]["task"] = {"kind": "depth"}
    with pytest.raises(UserError, match=r"run.json: resolved: task: kind is 'depth', but the report needs one of segmentation, detection"):
        read_run(run.write(tmp_path))


def test_a_figure_that_is_not_defined_is_no_zero(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("detection")
    for model in run.models.values():
        model["box"] = dict.fromkeys(model["box"])
        model["box_ap_interval"] = None
    found = read_run(run.write(tmp_path))
    assert found.main_score("student") is None and found.share_of_teacher("student") is None and found.main_interval("student") is None
    assert found.dense is not None and found.dense.models["student"].figures["mask_ap"] == run.models["student"]["mask"]["ap"]


def test_the_size_of_a_model_is_that_of_its_file(dense_run: Callable[..., Any], tmp_path: Path) -> None:
    run = dense_run("detection")
    run.metrics("specific")["model_bytes"] = 3 * 1024 * 1024
    found = read_run(run.write(tmp_path))
    assert found.model_mib("student") == 3.0
    assert found.model_mib("teacher") == 7_501_304 / 2**20  # it was given whole, so no stage trained it
    assert found.times_smaller("student") == 1_871_830 / 729_398


def test_the_data_of_the_report_are_the_numbers_of_the_artifacts(shown: Any) -> None:
    data, task = shown.data, shown.run.task
    assert (data["format"], data["kind"], data["task"]) == (1, "run", task)
    evaluation = data["evaluation"]
    assert evaluation["num_images"] == 300 and evaluation["class_names"] == shown.run.metrics("evaluate")["class_names"]
    assert evaluation["pictures"] == shown.run.metrics("evaluate")["pictures"]
    for name, model in shown.run.models.items():
        found = evaluation["models"][name]
        assert list(found["figures"]) == [measure.key for measure in MEASURES[task]]
        if task == "segmentation":
            assert found["figures"] == {key: model[key] for key in ("miou", "macc", "aacc")}
            assert (found["by_class"]["miou"], found["intervals"]["miou"]) == (model["iou_by_class"], model["miou_interval"])
        else:
            assert found["figures"] == {f"{kind}_{key}": model[kind][key] for kind in ("box", "mask") for key in model[kind]}
            assert found["by_class"] == {f"{kind}_ap": model[f"{kind}_ap_by_class"] for kind in ("box", "mask")}
    figures = data["figures"]
    assert figures["share_of_teacher"] == pytest.approx(0.6857 / 0.7131) and figures["times_smaller"] == 1_871_830 / 729_398
    assert figures["gain_over_baseline"] == pytest.approx(0.6857 - 0.6414) and figures["p50_ms"] == 0.913


def test_the_front_is_told_in_the_measure_of_the_task(shown: Any) -> None:
    key = {"segmentation": "miou", "detection": "box_ap"}[shown.run.task]
    front = {point["name"]: point for point in shown.data["front"]}
    assert front["Teacher, torch"][key] == 0.7131
    assert (front["Student, fp32-onnxruntime"][key], front["Student, fp32-onnxruntime"]["ships"]) == (0.686, True)
    assert all("top1" not in point for point in front.values())


def test_the_terms_of_a_loss_are_in_the_data(shown: Any) -> None:
    last = shown.data["training"]["specific"]["history"][-1]
    row = shown.run.full.histories["specific"][-1]
    assert last["terms"] == {name.removeprefix("loss_"): value for name, value in row.items() if name.startswith("loss_")}
    assert shown.data["training"]["generic"]["history"][-1]["terms"] == {}


def test_the_terminal_shows_the_measures_of_the_task(shown: Any, tmp_path: Path) -> None:
    console = Console(width=100, record=True)
    console.print(result_table(read_run(shown.run.write(tmp_path))))
    lines = {line.split()[0]: line.split()[1:] for line in console.export_text().splitlines() if line.split()}
    student = shown.run.models["student"]
    if shown.run.task == "segmentation":
        numbers = [student["miou"], 0.6857 / 0.7131, student["macc"], student["aacc"]]
    else:
        numbers = [student["box"]["ap"], 0.6857 / 0.7131, student["box"]["ap50"], student["mask"]["ap"]]
    shares = [f"{100 * value:.{1 if place == 1 else 2}f}" for place, value in enumerate(numbers)]
    assert lines["student"] == ["0.729", "1.84", *shares, "0.913", "onnxruntime"]
    assert lines["parity"][0] == "passed"


def test_equal_runs_give_equal_bytes(shown: Any, tmp_path: Path) -> None:
    from g2sd_deploy.report import render_report

    again = render_report(read_run(shown.run.write(tmp_path)))
    assert again == shown.rendered
    assert json.loads(again.json)["headline"]["sentence"].startswith("The student keeps 96.2 %")
