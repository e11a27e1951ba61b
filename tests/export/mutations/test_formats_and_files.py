"""Number formats that cannot hold the model, and files that no runtime should load."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from g2sd_export.deployable import deployable_onnx
from g2sd_export.device_tolerance import calibrate_tolerance
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.openvino_runner import OpenVINORunner
from g2sd_export.half import half_onnx
from g2sd_export.onnx_file import export_onnx
from g2sd_export.proof import Link, prove


def overflowing(case: Any) -> Any:
    """The same function, with values of the first attention beyond 65,504: harmless in float32, infinite in float16."""
    model = copy.deepcopy(case.trained.model)
    attention = model.blocks[0].attn  # type: ignore[index, union-attr]
    dim = attention.proj.weight.shape[0]
    with torch.no_grad():
        attention.qkv.weight[2 * dim :] *= 2.0**17
        attention.qkv.bias[2 * dim :] *= 2.0**17
        attention.proj.weight *= 2.0**-17
    return dataclasses.replace(case.trained, model=model)


def test_an_overflow_of_float16_is_caught_though_float32_is_right(case: Any, tmp_path: Path) -> None:
    export_onnx(overflowing(case).model, image_px=28, num_channels=3, path=tmp_path / "float.onnx")
    deployable_onnx(tmp_path / "float.onnx", case.pre, path=tmp_path / "pixels.onnx")
    half_onnx(tmp_path / "pixels.onnx", precision="fp16", path=tmp_path / "half.onnx")
    links = [
        Link("torch", case.trained),
        Link("float onnx", OnnxRunner(tmp_path / "float.onnx", case.pre, threads=1), case.tolerance),
        Link("pixels", OnnxRunner(tmp_path / "pixels.onnx", case.pre, threads=1), case.tolerance),
        Link("fp16", OnnxRunner(tmp_path / "half.onnx", case.pre, threads=1), ParityTolerance(1e9, 1.0)),
    ]
    proof = prove(links, case.images, case.labels)
    assert [hop.verdict for hop in proof.hops] == ["passed", "passed", "failed"]
    assert proof.hops[2].reason == "the candidate's logits are NaN or infinite for 240 of 240 images"


def test_openvino_silently_in_bfloat16_is_caught_by_its_answers(case: Any, silent_bfloat16: Any) -> None:
    assert case.proof(OpenVINORunner(case.pixel_onnx, case.pre, threads=1, inference_precision="f32")).verdict == "passed"
    case.assert_caught(silent_bfloat16, "a logit differs by ")


def test_bfloat16_lies_outside_what_another_device_may_do_in_float32(case: Any, silent_bfloat16: Any) -> None:
    golden = OpenVINORunner(case.pixel_onnx, case.pre, threads=1).infer(case.images)
    tolerance = calibrate_tolerance(golden, [OnnxRunner(case.pixel_onnx, case.pre).infer(case.images)], case.trained.infer(case.images))
    worst = float(np.abs(silent_bfloat16.infer(case.images) - golden).max())
    assert worst > 2 * tolerance.max_abs_logit_diff


def test_weights_that_end_early_are_refused(case: Any, tmp_path: Path) -> None:
    proto = onnx.load(case.pixel_onnx)
    next(item for item in proto.graph.initializer if item.name == "head.weight").raw_data = b"\0" * 100
    onnx.save(proto, tmp_path / "short.onnx")
    with pytest.raises(UserError, match=r"short.onnx: .* cannot load it"):
        OnnxRunner(tmp_path / "short.onnx", case.pre, threads=1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_file_that_ends_early_is_refused(case: Any, tmp_path: Path, share: float) -> None:
    content = case.pixel_onnx.read_bytes()
    (tmp_path / "short.onnx").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"short.onnx: .* cannot load it"):
        OnnxRunner(tmp_path / "short.onnx", case.pre, threads=1)


@pytest.mark.parametrize("opset", [11, 16, 19, 999])
def test_an_opset_that_the_graph_was_not_written_for_is_refused(case: Any, tmp_path: Path, opset: int) -> None:
    """Gelu came with 20, LayerNormalization with 17; 999 is none that a runtime knows."""
    proto = onnx.load(case.pixel_onnx)
    proto.opset_import[0].version = opset
    onnx.save(proto, tmp_path / "opset.onnx")
    with pytest.raises(UserError, match=r"opset.onnx: .* cannot load it"):
        OnnxRunner(tmp_path / "opset.onnx", case.pre, threads=1)


def test_an_opset_in_which_an_operator_meant_something_else_is_caught_by_its_answers(case: Any, tmp_path: Path) -> None:
    """Before opset 13 a softmax along the second axis normalised all axes after it together; the attribute reads the same."""
    proto = onnx.load(case.pixel_onnx)
    for node in proto.graph.node:
        if node.op_type == "Softmax":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 1))
    onnx.save(proto, tmp_path / "softmax.onnx")
    case.assert_caught(tmp_path / "softmax.onnx", "decisions flip")
