"""Parity runs both models on all images and fails closed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.edge.preprocess import Preprocessing, normalise
from g2sd_export.edge.runner import OnnxRunner
from g2sd_export.parity import ParityResult, ParityTolerance, compare

PRE = Preprocessing(image_px=2, resize_px=2, num_channels=1, mean=(0.0,), std=(1.0,))
KEYS = [
    "verdict",
    "reason",
    "num_images",
    "flipped",
    "flipped_share",
    "max_abs_logit_diff",
    "mean_abs_logit_diff",
    "min_cosine",
    "top1_reference",
    "top1_candidate",
    "tolerance",
    "reference",
    "candidate",
]


@dataclasses.dataclass
class FakeRunner:
    """Logits are the four pixels of an image, through ``change``."""

    change: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]] = lambda logits: logits
    name: str = "fake"
    version: str = "1.0"
    preprocessing: Preprocessing = PRE
    batches: list[int] = dataclasses.field(default_factory=list)

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return normalise(images, self.preprocessing)

    def forward(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self.batches.append(len(inputs))
        return self.change(inputs.reshape(len(inputs), -1)).astype(np.float32)

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return self.forward(self.prepare(images))


def pixels(num: int = 50) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images = np.random.default_rng(0).integers(0, 256, (num, 2, 2, 1), dtype=np.uint8)
    return images, images.reshape(num, 4).argmax(axis=1)


def check(candidate: FakeRunner, tolerance: ParityTolerance | None = None, batch_size: int = 16) -> ParityResult:
    images, labels = pixels()
    return compare(FakeRunner(), candidate, images, labels, tolerance=tolerance or ParityTolerance(), batch_size=batch_size)


def test_the_same_model_passes_and_every_image_is_seen() -> None:
    candidate = FakeRunner()
    got = check(candidate)
    assert (got.verdict, got.reason, got.num_images, got.top1_reference, got.top1_candidate) == ("passed", "", 50, 1.0, 1.0)
    assert candidate.batches == [16, 16, 16, 2]


def test_the_dictionary_is_flat_json() -> None:
    got = json.loads(json.dumps(check(FakeRunner(lambda logits: logits + 1e-4)).to_dict(), allow_nan=False))
    assert list(got) == KEYS
    assert got["max_abs_logit_diff"] == pytest.approx(1e-4, rel=1e-2)
    assert (got["tolerance"], got["reference"]) == ({"max_abs_logit_diff": 1e-3, "flipped_share": 0.0}, "fake 1.0")


def test_flipped_decisions_fail_with_the_accuracies_of_both() -> None:
    def flip_first(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        logits = logits.copy()
        logits[0, logits[0].argmin()] = logits[0].max() + 0.1
        return logits

    got = check(FakeRunner(flip_first), ParityTolerance(max_abs_logit_diff=10.0))
    assert got.verdict == "failed" and "4 of 50 decisions flip (8.000%), tolerated 0.000%" in got.reason
    assert (got.top1_reference, got.top1_candidate) == (1.0, 46 / 50)
    assert check(FakeRunner(flip_first), ParityTolerance(10.0, 0.08)).verdict == "passed"


def test_another_normalisation_fails_though_the_network_is_the_same() -> None:
    got = check(FakeRunner(preprocessing=dataclasses.replace(PRE, std=(0.9,))))
    worst = pixels()[0].max() / 255 * (1 / 0.9 - 1)
    assert (got.verdict, got.reason) == ("failed", f"a logit differs by {worst:.3g}, tolerated 0.001")


def test_one_logit_that_is_not_a_number_fails_and_the_numbers_are_null() -> None:
    got = check(FakeRunner(lambda logits: np.where(logits == logits.max(), np.nan, logits)), ParityTolerance(1e9, 1.0), batch_size=50)
    assert got.verdict == "failed" and "the candidate's logits are NaN or infinite for 1 of 50 images" in got.reason
    values = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert list(values) == KEYS
    assert all(values[key] is None for key in ("flipped", "max_abs_logit_diff", "min_cosine", "top1_reference", "top1_candidate"))


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits[:, :3],
        lambda logits: logits[:-1],
        lambda logits: logits[:1],
        lambda logits: logits[:, :, None],
        lambda logits: logits[:, : 4 if len(logits) == 16 else 3],
    ],
    ids=["fewer classes", "a lost image", "one answer a batch", "an axis more", "ragged batches"],
)
def test_logits_of_another_shape_fail(change: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]) -> None:
    got = check(FakeRunner(change))
    assert got.verdict == "failed" and "logits of shape" in got.reason and got.agreement is None


def test_answers_moved_between_batches_fail_though_the_total_is_right() -> None:
    images, labels = pixels(32)
    sizes = iter((15, 17))
    candidate = FakeRunner(lambda logits: np.resize(logits, (next(sizes), 4)))
    assert compare(FakeRunner(), candidate, images, labels, tolerance=ParityTolerance(1e9, 1.0), batch_size=16).verdict == "failed"


def test_no_images_is_not_run_and_says_why() -> None:
    images, labels = pixels(0)
    got = compare(FakeRunner(), FakeRunner(), images, labels, tolerance=ParityTolerance())
    assert (got.verdict, got.reason, got.num_images) == ("not_run", "there are no images to compare", 0)
    assert list(got.to_dict()) == KEYS


def test_a_label_too_few_is_our_mistake() -> None:
    images, labels = pixels()
    with pytest.raises(ValueError, match="50 images, 49 labels"):
        compare(FakeRunner(), FakeRunner(), images, labels[:-1], tolerance=ParityTolerance())


def test_an_onnx_candidate_names_its_provider(
    onnx_path: Path, preprocessing: Preprocessing, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    runner = OnnxRunner(onnx_path, preprocessing, threads=1)
    got = compare(runner, runner, images, logits.argmax(axis=1), tolerance=ParityTolerance(1e-4), batch_size=3)
    assert got.verdict == "passed" and got.candidate.endswith("CPUExecutionProvider") and got.top1_candidate == 1.0
