"""A proof runs every link once on all images, judges each hop and the whole, and fails closed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from g2sd_export.answers import Answers, digest_of
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.errors import UserError
from g2sd_export.edge.onnx_runner import OnnxRunner
from g2sd_export.edge.preprocess import Preprocessing, normalise
from g2sd_export.proof import HopResult, Link, Proof, Whole, compare, prove

PRE = Preprocessing(image_px=2, resize_px=2, num_channels=1, mean=(0.0,), std=(1.0,))
LOOSE = ParityTolerance(1e9, 1.0)
KEYS = [
    "name",
    "after",
    "verdict",
    "reason",
    "num_images",
    "flipped",
    "flipped_share",
    "max_abs_logit_diff",
    "mean_abs_logit_diff",
    "min_cosine",
    "mean_kl",
    "top1_reference",
    "top1_candidate",
    "drop",
    "ece_reference",
    "ece_candidate",
    "tolerance",
    "reference",
    "candidate",
]

Change = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]


@dataclasses.dataclass
class FakeRunner:
    """Logits are the four pixels of an image, through ``change``."""

    change: Change = lambda logits: logits
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


def added(amount: float) -> FakeRunner:
    return FakeRunner(lambda logits: logits + amount)


def pixels(num: int = 50) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images = np.random.default_rng(0).integers(0, 256, (num, 2, 2, 1), dtype=np.uint8)
    return images, images.reshape(num, 4).argmax(axis=1)


def check(candidate: FakeRunner, tolerance: ParityTolerance | None = None, batch_size: int = 16) -> HopResult:
    images, labels = pixels()
    return compare(FakeRunner(), candidate, images, labels, tolerance=tolerance or ParityTolerance(), batch_size=batch_size)


def proven(*links: Link, whole: Whole | None = None) -> Proof:
    return prove([Link("torch", FakeRunner()), *links], *pixels(), whole=whole or Whole(), batch_size=50)


def flip_first(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Another decision for the first image of each batch."""
    logits = logits.copy()
    logits[0, logits[0].argmin()] = logits[0].max() + 0.1
    return logits


def test_the_same_model_passes_and_every_image_is_seen_once() -> None:
    candidate = FakeRunner()
    got = check(candidate)
    assert (got.verdict, got.reason, got.num_images, got.top1_reference, got.top1_candidate) == ("passed", "", 50, 1.0, 1.0)
    assert candidate.batches == [16, 16, 16, 2]


def test_the_dictionary_is_json() -> None:
    got = json.loads(json.dumps(check(added(1e-4)).to_dict(), allow_nan=False))
    assert list(got) == KEYS
    assert got["max_abs_logit_diff"] == pytest.approx(1e-4, rel=1e-2)
    assert (got["tolerance"], got["reference"]) == ({"max_abs_logit_diff": 1e-3, "flipped_share": 0.0}, "fake 1.0")
    assert got["drop"]["drop"] == 0 and got["drop"]["p_value"] == 1


def test_flipped_decisions_fail_with_the_accuracies_of_both_and_the_paired_drop() -> None:
    got = check(FakeRunner(flip_first), ParityTolerance(max_abs_logit_diff=10.0))
    assert got.verdict == "failed" and "4 of 50 decisions flip (8.000%), tolerated 0.000%" in got.reason
    assert (got.top1_reference, got.top1_candidate) == (1.0, 46 / 50)
    assert got.drop is not None and (got.drop.lost, got.drop.gained, got.drop.drop) == (4, 0, 0.08)
    assert check(FakeRunner(flip_first), ParityTolerance(10.0, 0.08)).verdict == "passed"


def test_another_normalisation_fails_though_the_network_is_the_same() -> None:
    got = check(FakeRunner(preprocessing=dataclasses.replace(PRE, std=(0.9,))))
    worst = pixels()[0].max() / 255 * (1 / 0.9 - 1)
    assert (got.verdict, got.reason) == ("failed", f"a logit differs by {worst:.3g}, tolerated 0.001")


def test_one_logit_that_is_not_a_number_fails_and_the_numbers_are_null() -> None:
    got = check(FakeRunner(lambda logits: np.where(logits == logits.max(), np.nan, logits)), LOOSE, batch_size=50)
    assert got.verdict == "failed" and "the candidate's logits are NaN or infinite for 1 of 50 images" in got.reason
    values = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert list(values) == KEYS
    assert all(values[key] is None for key in ("flipped", "max_abs_logit_diff", "mean_kl", "top1_reference", "top1_candidate", "drop"))


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
def test_logits_of_another_shape_fail(change: Change) -> None:
    got = check(FakeRunner(change))
    assert got.verdict == "failed" and "shape [" in got.reason and "candidate" in got.reason and got.agreement is None


