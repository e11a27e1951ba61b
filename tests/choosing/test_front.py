"""What is worth its latency, and what is taken under a budget."""

import itertools

import pytest

from g2sd_deploy.choosing.front import Budget, Candidate, compared, front_of, is_tied, pick
from g2sd_deploy.choosing.latencies import Latency
from g2sd_deploy.choosing.points import Accuracy, Images, Point, difference
from g2sd_export.paired import score_interval

IMAGES = Images("w", "pets", 1000)
OTHER = Images("v", "pets", 1000)


def one(
    name: str, hits: int, p50_ms: float, *, half_ms: float = 0.0, changed: tuple[int, int] = (0, 0), images: Images = IMAGES
) -> Candidate:
    accuracy = Accuracy(images, hits, *changed)
    point = Point(name, "fp32-openvino", "fp32", "openvino", 0, name, accuracy, 1)
    return Candidate(point, accuracy, Latency(p50_ms, p50_ms - half_ms, p50_ms + half_ms, 2, "here", "a profile"))


def names(candidates: tuple[Candidate, ...]) -> list[str]:
    return [each.point.model for each in candidates]


def test_the_front_holds_what_nothing_beats_most_accurate_first() -> None:
    found = front_of([one("slow", 900, 20), one("fast", 800, 5), one("worse", 790, 6), one("middle", 850, 10), one("slower", 850, 11)])
    assert names(found.members) == ["slow", "middle", "fast"]
    assert {name.split()[0]: by.point.model for name, by in found.beaten_by.items()} == {"worse": "fast", "slower": "middle"}


def test_no_order_of_the_arguments_changes_the_front() -> None:
    candidates = [one("a", 900, 20, half_ms=1), one("b", 880, 19), one("c", 880, 12), one("d", 700, 11.9, half_ms=0.5)]
    fronts = {tuple(names(front_of(order).members)) for order in itertools.permutations(candidates)}
    assert fronts == {("a", "c")}


def test_being_faster_within_the_intervals_of_both_medians_is_not_being_faster() -> None:
    found = front_of([one("accurate", 900, 10.0, half_ms=0.2), one("hardly faster", 890, 9.8, half_ms=0.2)])
    assert names(found.members) == ["accurate"]
    found = front_of([one("accurate", 900, 10.0, half_ms=0.05), one("faster", 890, 9.8, half_ms=0.05)])
    assert names(found.members) == ["accurate", "faster"]


def test_two_number_formats_of_one_student_are_compared_by_the_images_that_changed_sides() -> None:
    fp32, int8 = one("fp32", 900, 20), one("int8", 890, 10, changed=(12, 2))
    assert difference(fp32.accuracy, int8.accuracy) == (pytest.approx(0.01), *score_interval(12, 2, 1000))
    assert not is_tied(fp32, int8)
    assert is_tied(one("fp32", 900, 20), one("int8", 890, 10, changed=(60, 50))), "as many changed sides both ways"


def test_two_students_are_compared_as_independent_samples() -> None:
    gap, low, high = difference(one("a", 900, 20).accuracy, one("b", 890, 10, images=OTHER).accuracy)
    assert gap == pytest.approx(0.01) and low == pytest.approx(-0.0171, abs=2e-4) and high == pytest.approx(0.0371, abs=2e-4)
    assert is_tied(one("a", 900, 20), one("b", 890, 10, images=OTHER))
    assert not is_tied(one("a", 900, 20), one("b", 850, 10, images=OTHER))


def test_without_a_budget_the_fastest_of_those_tied_with_the_most_accurate_is_taken() -> None:
    found = pick([one("best", 900, 20), one("tied", 899, 10, changed=(3, 2)), one("worse", 850, 5, changed=(60, 10))], Budget())
    assert found is not None and found[0].point.model == "tied"
    assert "tied with that of the most accurate, best fp32-openvino (90.00%), of 3" in found[1]


def test_of_several_as_fast_the_most_accurate_is_taken() -> None:
    found = pick([one("fp32", 900, 10.0, half_ms=0.3), one("int8", 899, 9.8, half_ms=0.3, changed=(1, 0))], Budget())
    assert found is not None and found[0].point.model == "fp32" and found[1] == "the most accurate of 2"


def test_a_limit_on_latency_is_kept_to_and_the_most_accurate_within_it_taken() -> None:
    candidates = [one("slow", 950, 20), one("fits", 900, 10), one("fast", 800, 5)]
    found = pick(candidates, Budget(max_latency_ms=10))
    assert found is not None and found[0].point.model == "fits"
    assert found[1] == "the most accurate of 2 with a median of at most 10 ms"


def test_a_limit_on_accuracy_takes_the_fastest_that_keeps_it() -> None:
    candidates = [one("slow", 950, 20), one("fits", 900, 10), one("fast", 800, 5)]
    found = pick(candidates, Budget(min_top1=0.85))
    assert found is not None and found[0].point.model == "fits" and found[1] == "the fastest of 2 with a top-1 of at least 85.00%"
    assert pick(candidates, Budget(max_latency_ms=9, min_top1=0.85)) is None


def test_the_nearest_are_the_best_on_either_side_of_a_budget_that_nothing_keeps() -> None:
    candidates = [one("slow", 950, 20), one("less slow", 900, 12), one("fast", 800, 5), one("fast and bad", 700, 4)]
    assert names(tuple(Budget(10, 0.85).nearest(candidates))) == ["less slow", "fast"]
    assert names(tuple(Budget(1, 0.99).nearest(candidates))) == ["fast and bad", "slow"]


def test_what_another_choice_would_change_is_told_with_its_interval() -> None:
    told = compared(one("a", 900, 10), one("b", 890, 5, changed=(12, 2)))
    low, high = (100 * -end for end in reversed(score_interval(12, 2, 1000)))
    assert told == f"5 ms (0.50 times the latency) and -1.00 points of top-1 (95 % interval {low:+.2f} to {high:+.2f})"
