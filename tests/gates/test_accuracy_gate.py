"""The accuracy gate: paired, unpaired, of the file that ships, and what it says about itself."""

from collections.abc import Callable
from typing import Any

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.accuracy import Counts, accuracy_gates, changed_answers
from g2sd_deploy.gates.outcome import Gate
from g2sd_deploy.gates.packing import images_digest, packed, unpacked
from g2sd_deploy.gates.settings import AccuracyGate
from g2sd_deploy.gates.snapshot import Changes, Model, SetFigures
from g2sd_deploy.gates.statistics import Sureness

Make = Callable[..., Any]


def gate_of(before: Any, after: Any, name: str = "student", **settings: float) -> Gate:
    (gate,) = accuracy_gates(name, before, after, AccuracyGate(**settings), Sureness())
    return gate


def test_four_images_lost_and_none_gained_fail(student: Make, snapshot: Make) -> None:
    gate = gate_of(snapshot(student=student("1" * 100)), snapshot(student=student("0" * 4 + "1" * 96)))
    assert gate.verdict == "failed" and gate.figures["lost"] == 4 and gate.figures["gained"] == 0
    assert gate.figures["p"] == 1 / 32 and gate.figures["paired"]
    assert "100.00 % → 96.00 %, 4.00 points lost, p 0.0312" in gate.reason


def test_three_images_lost_may_be_chance(student: Make, snapshot: Make) -> None:
    gate = gate_of(snapshot(student=student("1" * 100)), snapshot(student=student("0" * 3 + "1" * 97)))
    assert gate.verdict == "passed" and gate.figures["p"] == 1 / 16


def test_as_many_gained_as_lost_pass_however_many_they_are(student: Make, snapshot: Make) -> None:
    gate = gate_of(snapshot(student=student("10" * 50)), snapshot(student=student("01" * 50)))
    assert gate.verdict == "passed" and (gate.figures["lost"], gate.figures["gained"]) == (50, 50)


def test_a_drop_within_the_tolerance_passes_and_one_clearly_beyond_it_fails(student: Make, snapshot: Make) -> None:
    before, after = snapshot(student=student("1" * 1000)), snapshot(student=student("0" * 20 + "1" * 980))
    assert gate_of(before, after).verdict == "failed"
    assert gate_of(before, after, max_drop_points=2.0).verdict == "passed"
    assert gate_of(before, after, max_drop_points=1.0).verdict == "failed"


def test_other_images_are_compared_without_pairs_and_it_is_said(student: Make, snapshot: Make) -> None:
    before = snapshot(student=student("1" * 90 + "0" * 10))
    small = gate_of(before, snapshot(student=student("1" * 80 + "0" * 20, images="b")))
    assert small.verdict == "failed" and not small.figures["paired"]
    assert "not paired (the images are not the same), 100 and 100 images" in small.reason
    assert gate_of(before, snapshot(student=student("1" * 85 + "0" * 15, images="b"))).verdict == "passed"


def test_without_stored_answers_accuracies_alone_are_compared(snapshot: Make) -> None:
    before, after = (Model(sets={"clean": SetFigures(num_images=5000, top1=top1)}) for top1 in (0.9, 0.85))
    gate = gate_of(snapshot(student=before), snapshot(student=after))
    assert gate.verdict == "failed" and "not paired (no answers are stored)" in gate.reason


def test_a_model_that_one_side_lacks_has_no_verdict(student: Make, snapshot: Make) -> None:
    assert gate_of(snapshot(student=student("11")), snapshot()).reason == "the run has no accuracy of student on clean"
    gate = gate_of(snapshot(), snapshot(student=student("11")))
    assert gate.verdict == "not_run" and gate.reason == "the baseline has no accuracy of student on clean"


def test_a_sample_that_is_too_small_for_what_is_asked_says_so(student: Make, snapshot: Make) -> None:
    few = snapshot(student=student("10" * 20))
    assert "more certainty is asked for than the sample gives, for drops of 1.00 points are to be found" in gate_of(few, few).caveat
    many = snapshot(student=student("1" * 3925))
    assert gate_of(many, many).caveat == ""


