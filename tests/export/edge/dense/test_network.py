"""Networks on their runtimes: the same arrays from each, and a refusal of what is none."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge.dense.applying import detect, segment
from g2sd_export.edge.dense.network import Network, onnx_network, openvino_network
from g2sd_export.edge.dense.outputs import answer_of, checked, output_names
from g2sd_export.edge.dense.preparing import prepared
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.edge.errors import UserError

MAKERS: dict[str, Callable[..., Network]] = {"onnxruntime": onnx_network, "openvino": openvino_network}


def network(runtime: str, model: bytes, task: DenseTask) -> Network:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    return MAKERS[runtime](model, task, 3, threads=1)


@pytest.mark.parametrize("runtime", MAKERS)
def test_a_segmenter_gives_logits_or_classes(
    runtime: str, segmenter: bytes, labeller: bytes, segmentation: DenseTask, flag: npt.NDArray[np.uint8]
) -> None:
    images = np.concatenate([prepared(flag, segmentation)[1], prepared(flag[::-1], segmentation)[1]])
    (logits,) = network(runtime, segmenter, segmentation).infer(images)
    means = images.reshape(2, 8, 4, 8, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 100
    assert logits.dtype == np.float32 and np.abs(logits - means).max() < 1e-5
    (classes,) = network(runtime, labeller, segmentation).infer(images)
    assert classes.dtype == np.uint8 and (classes == images.argmax(axis=3)).all()
    assert answer_of((classes,), segmentation)["classes"] is classes
    enlarged = answer_of((logits,), segmentation)["classes"]
    assert enlarged.shape == (2, 32, 32) and (enlarged != classes).mean() < 0.3  # logits of 4 x 4 pixels blur what lies between colours


@pytest.mark.parametrize("runtime", MAKERS)
@pytest.mark.parametrize("fixed", [False, True], ids=["any batch", "batches of two"])
def test_a_detector_gives_its_four_arrays_in_order(
    runtime: str, fixed: bool, detector: bytes, detector_of_two: bytes, detection: DenseTask
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    found = network(runtime, detector_of_two if fixed else detector, detection)
    assert (found.name, found.threads, found.outputs) == (runtime, 1, ("boxes", "scores", "labels", "masks"))
    boxes, scores, labels, masks = found.infer(images)
    assert [array.shape for array in (boxes, scores, labels, masks)] == [(3, 3, 4), (3, 3), (3, 3), (3, 3, 28, 28)]
    assert [array.dtype for array in (boxes, scores, labels, masks)] == [np.float32, np.float32, np.int64, np.float32]
    assert np.abs(scores - images.mean(axis=(1, 2)) / 255).max() < 1e-5 and labels.tolist() == [[0, 1, 2]] * 3


def test_an_image_of_any_size_gets_its_classes(segmenter: bytes, segmentation: DenseTask, flag: npt.NDArray[np.uint8]) -> None:
    infer = network("onnxruntime", segmenter, segmentation).infer
    found = segment(infer, flag, segmentation)
    assert found.shape == (48, 64)
    wanted = np.zeros((48, 64), np.uint8)
    wanted[:24, 32:], wanted[24:, 32:] = 1, 2
    assert (found == wanted)[:, 40:].mean() > 0.9 and (found == wanted).mean() > 0.9
    slide = DenseTask(**{**segmentation.to_dict(), "inference": "slide", "stride": 5, "mean": (0.5,) * 3, "std": (0.25,) * 3})
    alone = segment(infer, flag, slide)
    assert (segment(infer, flag, slide, batch=3) == alone).all() and (alone == wanted).mean() > 0.9


def test_an_image_of_any_size_gets_its_objects(detector: bytes, detection: DenseTask, flag: npt.NDArray[np.uint8]) -> None:
    found = detect(network("onnxruntime", detector, detection).infer, flag, detection)  # the image takes 24 of 32 rows, the rest is grey
    assert found.labels.tolist() == [0, 1, 2] and found.masks.shape == (3, 48, 64)
    assert found.boxes.tolist() == [[0, 0, 32, 32], [16, 8, 64, 40], [40, 40, 60, 48]]
    assert found.masks[1, 8:40, 16:40].all() and not found.masks[1, :, 40:].any()


@pytest.mark.parametrize(
    ("kind", "available", "message"),
    [
        ("segmentation", ("features",), "gives features; wanted either logits"),
        ("segmentation", ("logits", "classes"), "gives logits, classes"),
        ("segmentation", (), "gives none"),
        ("detection", ("boxes", "scores", "masks"), "has no output labels, only boxes, scores, masks"),
    ],
)
def test_other_outputs_are_refused(
    kind: str, available: tuple[str, ...], message: str, segmentation: DenseTask, detection: DenseTask
) -> None:
    with pytest.raises(UserError, match=message):
        output_names({"segmentation": segmentation, "detection": detection}[kind], available)


def test_a_file_of_another_task_is_refused(segmenter: bytes, detection: DenseTask) -> None:
    with pytest.raises(UserError, match="has no output boxes, scores, labels, masks, only logits"):
        network("onnxruntime", segmenter, detection)


def test_arrays_that_are_no_answer_of_a_segmenter_are_refused(segmentation: DenseTask) -> None:
    broken = np.zeros((1, 3, 8, 8), np.float32)
    broken[0, 0, 0, 0] = np.nan
    for arrays, message in (
        ((np.zeros((1, 4, 8, 8), np.float32),), "for 3 classes"),
        ((np.zeros((1, 32, 32), np.int64),), "gave int64"),
        ((np.zeros((1, 16, 16), np.uint8),), "and 32 px"),
        ((np.full((1, 32, 32), 3, np.uint8),), "gave class 3, and 3 classes are named"),
        ((broken,), "logits are NaN or infinite"),
        ((broken, broken), "gave 2 arrays"),
    ):
        with pytest.raises(UserError, match=message):
            checked(arrays, segmentation, 3)


def test_arrays_that_are_no_answer_of_a_detector_are_refused(detection: DenseTask) -> None:
    good: dict[str, Any] = {
        "boxes": np.zeros((1, 2, 4), np.float32),
        "scores": np.asarray([[0.5, 0]], np.float32),
        "labels": np.asarray([[2, 99]]),  # the second row only fills up
        "masks": np.zeros((1, 2, 28, 28), np.float16),
    }
    assert checked(list(good.values()), detection, 3)[3].dtype == np.float32
    for key, array, message in (
        ("masks", np.zeros((1, 2, 14, 14), np.float32), "of shapes"),
        ("scores", np.zeros((1, 3), np.float32), "of shapes"),
        ("labels", np.zeros((1, 2), np.float32), "labels float32"),
        ("labels", np.asarray([[3, 0]]), "gave class 3 or 3, and 3 classes are named"),
        ("labels", np.asarray([[-1, 0]]), "gave class -1"),
        ("boxes", np.full((1, 2, 4), np.inf, np.float32), "boxes are NaN or infinite"),
    ):
        with pytest.raises(UserError, match=message):
            checked(list({**good, key: array}.values()), detection, 3)


def test_classifiers_are_read_as_before(segmenter: bytes, segmentation: DenseTask) -> None:
    runner = importlib.import_module("g2sd_export.edge.onnx_runner")
    with pytest.raises(UserError, match="no output of logits"):
        runner.OnnxRunner(segmenter, segmentation.preprocessing(), threads=1)
