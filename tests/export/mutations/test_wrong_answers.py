"""Graphs and runners that answer something else: the proof names the hop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.deployable import deployable_onnx
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.proof import Whole

Images = npt.NDArray[np.uint8]


def test_the_files_pass_before_anything_is_broken(case: Any) -> None:
    proof = case.proof(case.pixel_onnx)
    assert (proof.verdict, proof.reason, proof.whole.top1_candidate) == ("passed", "", 1.0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("permute_classes", "decisions flip"),
        ("swap_channels", "decisions flip"),
        ("transpose_images", "decisions flip"),
        ("zero_a_layer", "decisions flip"),
        ("zero_a_bias", "a logit differs by "),
        ("take_one_head", "decisions flip"),
        ("loosen_the_norms", "a logit differs by "),
        ("approximate_the_gelu", "a logit differs by "),
        ("fix_the_batch", "decisions flip"),
        ("spoil_a_weight", "the candidate's logits are NaN or infinite for 240 of 240 images"),
    ],
)
def test_a_changed_graph_is_caught_at_its_hop(
    case: Any, tmp_path: Path, mutate: Callable[[str, Path, Path], Path], name: str, reason: str
) -> None:
    case.assert_caught(mutate(name, case.pixel_onnx, tmp_path / "changed.onnx"), reason)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
        {"mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)},
    ],
    ids=["another mean", "another standard deviation", "not normalised", "of the channels in reverse"],
)
def test_a_wrong_mean_or_standard_deviation_is_caught_in_either_kind_of_file(case: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    pre = dataclasses.replace(case.pre, **change)
    deployable_onnx(case.float_onnx, pre, path=tmp_path / "pixels.onnx")
    case.assert_caught(tmp_path / "pixels.onnx", "a logit differs by ")
    case.assert_caught(OnnxRunner(case.float_onnx, pre, threads=1), "a logit differs by ")


@pytest.mark.parametrize(
    "feed",
    [lambda images: images[..., ::-1], lambda images: images.transpose(0, 2, 1, 3), lambda images: images[:, :, ::-1]],
    ids=["BGR", "rows for columns", "mirrored"],
)
def test_a_runner_that_feeds_the_images_wrongly_is_caught(case: Any, feed: Callable[[Images], Images]) -> None:
    class Feeding(OnnxRunner):
        def infer(self, images: Images) -> npt.NDArray[np.float32]:
            return super().infer(np.ascontiguousarray(feed(images)))

    case.assert_caught(Feeding(case.pixel_onnx, case.pre, threads=1), "decisions flip")


def test_answers_of_one_batch_that_are_handed_out_in_another_order_are_caught(case: Any) -> None:
    class Shuffling(OnnxRunner):
        def infer(self, images: Images) -> npt.NDArray[np.float32]:
            return np.ascontiguousarray(super().infer(images)[::-1])

    case.assert_caught(Shuffling(case.pixel_onnx, case.pre, threads=1), "decisions flip")


@pytest.mark.parametrize("step", [1, -1])
def test_labels_that_are_off_by_one_are_caught(case: Any, step: int) -> None:
    proof = case.proof(case.pixel_onnx, labels=case.labels + step)
    assert [hop.verdict for hop in proof.hops] == ["passed", "passed"] and proof.verdict == "failed"
    bad = np.flatnonzero(case.labels == (5 if step > 0 else 0))[0]
    assert f"label {6 if step > 0 else -1} of image {bad} is no class of 0 to 5; do the labels count from 1?" in proof.reason
    assert f"of 120 answers are right, and 120 would be with every label moved by {-step:+d}" in proof.reason


def test_labels_of_classes_in_another_order_are_caught(case: Any) -> None:
    alphabet = sorted(case.class_names)
    order = np.array([alphabet.index(name) for name in case.class_names])  # how a folder of folders numbers them
    proof = case.proof(case.pixel_onnx, labels=order[case.labels])
    assert [hop.verdict for hop in proof.hops] == ["passed", "passed"] and proof.verdict == "failed"
    assert "of 120 answers are right, and 120 would be with label " in proof.reason
    assert "the labels, or the classes of the model, are in another order" in proof.reason


def test_another_model_of_the_same_shape_is_caught_by_its_accuracy_too(case: Any) -> None:
    labels = np.random.default_rng(1).integers(len(case.class_names), size=len(case.images))
    proof = case.proof(case.pixel_onnx, labels=labels, whole=Whole(top1=(0.9, 1.0)))
    assert proof.verdict == "failed" and "wanted between 90.000% and 100.000%, as it was evaluated" in proof.reason