def test_a_tolerance_finer_than_the_sample_is_named(student: Make, snapshot: Make) -> None:
    before, after = snapshot(student=student("10" * 1000)), snapshot(student=student("01" * 20 + "10" * 980))
    assert (
        "the tolerance of 0.05 points is finer than the sample" in gate_of(before, after, max_drop_points=0.05, must_find_points=50).caveat
    )


def shipped(right: str, lost: int, gained: int) -> Model:
    num = len(right)
    top1 = (right.count("1") - lost + gained) / num
    sets = {"clean": SetFigures(num_images=num, top1=top1)}
    return Model(sets=sets, changes=Changes(of="student", num_images=num, lost=lost, gained=gained))


def test_a_file_that_answers_as_the_student_is_paired_through_it(student: Make, snapshot: Make) -> None:
    before, after = "1" * 100, "0" * 4 + "1" * 96
    known = snapshot(student=student(before), shipped=shipped(before, 0, 0))
    found = snapshot(student=student(after), shipped=shipped(after, 0, 0))
    gate = gate_of(known, found, "shipped")
    assert gate.verdict == "failed" and gate.figures["p"] == 1 / 32 and "4 lost and 0 gained of 100 images, as student" in gate.reason


def test_what_the_export_lost_counts_and_what_it_lost_before_is_taken_off(student: Make, snapshot: Make) -> None:
    right = "1" * 95 + "0" * 5
    known = snapshot(student=student(right), shipped=shipped(right, 3, 1))
    found = snapshot(student=student(right), shipped=shipped(right, 9, 0))
    assert changed_answers("shipped", "clean", known, found) == Counts(100, 10, 3, " at most, by way of student")
    assert gate_of(known, found, "shipped").figures["drop_points"] == pytest.approx(7.0)


def test_the_bound_on_changed_answers_never_raises_a_false_alarm_that_the_answers_would_not(student: Make, snapshot: Make) -> None:
    """The baseline's file lost images 0 to 4 and the run's lost the same: nothing changed, and up to ten images might have."""
    right = "1" * 100
    known = snapshot(student=student(right), shipped=shipped(right, 5, 0))
    gate = gate_of(known, known, "shipped")
    assert gate.verdict == "passed" and gate.figures["drop_points"] == 0.0


def test_a_file_proven_on_fewer_images_is_compared_without_pairs(student: Make, snapshot: Make) -> None:
    known = snapshot(student=student("1" * 100), shipped=shipped("1" * 50, 0, 0))
    assert "not paired (the file was not proven on all of the images that student answered)" in gate_of(known, known, "shipped").reason


@pytest.mark.parametrize("num", [1, 7, 8, 9, 100])
def test_bits_come_back_as_they_were(answers: Make, num: int) -> None:
    bits = [place % 3 == 0 for place in range(num)]
    assert unpacked(answers(bits)).tolist() == bits


def test_bits_of_another_number_of_images_are_refused(answers: Make) -> None:
    with pytest.raises(UserError, match="are no bits of 100 images"):
        unpacked(answers("1" * 8).model_copy(update={"num_images": 100}))
    with pytest.raises(UserError, match="are no bits of 8 images"):
        unpacked(answers("1" * 8).model_copy(update={"right": "no base64!"}))


def test_the_digest_of_images_tells_names_places_labels_order_and_pixels_apart() -> None:
    base = images_digest(["a", "b"], [0, 1], [3, 4], "p")
    others = [
        images_digest(["a", "c"], [0, 1], [3, 4], "p"),
        images_digest(["a", "b"], [0, 2], [3, 4], "p"),
        images_digest(["a", "b"], [0, 1], [3, None], "p"),
        images_digest(["b", "a"], [1, 0], [4, 3], "p"),
        images_digest(["a", "b"], [0, 1], [3, 4], "q"),
    ]
    assert len({base, *others}) == 6 and base == images_digest(["a", "b"], [0, 1], [3, 4], "p")
    assert packed(unpacked_bits()) == "gA=="


def unpacked_bits() -> Any:
    import numpy as np

    return np.array([True])
