"""The judgement of two sets of logits, against formulas of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from g2sd_export.edge.agreement import ParityTolerance, judge, measure_agreement
from g2sd_export.edge.errors import UserError


def shares(row: list[float]) -> list[float]:
    total = math.fsum(math.exp(logit) for logit in row)
    return [math.exp(logit) / total for logit in row]


def test_numbers_equal_plain_formulas_in_float64() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 7)).astype(np.float32)
    candidate = (reference + rng.normal(scale=0.3, size=reference.shape)).astype(np.float32)
    differences, cosines, divergences, flips = [], [], [], 0
    for row, other in zip(reference.tolist(), candidate.tolist(), strict=True):
        differences += [abs(a - b) for a, b in zip(row, other, strict=True)]
        lengths = math.sqrt(math.fsum(a * a for a in row)) * math.sqrt(math.fsum(b * b for b in other))
        cosines.append(math.fsum(a * b for a, b in zip(row, other, strict=True)) / lengths)
        divergences.append(math.fsum(p * math.log(p / q) for p, q in zip(shares(row), shares(other), strict=True)))
        flips += row.index(max(row)) != other.index(max(other))
    got = measure_agreement(reference, candidate)
    assert flips > 0
    assert (got.num_images, got.flipped, got.flipped_share) == (40, flips, flips / 40)
    assert got.max_abs_logit_diff == pytest.approx(max(differences), rel=1e-12)
    assert got.mean_abs_logit_diff == pytest.approx(math.fsum(differences) / len(differences), rel=1e-12)
    assert got.min_cosine == pytest.approx(min(cosines), rel=1e-12)
    assert got.mean_kl == pytest.approx(math.fsum(divergences) / 40, rel=1e-9) and got.mean_kl > 0.01


def test_equal_logits_agree_entirely() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    verdict, reason, agreement = judge(logits, logits.copy(), ParityTolerance(0.0, 0.0))
    assert (verdict, reason) == ("passed", "")
    assert agreement is not None and (agreement.min_cosine, agreement.max_abs_logit_diff, agreement.mean_kl) == (1, 0, 0)
    assert judge(logits, logits.copy(), ParityTolerance(0.0, 0.0, 1.0, 0.0))[0] == "passed"


@pytest.mark.parametrize(("row", "cosine"), [([0.0, 0.0], 1.0), ([1.0, 0.0], 0.0)])
def test_the_cosine_of_zero_logits_is_defined(row: list[float], cosine: float) -> None:
    assert measure_agreement(np.zeros((1, 2)), np.array([row])).min_cosine == cosine


def test_a_difference_at_the_tolerance_passes_and_above_it_fails() -> None:
    reference = np.array([[0.0, 1.0]])
    assert judge(reference, reference + 0.5, ParityTolerance(0.5))[0] == "passed"
    verdict, reason, _ = judge(reference, reference + 0.5, ParityTolerance(0.25))
    assert (verdict, reason) == ("failed", "a logit differs by 0.5, tolerated 0.25")


def test_logits_that_no_softmax_of_floats_could_hold_are_compared() -> None:
    reference = np.array([[1e4, -1e4, 0.0]], np.float32)
    got = measure_agreement(reference, -reference)
    assert got.mean_kl == pytest.approx(2e4)  # all on the first class, which the other gives exp(-20000)
    assert measure_agreement(reference, reference + 7).mean_kl == 0


def test_directions_and_probabilities_fail_where_they_are_asked_for() -> None:
    reference, candidate = np.array([[0.0, 1.0]]), np.array([[0.5, 1.0]])
    assert judge(reference, candidate, ParityTolerance(1.0))[0] == "passed"
    _, reason, _ = judge(reference, candidate, ParityTolerance(1.0, min_cosine=0.9))
    assert reason == "the cosine of an image's logits is 0.894427, wanted at least 0.9"
    _, reason, _ = judge(reference, candidate, ParityTolerance(1.0, max_mean_kl=0.001))
    assert reason == "the mean KL divergence is 0.0263 nats, tolerated 0.001"


def test_a_flip_above_the_tolerated_share_fails_with_the_counts() -> None:
    reference = np.tile([0.0, 1e-6], (8, 1))
    candidate = reference.copy()
    candidate[3] = [1e-6, 0.0]
    verdict, reason, _ = judge(reference, candidate, ParityTolerance())
    assert (verdict, reason) == ("failed", "1 of 8 decisions flip (12.500%), tolerated 0.000%")
    assert judge(reference, candidate, ParityTolerance(flipped_share=0.125))[0] == "passed"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("who", ["reference", "candidate"])
def test_logits_that_are_not_finite_fail_whatever_is_tolerated(bad: float, who: str) -> None:
    pair = {"reference": np.zeros((4, 2)), "candidate": np.zeros((4, 2))}
    pair[who][2, 1] = bad
    verdict, reason, agreement = judge(pair["reference"], pair["candidate"], ParityTolerance(1e9, 1.0))
    assert (verdict, agreement) == ("failed", None)
    assert reason == f"the {who}'s logits are NaN or infinite for 1 of 4 images"


def test_shapes_that_differ_fail_and_no_images_is_not_run() -> None:
    verdict, reason, _ = judge(np.zeros((4, 2)), np.zeros((4, 3)), ParityTolerance())
    assert verdict == "failed" and "[4, 2]" in reason and "[4, 3]" in reason
    assert judge(np.zeros((0, 2)), np.zeros((0, 2)), ParityTolerance())[0] == "not_run"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("max_abs_logit_diff", value) for value in (-1.0, math.nan, math.inf)),
        *(("flipped_share", value) for value in (1.5, -0.1, math.nan)),
        *(("min_cosine", value) for value in (1.1, -1.1, math.nan)),
        *(("max_mean_kl", value) for value in (-1.0, math.nan, math.inf)),
    ],
)
def test_a_tolerance_out_of_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"tolerance: {key} is .* it must"):
        ParityTolerance(**{key: value})


def test_a_tolerance_survives_json_and_refuses_other_keys() -> None:
    tolerance = ParityTolerance(0.01, 0.002)
    assert ParityTolerance.from_dict(tolerance.to_dict()) == tolerance
    assert tolerance.to_dict() == {"max_abs_logit_diff": 0.01, "flipped_share": 0.002}  # what asks nothing is not written
    strict = ParityTolerance(0.01, 0.002, 0.99, 0.0)
    assert ParityTolerance.from_dict(strict.to_dict()) == strict
    assert ParityTolerance.from_dict({**tolerance.to_dict(), "min_cosine": -1, "max_mean_kl": None}) == tolerance


@pytest.mark.parametrize("change", [{"flipped_share": None}, {"margin": 1.0}, {"min_cosine": None}, {"max_mean_kl": True}])
def test_a_tolerance_with_other_keys_or_values_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="wanted a number for each of max_abs_logit_diff and flipped_share"):
        ParityTolerance.from_dict({"max_abs_logit_diff": 1e-3, "flipped_share": 0.0, **change})
    with pytest.raises(UserError, match="wanted a number for each of max_abs_logit_diff and flipped_share"):
        ParityTolerance.from_dict({"max_abs_logit_diff": 1e-3})
