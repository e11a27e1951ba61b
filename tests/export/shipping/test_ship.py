"""A target's candidates are made, proven and timed; what cannot be proven here says why, and nothing is asked twice."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.answers import Answers, digest_of
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.shipping import ship as shipping
from g2sd_export.shipping.material import Material, TrainingImages
from g2sd_export.shipping.race import RaceSettings
from g2sd_export.shipping.ship import Shipment, ship
from g2sd_export.targets import Target

QUICK = RaceSettings(seconds=0.01)
TOLERANCE = {
    "fp32": {"max_abs_logit_diff": 1e-3},
    "fp16": {"max_abs_logit_diff": 0.1, "flipped_share": 0.2},
    "int8": {"max_abs_logit_diff": 9.0, "flipped_share": 1.0},
}
CPU: list[dict[str, str]] = [{"runtime": "onnxruntime", "precision": "int8"}, {"runtime": "onnxruntime", "precision": "fp32"}]
GPU: list[dict[str, str]] = [
    {"runtime": "onnxruntime", "precision": "fp16", "provider": "TensorrtExecutionProvider"},
    {"runtime": "onnxruntime", "precision": "fp16", "provider": "CUDAExecutionProvider"},
]


def target(candidates: list[dict[str, str]], **more: Any) -> Target:
    values = {"name": "mine", "description": "A device.", "candidates": candidates, "tolerance": TOLERANCE, "threads": 1}
    return Target.model_validate({**values, "int8": {"methods": ["ort-minmax"], "max_float_layers": 0}, **more})


@pytest.fixture
def material(onnx_path: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], preprocessing: Preprocessing) -> Material:
    labels = logits.argmax(axis=1).astype(np.int64)
    training = TrainingImages(images, labels, tuple(f"train/{index}" for index in range(len(images))), "mine")
    return Material(onnx_path, preprocessing, images, labels, training, training)


@pytest.fixture
def torch_answers(images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]) -> Answers:
    return Answers("torch", digest_of(images), logits)


def verdicts(shipment: Shipment) -> dict[str, str]:
    return {way.name: way.outcome.verdict for way in shipment.ways}


def test_each_candidate_that_passes_is_timed_and_one_of_them_ships(material: Material, torch_answers: Answers, tmp_path: Path) -> None:
    made = ship(material, target(CPU, accuracy_budget_points=100.0), torch_answers, folder=tmp_path, race_settings=QUICK)
    assert (made.verdict, made.reason) == ("passed", "")
    assert verdicts(made) == {"int8-onnxruntime": "passed", "fp32-onnxruntime": "passed"}
    assert sum(way.outcome.chosen for way in made.ways) == 1 and all(way.latency for way in made.ways)
    assert "the latencies are an indication only: " in made.remarks["latency"]  # of a hundredth of a second
    int8 = made.ways[0]
    assert int8.proof is not None and [hop.name for hop in int8.proof.hops] == ["onnx", "uint8 onnx", "int8-onnxruntime"]
    assert made.notes["int8"]["num_calibrated"] == len(material.images)


def test_without_training_images_int8_fails_with_the_reason_and_the_rest_ships(
    material: Material, torch_answers: Answers, tmp_path: Path
) -> None:
    alone = Material(material.float_onnx, material.preprocessing, material.images, material.labels)
    made = ship(alone, target(CPU), torch_answers, folder=tmp_path, race_settings=QUICK)
    assert made.verdict == "passed" and made.default.name == "fp32-onnxruntime"
    assert made.ways[0].outcome.reason.startswith("it could not be made: INT8 needs training images to calibrate with")
    assert [way.name for way in made.shipped("passed")] == ["fp32-onnxruntime"]


def test_a_float_file_that_is_not_the_model_fails_every_candidate(material: Material, torch_answers: Answers, tmp_path: Path) -> None:
    other = Answers(torch_answers.runtime, torch_answers.images, torch_answers.logits + 1)
    made = ship(material, target(CPU[1:]), other, folder=tmp_path, race_settings=QUICK)
    assert made.verdict == "failed" and "onnx against torch: a logit differs by 1" in made.reason
    assert verdicts(made) == {"fp32-onnxruntime": "failed"} and made.ways[0].latency is None
    assert made.default.name == "fp32-onnxruntime"  # it is written all the same, and marked


def test_a_graph_that_only_a_gpu_runs_is_proven_on_the_cpu_once_for_all_its_candidates(
    material: Material, torch_answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counting(OnnxRunner):
        def __init__(self, model: Any, *args: Any, **more: Any) -> None:
            asked.append(Path(model).name)
            super().__init__(model, *args, **more)

    monkeypatch.setattr(shipping, "OnnxRunner", Counting)
    monkeypatch.setattr(shipping, "why_not", lambda candidate: "there is no GPU" if candidate.on_gpu else "")
    made = ship(material, target(GPU), torch_answers, folder=tmp_path, race_settings=QUICK)
    assert asked.count("fp16.onnx") == 1
    told = "there is no GPU; its graph passed on ONNX Runtime's CPU"
    assert made.verdict == "not_run" and made.reason == f"fp16-onnxruntime-tensorrt, fp16-onnxruntime-cuda: {told}"
    assert made.default.name == "fp16-onnxruntime-tensorrt"  # the target's order decides where nothing can be timed
    proof = made.ways[1].proof
    assert proof is not None and [(hop.name, hop.verdict) for hop in proof.hops] == [
        ("onnx", "passed"),
        ("uint8 onnx", "passed"),
        ("fp16 onnx", "passed"),
        ("fp16-onnxruntime-cuda", "not_run"),
    ]


def test_a_graph_that_fails_on_the_cpu_fails_though_no_gpu_is_there(
    material: Material, torch_answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "why_not", lambda candidate: "there is no GPU" if candidate.on_gpu else "")
    strict = {**TOLERANCE, "fp16": {"max_abs_logit_diff": 0.0}}
    made = ship(material, target(GPU[:1], tolerance=strict), torch_answers, folder=tmp_path, race_settings=QUICK)
    assert made.verdict == "failed" and "fp16 onnx against uint8 onnx: a logit differs by " in made.reason


def test_what_a_runtime_refuses_fails_without_telling_where_files_lay(
    material: Material, torch_answers: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(candidate: Any, path: Path, *args: Any, **more: Any) -> None:
        raise UserError(f"{path}: no such operator")

    monkeypatch.setattr(shipping, "open_candidate", refuse)
    monkeypatch.setattr(shipping, "why_not", lambda candidate: "")
    openvino = [{"runtime": "openvino", "precision": "fp32"}]
    made = ship(material, target(openvino), torch_answers, folder=tmp_path, race_settings=QUICK)
    assert (made.verdict, made.reason) == ("failed", "fp32-openvino: fp32.onnx: no such operator")
    proof = made.default.proof  # the bundle is written all the same, and tells how far it came
    assert proof is not None and [hop.verdict for hop in proof.hops] == ["passed", "passed", "not_run"]
