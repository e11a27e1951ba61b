"""The tolerance of a device is what was seen here, with room, and no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.device_tolerance import calibrate_tolerance, spread
from g2sd_export.edge.agreement import judge
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.preprocess import Preprocessing

Logits = npt.NDArray[np.float32]


def logits(num: int = 20, num_classes: int = 5) -> Logits:
    return np.random.default_rng(0).normal(scale=4, size=(num, num_classes)).astype(np.float32)


def moved(golden: Logits, amount: float) -> Logits:
    """One logit of one image, so that a mean would not show it."""
    changed = golden.copy()
    changed[7, 2] += amount
    return changed


def test_four_times_what_threads_and_batch_sizes_change() -> None:
    golden = logits()
    others = [golden, moved(golden, 0.25), moved(golden, -0.5)]
    assert calibrate_tolerance(golden, others, golden).max_abs_logit_diff == pytest.approx(2.0, rel=1e-6)


def test_twice_what_the_format_rounds() -> None:
    golden = logits()
    assert calibrate_tolerance(golden, [golden], moved(golden, 0.75)).max_abs_logit_diff == pytest.approx(1.5, rel=1e-6)


def test_a_file_that_answers_alike_everywhere_still_leaves_room_for_another_order_of_sums() -> None:
    golden = logits()
    tolerance = calibrate_tolerance(golden, [golden], golden)
    assert tolerance.max_abs_logit_diff == pytest.approx(float(np.abs(golden).max()) / 4096)
    assert judge(golden, golden * np.float32(1 + 1e-6), tolerance)[0] == "passed"
    assert judge(golden, golden * np.float32(1 + 2.0**-8), tolerance)[0] == "failed"


def test_as_many_decisions_may_flip_as_lie_within_the_tolerance_of_a_tie() -> None:
    golden = np.array([[0.0, -9.0, 1.0], [0.0, 1.1, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 5.0]], np.float32)
    tolerance = calibrate_tolerance(golden, [], golden + np.float32(0.26))  # 0.52 either way: gaps of 1.04 can close
    assert tolerance.flipped_share == 0.25
    assert judge(golden, golden + np.array([[0.51, 0.0, -0.51]], np.float32), tolerance)[0] == "passed"


@pytest.mark.parametrize("bad", [logits(num=0), np.full((20, 5), np.nan, np.float32)], ids=["none", "not numbers"])
def test_logits_that_cannot_be_compared_are_our_mistake(bad: Logits) -> None:
    with pytest.raises(ValueError, match="wanted finite ones of shape"):
        calibrate_tolerance(bad, [bad], bad)
    if len(bad):
        with pytest.raises(ValueError, match="wanted finite ones of shape"):
            calibrate_tolerance(logits(), [bad], logits())


@dataclass
class Counting:
    """Logits that tell the threads and the size of the batch."""

    threads: int
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(2, 2, 1, (0.0,), (1.0,)))
    name: str = "counting"
    version: str = "1"

    def prepare(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return images

    def forward(self, inputs: npt.NDArray[np.uint8]) -> Logits:
        return np.full((len(inputs), 2), 10 * self.threads + len(inputs), np.float32)

    def infer(self, images: npt.NDArray[np.uint8]) -> Logits:
        return self.forward(self.prepare(images))


def test_every_number_of_threads_meets_every_batch_size_and_the_first_comes_twice() -> None:
    got = spread(Counting, np.zeros((3, 2, 2, 1), np.uint8), threads=(1, 2), batch_sizes=(1, 2))
    assert [answer[:, 0].tolist() for answer in got] == [[11] * 3, [11] * 3, [12, 12, 11], [21] * 3, [22, 22, 21]]


def test_the_tolerance_of_a_real_file_is_small_and_holds(
    onnx_path: Path, preprocessing: Preprocessing, images: npt.NDArray[np.uint8]
) -> None:
    answers = spread(lambda threads: OnnxRunner(onnx_path, preprocessing, threads=threads), images)
    tolerance = calibrate_tolerance(answers[0], answers[1:], answers[0])
    assert 0 < tolerance.max_abs_logit_diff < 1e-2
    assert all(judge(answers[0], answer, tolerance)[0] == "passed" for answer in answers)
