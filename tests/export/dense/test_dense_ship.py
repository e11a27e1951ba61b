"""Every candidate of a target is made, proven and timed for a segmenter or a detector; what is no such file says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from g2sd_export.dense.exam import tolerance_of
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.dense.tolerance import BoxTolerance
from g2sd_export.edge.errors import UserError
from g2sd_export.targets import DenseLimits, Target, load_target

from .conftest import DETECTION, SEGMENTATION, SLIDING, Made, make_module, make_target, ship_tiny

Shipped = Callable[[DenseTask], Made]


@pytest.mark.parametrize("task", [SEGMENTATION, SLIDING, DETECTION], ids=lambda task: f"{task.kind}-{task.inference}")
def test_every_file_passes_and_the_fastest_ships(task: DenseTask, shipped: Shipped) -> None:
    made = shipped(task).shipment
    verdicts = {way.name: way.outcome.verdict for way in made.ways}
    assert verdicts == dict.fromkeys(("int8-openvino", "fp32-openvino", "fp32-onnxruntime"), "passed")
    assert made.verdict == "passed" and sum(way.outcome.chosen for way in made.ways) == 1
    assert all((way.latency is not None) == (way.outcome.verdict == "passed") for way in made.ways)
    told = made.ways[1].outcome.to_dict()
    assert {"top1", "flipped"}.isdisjoint(told) and told["drop_points"] == 0
    assert told["changed_share" if task.kind == "segmentation" else "unmatched_share"] == 0
    proof = made.ways[1].proof
    assert proof is not None and [hop.name for hop in proof.hops] == ["onnx", "uint8 onnx", "fp32-openvino"]


def test_engines_and_eight_bits_on_a_gpu_are_not_run_with_the_reason(tmp_path: Path) -> None:
    cuda = {"runtime": "onnxruntime", "precision": "int8", "provider": "CUDAExecutionProvider"}
    (way, _) = ship_tiny(SEGMENTATION, tmp_path, target=make_target([cuda, {"runtime": "onnxruntime", "precision": "fp32"}])).shipment.ways
    told = "int8-onnxruntime-cuda is made of classifiers only; a segmentation network has FP16 on a GPU"
    assert (way.outcome.verdict, way.outcome.reason) == ("not_run", told)
    made = ship_tiny(DETECTION, tmp_path, target=make_target([{"runtime": "tensorrt", "precision": "fp16"}])).shipment
    assert made.verdict == "not_run" and "tensorrt is built for classifiers only" in made.reason
    with pytest.raises(UserError, match="none of the target's candidates could be made"):
        _ = made.default
    assert made.ways[0].outcome.to_dict()["ap_candidate"] is None


@pytest.mark.parametrize("task", [SEGMENTATION, DETECTION], ids=lambda task: task.kind)
def test_a_file_of_other_weights_fails_every_candidate_and_the_shipment(task: DenseTask, tmp_path: Path) -> None:
    other = make_module(task.kind)
    with torch.no_grad():
        next(other.parameters()).mul_(1.2)
    made = ship_tiny(task, tmp_path, module=other, reference=make_module(task.kind)).shipment
    assert made.verdict == "failed" and "onnx against torch: " in made.reason
    assert [way.outcome.verdict for way in made.ways] == ["failed", "failed", "failed"] and not any(way.latency for way in made.ways)


def test_limits_are_the_targets_own_where_it_has_some_and_leave_a_classifiers_bundle_alone() -> None:
    strict = make_target(dense={"fp32": {"changed_share": 0.0, "max_metric_drop_points": 0.01}})
    assert strict.limits("fp32").changed_share == 0.0 and strict.limits("fp32").changed_share_of_image == 0.01
    assert strict.limits("bf16").changed_share > strict.limits("fp32").changed_share
    plain = make_target()
    assert strict.to_dict() == plain.to_dict() and strict.digest == plain.digest and "dense" not in plain.to_dict()
    assert strict.dense_digest != plain.dense_digest and set(plain.to_dense_dict()["dense"]) == {"fp32", "int8"}
    limits = DenseLimits(unmatched_share=0.1, max_score_diff=0.2, max_box_shift=0.25, changed_mask_share=0.3)
    assert tolerance_of(limits, DETECTION) == BoxTolerance(0.1, 0.2, 0.25 * DETECTION.image_px, 0.3)
    with pytest.raises(ValueError, match="changed_share"):
        Target.model_validate({**plain.model_dump(), "dense": {"fp32": {"changed_share": 2.0}}})


def test_bundled_targets_have_limits_for_all_their_formats() -> None:
    for name in ("cpu-x86", "rtx-40", "jetson-orin-jp6"):
        target = load_target(name)
        assert set(target.to_dense_dict()["dense"]) == {"fp32", *(one.precision for one in target.candidates)}


def test_a_file_that_was_made_for_another_stride_or_other_classes_is_not_opened(shipped: Shipped) -> None:
    from g2sd_export.dense.exam import DenseExam
    from g2sd_export.dense.proof import Scorer
    from g2sd_export.dense.questions import questions_of

    from .conftest import CLASS_NAMES, make_images

    made = shipped(SLIDING)
    for task, names, word in ((replace(SLIDING, stride=16), CLASS_NAMES, "task"), (SLIDING, CLASS_NAMES[::-1], "class names")):
        questions = questions_of(make_images(), task)
        exam = DenseExam(questions, names, made.target, Scorer(lambda _: {}, questions))
        with pytest.raises(UserError, match=f"was made with other {word}"):
            exam.on_cpu(made.float_onnx)