def test_answers_moved_between_batches_fail_though_the_total_is_right() -> None:
    images, labels = pixels(32)
    sizes = iter((15, 17))
    candidate = FakeRunner(lambda logits: np.resize(logits, (next(sizes), 4)))
    got = compare(FakeRunner(), candidate, images, labels, tolerance=LOOSE, batch_size=16)
    assert got.verdict == "failed"
    assert got.reason == "the candidate gives logits of shape [15, 4] for 16 images; wanted one row of equal length per image"


def test_a_runner_that_gives_up_fails_with_its_reason_and_is_not_asked_again() -> None:
    def give_up(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        raise UserError("asked for CUDA and got a CPU")

    candidate = FakeRunner(give_up)
    got = check(candidate)
    assert (got.verdict, got.reason) == ("failed", "the candidate gives up: asked for CUDA and got a CPU")
    assert candidate.batches == [16]


def test_no_images_is_not_run_and_says_why() -> None:
    images, labels = pixels(0)
    got = compare(FakeRunner(), FakeRunner(), images, labels, tolerance=ParityTolerance())
    assert (got.verdict, got.reason, got.num_images) == ("not_run", "there are no images to compare", 0)
    assert list(got.to_dict()) == KEYS


def test_a_fault_is_named_at_the_hop_where_it_arises_and_the_chain_goes_on() -> None:
    got = proven(Link("float", added(1e-5)), Link("bytes", added(0.5)), Link("int8", added(0.5001)))
    assert [(hop.after, hop.name, hop.verdict) for hop in got.hops] == [
        ("torch", "float", "passed"),
        ("float", "bytes", "failed"),
        ("bytes", "int8", "passed"),
    ]
    assert (got.whole.after, got.whole.name, got.verdict) == ("torch", "int8", "failed")
    assert got.reason.startswith("bytes against float: a logit differs by 0.5, tolerated 0.001; int8 against torch: a logit differs by 0.5")


def test_differences_that_every_hop_tolerates_do_not_add_up_unseen() -> None:
    got = proven(*(Link(f"step {i}", added(6e-4 * i)) for i in (1, 2, 3)))
    assert {hop.verdict for hop in got.hops} == {"passed"}
    assert got.verdict == "failed" and got.reason == "step 3 against torch: a logit differs by 0.0018, tolerated 0.001"
    wide = Whole(tolerance=ParityTolerance(0.01))
    assert proven(*(Link(f"step {i}", added(6e-4 * i)) for i in (1, 2, 3)), whole=wide).verdict == "passed"


def test_a_failed_hop_fails_the_chain_though_its_end_agrees_with_its_start() -> None:
    got = proven(Link("bytes", added(0.5)), Link("int8", FakeRunner(), LOOSE))
    assert got.whole.verdict == "passed" and got.verdict == "failed" and got.reason.startswith("bytes against torch: ")


def test_a_link_that_cannot_run_keeps_its_reason_and_the_next_is_judged_against_the_last_that_ran() -> None:
    got = proven(Link("fp16", None, why_not="there is no GPU"), Link("int8", added(1e-5)))
    assert [(hop.after, hop.name, hop.verdict, hop.reason) for hop in got.hops] == [
        ("torch", "fp16", "not_run", "there is no GPU"),
        ("torch", "int8", "passed", ""),
    ]
    assert got.verdict == "passed" and list(got.answers) == ["torch", "int8"]
    assert got.to_dict()["hops"][0]["top1_candidate"] is None


def test_a_chain_whose_end_cannot_run_is_not_run_unless_a_hop_before_it_failed() -> None:
    end = Link("engine", None, why_not="there is no GPU")
    got = proven(Link("float", added(1e-5)), end)
    assert (got.verdict, got.reason) == ("not_run", "engine against float: there is no GPU; engine against torch: there is no GPU")
    got = proven(Link("float", added(1)), end)
    assert (got.verdict, got.reason) == ("failed", "float against torch: a logit differs by 1, tolerated 0.001")


def test_answers_stand_for_a_runner_and_only_for_the_same_images() -> None:
    first, again = proven(Link("float", added(1e-5))), FakeRunner()
    images, labels = pixels()
    links = [Link(name, first.answers[name]) for name in ("torch", "float")] + [Link("int8", again)]
    got = prove(links, images, labels, batch_size=30)
    assert got.verdict == "passed" and got.hops[0] == first.hops[0] and again.batches == [30, 20]
    other = images.copy()
    other[17, 1, 1] ^= 1
    with pytest.raises(ValueError, match="the answers of torch belong to other images"):
        prove(links, other, labels)
    assert digest_of(images) != digest_of(images.reshape(50, 1, 4, 1))


def test_an_accuracy_budget_fails_what_the_logits_tolerate() -> None:
    link = Link("int8", FakeRunner(flip_first), LOOSE)  # one batch of 50: one decision, 2 points
    assert proven(link, whole=Whole(max_drop=0.02)).verdict == "passed"
    got = proven(link, whole=Whole(max_drop=0.003))
    assert got.verdict == "failed" and got.hops[0].verdict == "passed"
    assert got.reason.count("int8 against torch") == 1
    assert got.reason.startswith("int8 against torch: 2 points of top-1 are lost (95 % interval ") and got.reason.endswith("tolerated 0.3")


def test_every_reason_is_told_and_none_of_them_twice() -> None:
    got = proven(Link("int8", FakeRunner(flip_first), ParityTolerance(9.0)), whole=Whole(max_drop=0.003))
    flips = "int8 against torch: 1 of 50 decisions flip (2.000%), tolerated 0.000%"
    assert got.reason.startswith(f"{flips}; 2 points of top-1 are lost ")
    assert proven(Link("float", added(1))).reason == "float against torch: a logit differs by 1, tolerated 0.001"


def test_labels_that_count_from_one_fail_though_the_logits_are_equal() -> None:
    images, labels = pixels()
    got = prove([Link("torch", FakeRunner()), Link("float", FakeRunner())], images, labels + 1)
    place = int(np.flatnonzero(labels == 3)[0])
    assert got.verdict == "failed"
    assert f"label 4 of image {place} is no class of 0 to 3; do the labels count from 1?" in got.reason


def test_a_reference_that_is_not_the_model_that_was_evaluated_fails() -> None:
    got = proven(Link("float", FakeRunner()), whole=Whole(top1=(0.85, 0.9)))
    assert got.reason == "float against torch: torch has a top-1 of 100.000%; wanted between 85.000% and 90.000%, as it was evaluated"
    assert proven(Link("float", FakeRunner()), whole=Whole(top1=(0.95, 1.0))).verdict == "passed"


def test_the_calibration_error_of_both_is_what_the_caller_computes() -> None:
    links = [Link("torch", FakeRunner()), Link("float", added(1e-5))]
    got = prove(links, *pixels(), ece=lambda logits, labels: float(logits[0, 0]) + len(labels)).whole
    assert got.ece_reference is not None and got.ece_reference >= 50
    assert got.ece_candidate == pytest.approx(got.ece_reference + 1e-5, abs=1e-6) and got.ece_candidate != got.ece_reference


def test_calls_are_counted_over_the_chain_and_reach_the_total() -> None:
    told: list[tuple[int, int]] = []
    links = [Link("torch", FakeRunner()), Link("gpu", None, why_not="none"), Link("bad", FakeRunner(lambda logits: logits[:1]))]
    prove(links, *pixels(), batch_size=20, tick=lambda done, total: told.append((done, total)))
    assert told == [(0, 6), (1, 6), (2, 6), (3, 6), (6, 6)]
    answers = proven(Link("float", FakeRunner())).answers
    prove([Link(name, answers[name]) for name in answers], *pixels(), tick=lambda *_: pytest.fail("there was nothing to ask"))


def test_a_label_too_few_is_our_mistake() -> None:
    images, labels = pixels()
    with pytest.raises(ValueError, match="50 images, 49 labels"):
        compare(FakeRunner(), FakeRunner(), images, labels[:-1], tolerance=ParityTolerance())


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([], "a chain of nothing; wanted two links or more"),
        ([Link("a", FakeRunner())], "a chain of a; wanted two"),
        ([Link("a", FakeRunner()), Link("a", FakeRunner())], "a chain of a, a; wanted two links or more, of different names"),
        ([Link("a", None, why_not="x"), Link("b", FakeRunner())], "the first with a runner"),
        ([Link("a", FakeRunner()), Link("b", None)], "b has neither a runner nor a reason why not"),
    ],
)
def test_a_chain_that_makes_no_sense_is_our_mistake(links: list[Link], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prove(links, *pixels())


def test_answers_say_who_gave_them() -> None:
    got = proven(Link("float", FakeRunner(name="other", version="2"))).answers["float"]
    assert isinstance(got, Answers) and got.runtime == "other 2" and got.logits.shape == (50, 4)


def test_an_onnx_candidate_names_its_provider(
    onnx_path: Path, preprocessing: Preprocessing, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> None:
    runner = OnnxRunner(onnx_path, preprocessing, threads=1)
    got = compare(runner, runner, images, logits.argmax(axis=1), tolerance=ParityTolerance(1e-4), batch_size=3)
    assert got.verdict == "passed" and got.candidate.endswith("CPUExecutionProvider") and got.top1_candidate == 1.0
