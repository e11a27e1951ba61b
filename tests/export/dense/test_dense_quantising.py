"""INT8 files of segmenters and detectors: made of every layer, judged by the task's metric on held-out images, and refused aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.int8.packing import num_quantised

from .conftest import DETECTION, SEGMENTATION, SLIDING, Made, make_images, make_module, make_target, make_training, ship_tiny

BOTH = pytest.mark.parametrize("task", [SEGMENTATION, DETECTION], ids=lambda task: task.kind)
ONLY = [{"runtime": "onnxruntime", "precision": "int8"}, {"runtime": "onnxruntime", "precision": "fp32"}]
STRICT = {"int8": {"max_metric_drop_points": 0.3}}


@pytest.mark.parametrize("task", [SEGMENTATION, SLIDING, DETECTION], ids=lambda task: f"{task.kind}-{task.inference}")
def test_an_int8_file_holds_int8_weights_and_answers_nearly_as_the_float_file(
    task: DenseTask, shipped: Callable[[DenseTask], Made]
) -> None:
    made = shipped(task)
    way = next(way for way in made.shipment.ways if way.name == "int8-openvino")
    fp32 = next(way for way in made.shipment.ways if way.name == "fp32-onnxruntime")
    assert way.file is not None and fp32.file is not None
    products = {"segmentation": 2, "detection": 4}[task.kind]
    assert num_quantised(onnx.load(way.file.path).graph) == products == made.shipment.notes["int8"]["candidates"][0]["num_quantised"]
    outputs = []
    for path in (fp32.file.path, way.file.path):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {session.get_inputs()[0].name: made.questions.windows}))
    one, other = (np.sort(each[1], axis=1) if task.kind == "detection" else each[0] for each in outputs)  # scores, or logits
    assert 0 < np.abs(one - other).max() < 0.1 * np.ptp(one)


def test_what_it_loses_is_measured_on_the_held_out_images(tmp_path: Path) -> None:
    module = make_module("segmentation")
    seen, held_out = make_training(SEGMENTATION, module)
    asked: list[int] = []

    def metric(results: Iterable[Any]) -> dict[str, float | None]:
        asked.append(len(list(results)))
        return {"miou": 0.7 - 0.0125 * len(asked)}  # the float file, then the quantised one

    notes = ship_tiny(SEGMENTATION, tmp_path, target=make_target(ONLY), training=(seen, replace(held_out, metric=metric))).shipment.notes[
        "int8"
    ]
    assert asked == [10, 10] and notes["candidates"][0]["drop_points"] == pytest.approx(1.25) and notes["num_judged"] == 10
    assert notes["candidates"][0]["flipped"] == pytest.approx(0.00576171875, rel=0.5)


@BOTH
def test_over_the_budget_the_worst_layers_stay_float_and_if_that_is_not_enough_there_is_no_file(task: DenseTask, tmp_path: Path) -> None:
    calls: list[int] = []

    def hopeless(results: Iterable[Any]) -> dict[str, float | None]:
        calls.append(0)
        name = "miou" if task.kind == "segmentation" else "ap"
        return {name: 0.9 if len(calls) == 1 else 0.5}

    seen, held_out = make_training(task, make_module(task.kind))
    target = make_target(ONLY, dense=STRICT)
    made = ship_tiny(task, tmp_path, target=target, training=(seen, replace(held_out, metric=hopeless))).shipment
    assert [way.outcome.verdict for way in made.ways] == ["failed", "passed"] and made.default.name == "fp32-onnxruntime"
    metric = {"segmentation": "mIoU", "detection": "AP"}[task.kind]
    assert f"loses 40.00 points of {metric}, and the budget is 0.3" in made.ways[0].outcome.reason
    costs = made.notes["sensitivity"]
    assert len(costs) == {"segmentation": 2, "detection": 4}[task.kind] and costs[0]["error"] >= costs[-1]["error"]
    assert all(cost["error"] == pytest.approx(cost["flipped"] ** 0.5) for cost in costs) and costs[0]["error"] > 0
    assert any(one["kept"] for one in made.notes["int8"]["candidates"])


def test_a_layer_that_costs_too_much_stays_in_float(tmp_path: Path) -> None:
    budget = 0.6
    target = make_target(ONLY, dense={"int8": {"max_metric_drop_points": budget, "changed_share": 0.1, "changed_share_of_image": 0.5}})
    made = ship_tiny(SEGMENTATION, tmp_path, target=target).shipment
    whole, *rest = made.notes["int8"]["candidates"]
    assert whole["drop_points"] > budget >= rest[-1]["drop_points"] and rest[-1]["kept"] == [made.notes["sensitivity"][0]["layer"]]
    assert made.ways[0].outcome.verdict == "passed", made.ways[0].outcome.reason
    assert (rest[-1]["num_quantised"], rest[-1]["num_float"]) == (1, 1)


def test_without_images_or_without_their_truth_there_is_no_file_and_the_reason(tmp_path: Path) -> None:
    module = make_module("detection")
    seen, held_out = make_training(DETECTION, module)
    blind = replace(held_out, metric=lambda results: {"ap": None, "mask_ap": None})
    reasons = []
    for index, training in enumerate([(None, held_out), (seen, None), (seen, blind)]):
        folder = tmp_path / str(index)
        folder.mkdir()
        made = ship_tiny(DETECTION, folder, target=make_target(ONLY), training=training).shipment
        reasons.append(made.ways[0].outcome.reason)
        assert made.default.name == "fp32-onnxruntime" and made.ways[0].outcome.verdict == "failed"
    assert "too few; name more" in reasons[0] and "too few; name more" in reasons[1] and "have none; name others" in reasons[2]


def test_the_images_of_the_proof_are_not_those_of_the_quantiser() -> None:
    seen, held_out = make_training(SEGMENTATION, make_module("segmentation"))
    proof = {image.tobytes() for image in make_images()}
    assert proof.isdisjoint(image.tobytes() for image in seen.images)
    assert proof.isdisjoint(image.tobytes() for image in held_out.questions.windows)
