"""The judgement of two sets of logits, against formulas of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from g2sd_export.edge.agreement import ParityTolerance, judge, measure_agreement
from g2sd_export.edge.errors import UserError


def test_numbers_equal_plain_formulas_in_float64() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 7)).astype(np.float32)
    candidate = (reference + rng.normal(scale=0.3, size=reference.shape)).astype(np.float32)
    differences, cosines, flips = [], [], 0
    for row, other in zip(reference.tolist(), candidate.tolist(), strict=True):
        differences += [abs(a - b) for a, b in zip(row, other, strict=True)]
        lengths = math.sqrt(math.fsum(a * a for a in row)) * math.sqrt(math.fsum(b * b for b in other))
        cosines.append(math.fsum(a * b for a, b in zip(row, other, strict=True)) / lengths)
        flips += row.index(max(row)) != other.index(max(other))
    got = measure_agreement(reference, candidate)
    assert flips > 0
    assert (got.num_images, got.flipped, got.flipped_share) == (40, flips, flips / 40)
    assert got.max_abs_logit_diff == pytest.approx(max(differences), rel=1e-12)
    assert got.mean_abs_logit_diff == pytest.approx(math.fsum(differences) / len(differences), rel=1e-12)
    assert got.min_cosine == pytest.approx(min(cosines), rel=1e-12)


def test_equal_logits_agree_entirely() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    verdict, reason, agreement = judge(logits, logits.copy(), ParityTolerance(0.0, 0.0))
    assert (verdict, reason) == ("passed", "")
    assert agreement is not None and agreement.min_cosine == pytest.approx(1) and agreement.max_abs_logit_diff == 0


@pytest.mark.parametrize(("row", "cosine"), [([0.0, 0.0], 1.0), ([1.0, 0.0], 0.0)])
def test_the_cosine_of_zero_logits_is_defined(row: list[float], cosine: float) -> None:
    assert measure_agreement(np.zeros((1, 2)), np.array([row])).min_cosine == cosine


def test_a_difference_at_the_tolerance_passes_and_above_it_fails() -> None:
    reference = np.array([[0.0, 1.0]])
    assert judge(reference, reference + 0.5, ParityTolerance(0.5))[0] == "passed"
    verdict, reason, _ = judge(reference, reference + 0.5, ParityTolerance(0.25))
    assert (verdict, reason) == ("failed", "a logit differs by 0.5, tolerated 0.25")


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


@pytest.mark.parametrize(("diff", "share"), [(-1.0, 0.0), (math.nan, 0.0), (math.inf, 0.0), (0.0, 1.5), (0.0, -0.1), (0.0, math.nan)])
def test_a_tolerance_out_of_range_is_refused(diff: float, share: float) -> None:
    with pytest.raises(UserError, match=r"tolerance: .* it must"):
        ParityTolerance(diff, share)


def test_a_tolerance_survives_json_and_refuses_other_keys() -> None:
    tolerance = ParityTolerance(0.01, 0.002)
    assert ParityTolerance.from_dict(tolerance.to_dict()) == tolerance
    with pytest.raises(UserError, match="wanted a number for each of max_abs_logit_diff and flipped_share"):
        ParityTolerance.from_dict({"max_abs_logit_diff": 1e-3})
