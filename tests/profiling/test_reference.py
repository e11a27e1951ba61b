"""The reference network: the same on every machine, and of the shape that it says."""

import numpy as np
import onnx
from onnx import numpy_helper

from g2sd_deploy.profiling.candidate import Case
from g2sd_deploy.profiling.raw_onnx import open_onnxruntime, open_openvino, read_raw_onnx
from g2sd_deploy.profiling.reference import reference_onnx, reference_sha256

SHA256 = "01c1fd42c25f83c32800d67de85f705fe30dfc99faa380d2e392b8827f1a54be"
"""Ratios of two profiles compare only where this is the same: a change of it is a new reference."""


def test_its_bytes_never_change() -> None:
    assert reference_sha256() == SHA256


def test_it_is_a_vit_tiny() -> None:
    model = onnx.load_model_from_string(reference_onnx())
    onnx.checker.check_model(model, full_check=True)
    weights = [numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
    assert abs(sum(weight.size for weight in weights) - 5_717_416) < 1000  # parameters of timm's vit_tiny_patch16_224
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("Softmax"), kinds.count("LayerNormalization"), kinds.count("Erf")) == (12, 25, 12)


def test_two_runtimes_agree_on_what_it_answers_and_images_do_not_mix() -> None:
    raw = read_raw_onnx("reference", reference_onnx())
    logits = np.asarray(open_onnxruntime(raw, "CPUExecutionProvider", Case(2, 1)).call())[0]
    (others,) = open_openvino(raw, "f32", Case(2, 1)).call().values()  # type: ignore[attr-defined]
    assert logits.shape == (2, 1000) and np.isfinite(logits).all() and logits.std() > 0.1
    np.testing.assert_allclose(logits, others, atol=1e-4)
    alone = np.asarray(open_onnxruntime(raw, "CPUExecutionProvider", Case(1, 1)).call())[0]
    assert not np.allclose(logits[0], logits[1], atol=1e-2)
    np.testing.assert_allclose(alone[0], logits[0], atol=1e-4)  # the first image of both is the same noise
