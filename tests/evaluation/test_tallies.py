"""Scores that are added up batch by batch, against those of all images at once."""

import numpy as np
import pytest

from g2sd_deploy.evaluation.corruption_error import ALEXNET_ERRORS
from g2sd_deploy.evaluation.metrics import brief_scores
from g2sd_deploy.evaluation.outcomes import Outcomes, outcomes_of
from g2sd_deploy.evaluation.tallies import CorruptionTallies, Tally

NUM = 40


def outcomes(seed: int, *, several: bool = False) -> Outcomes:
    random = np.random.default_rng(seed)
    logits, labels = 3 * random.normal(size=(NUM, 7)), random.integers(0, 7, NUM)
    right = random.random((NUM, 7)) < 0.4
    right[:, 0] = True
    return outcomes_of(logits, labels, right=right if several else None)


@pytest.mark.parametrize("several", [False, True])
def test_a_tally_of_batches_is_the_brief_scores_of_the_whole(several: bool) -> None:
    whole, tally = outcomes(0, several=several), Tally()
    for part in np.split(np.arange(NUM), [1, 4, 20]):
        tally.add(whole.take(part))
    wanted = brief_scores(whole)
    assert tally.scores().keys() == wanted.keys()
    for name, value in tally.scores().items():
        assert value is wanted[name] is None or value == pytest.approx(wanted[name], rel=1e-12)
    low, high = tally.top1_interval()
    assert low < wanted["top1"] < high


def test_an_empty_tally_has_no_scores() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        Tally().scores()


def test_the_mean_over_corruptions_weighs_every_case_alike_and_its_interval_knows_that_the_images_are_the_same() -> None:
    cases = [("fog", 1), ("fog", 5), ("contrast", 3)]
    found = {case: outcomes(seed) for seed, case in enumerate(cases)}
    tallies = CorruptionTallies(cases, alexnet=False)
    for case, whole in found.items():
        for part in np.split(np.arange(NUM), 4):
            tallies.add(case, whole.take(part), part.tolist())
    correct = np.stack([whole.rank == 0 for whole in found.values()]).astype(np.float64)
    per_corruption = np.stack([correct[:2].mean(axis=0), correct[2]])
    mean, interval = tallies.mean_top1()
    assert mean == pytest.approx(per_corruption.mean(), rel=1e-12)
    assert interval is not None
    half = 2.0226909200367604 * per_corruption.mean(axis=0).std(ddof=1) / NUM**0.5  # Student's t of 39 degrees of freedom
    assert interval == pytest.approx([mean - half, mean + half], rel=1e-9)
    assert tallies.corruptions()["fog"]["5"]["top1"] == correct[1].mean()


def test_the_stored_corruptions_of_imagenet_are_weighed_by_alexnets_errors() -> None:
    cases = [(name, severity) for name in ALEXNET_ERRORS for severity in (1, 2, 3, 4, 5)]
    tallies = CorruptionTallies(cases, alexnet=True)
    errors = {}
    for seed, case in enumerate(cases):
        whole = outcomes(seed)
        tallies.add(case, whole, range(NUM))
        errors[case] = 1 - (whole.rank == 0).mean()
    by_name = {name: np.mean([errors[name, severity] for severity in (1, 2, 3, 4, 5)]) for name in ALEXNET_ERRORS}
    found = tallies.summary(clean_error=0.2)
    assert found["mean_error"] == pytest.approx(np.mean(list(by_name.values())))
    assert found["mce"] == pytest.approx(np.mean([by_name[name] / ALEXNET_ERRORS[name] for name in by_name]))
    clean_of_alexnet = 0.43478
    assert found["relative_mce"] == pytest.approx(
        np.mean([(by_name[name] - 0.2) / (ALEXNET_ERRORS[name] - clean_of_alexnet) for name in by_name])
    )
    assert found["intervals"]["mce"][0] < found["mce"] < found["intervals"]["mce"][1]
    assert tallies.summary()["relative_mce"] is None
