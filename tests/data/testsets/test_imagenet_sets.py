"""Scores of miniature ImageNet sets, worked out by hand: each has the trap that its protocol is known for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.testsets.label_spaces import imagenet_subset, imagenet_wnids, timm_info
from g2sd_deploy.data.testsets.protocols import imagenette_wnids
from g2sd_deploy.data.testsets.scorings import TestSet

Score = Callable[..., tuple[int, int]]


def right_for(*labels: int) -> Callable[[int], tuple[int, int]]:
    """The model is right about these classes; of any other it says the next one."""
    return lambda label: (label, label) if label in labels else ((label + 1) % 1000, (label + 1) % 1000)


def names_of(test: TestSet) -> list[str]:
    return [scoring.name for scoring in test.scorings]


@pytest.mark.parametrize("spec", ["imagenet-val", "imagenet-val={home}/imagenet-val", "imagenet-val={home}/imagenet-val/val"])
def test_validation_images_are_found_in_their_folder_and_in_the_one_above(miniatures: Any, spec: str) -> None:
    miniatures.val(right_for())
    test = miniatures.one(spec.format(home=miniatures.home))
    assert test.scorings[0].labels.tolist() == list(range(1000))
    assert test.samples.name(1) == "n01443537/ILSVRC2012_val_00000038.JPEG"
    assert test.scorings[0].note == "ImageNet validation, all logits; 1,000 images are there, 50,000 are published"


def test_folders_of_v2_are_class_numbers_however_they_sort_as_text(miniatures: Any, scored: Score) -> None:
    miniatures.v2(right_for(0, 1, 2, 10, 100, 999))
    test = miniatures.one("imagenetv2-matched-frequency")
    assert scored(test, "imagenetv2-matched-frequency") == (6, 1000)
    order = [test.samples.name(index).partition("/")[0] for index in range(len(test.samples))]
    assert [order.index(str(label)) for label in (0, 1, 2, 10, 100, 999)] == [0, 1, 2, 10, 100, 999]
    as_text = {folder: label for label, folder in enumerate(sorted(order))}
    assert (as_text["100"], as_text["2"]) == (3, 112)  # what a plain sort would make of them


def test_v2_is_found_in_the_folder_that_its_archive_makes(miniatures: Any, scored: Score) -> None:
    miniatures.v2(right_for(5), folder="down/imagenetv2-matched-frequency-format-val")
    test = miniatures.one(f"imagenetv2-matched-frequency={miniatures.home}/down")
    assert scored(test, "imagenetv2-matched-frequency") == (1, 1000)


def test_the_logits_of_a_and_r_are_cut_to_different_classes(miniatures: Any, scored: Score) -> None:
    order = imagenet_wnids()
    a, r = ({order.index(wnid) for wnid in imagenet_subset(which)} for which in "ar")  # type: ignore[arg-type]
    only_a = min(a - r)
    # first something that only A has, then the truth: right where the cut takes the first answer away
    for which in "ar":
        miniatures.subset(which, lambda label: (only_a, label))
    tests = {test.name: test for test in miniatures.open("imagenet-a", "imagenet-r")}
    assert scored(tests["imagenet-a"], "imagenet-a") == (1, 200)  # of the class only_a alone
    assert scored(tests["imagenet-r"], "imagenet-r") == (200, 200)
    assert all(len(test.samples) == 200 and test.scorings[0].restricted for test in tests.values())


def test_a_is_scored_with_200_logits_in_the_published_order(miniatures: Any, toy: Any) -> None:
    miniatures.subset("a", right_for(6))
    scoring = miniatures.one("imagenet-a").scorings[0]
    aligned = scoring.aligned(toy().space)
    assert aligned.columns is not None
    assert aligned.columns[:6].tolist() == [6, 11, 13, 15, 17, 22]
    assert aligned.columns[-3:].tolist() == [986, 987, 988]
    assert aligned.labels.tolist() == list(range(200))


def test_clean_images_of_the_same_classes_are_scored_with_the_same_cut_in_the_same_pass(miniatures: Any, scored: Score) -> None:
    order = imagenet_wnids()
    a, r = ({order.index(wnid) for wnid in imagenet_subset(which)} for which in "ar")  # type: ignore[arg-type]
    outside = min(set(range(1000)) - a - r)
    # of every image a wrong class is first, which A and R lack; the truth is second for classes below 500 only
    miniatures.val(lambda label: (outside, label if label < 500 else outside))
    for which in "ar":
        miniatures.subset(which, right_for())
    val, *others = miniatures.open("imagenet-val", "imagenet-a", "imagenet-r")
    assert names_of(val) == ["imagenet-val", "imagenet-a-clean", "imagenet-r-clean"]
    assert [names_of(test) for test in others] == [["imagenet-a"], ["imagenet-r"]]
    assert scored(val, "imagenet-val") == (1, 1000)
    # from class 500 on no kept logit stands out, and the first of the cut, a class below 500, is the answer
    assert scored(val, "imagenet-a-clean") == (101, 200)
    assert scored(val, "imagenet-r-clean") == (134, 200)


@pytest.mark.parametrize("specs", [("imagenet-val",), ("imagenet-a",)])
def test_clean_scores_need_both_sets(miniatures: Any, specs: tuple[str, ...]) -> None:
    miniatures.val(right_for())
    miniatures.subset("a", right_for())
    assert names_of(miniatures.one(*specs)) == [*specs]


def test_real_labels_belong_to_file_names_several_may_be_right_and_none_means_not_scored(miniatures: Any, scored: Score) -> None:
    miniatures.val(lambda label: (label, label))  # the model says the class of the folder
    numbers = {label: 1 + label * 37 % 1000 for label in range(5)}
    assert numbers == {0: 1, 1: 38, 2: 75, 3: 112, 4: 149}
    miniatures.real(
        {
            1: [0],  # right
            38: [7, 1, 9],  # right: one of three
            75: [7],  # wrong, though it is the class of the folder
            112: [],  # not scored
            2: [999],  # image 2 is of class 973: wrong
        }
    )
    test = miniatures.one("imagenet-real")
    assert scored(test, "imagenet-real") == (2, 4)
    assert "labels of real.json; 996 images without a label are not scored" in test.scorings[0].note


def test_validation_images_are_read_once_for_their_labels_and_for_reals(miniatures: Any, scored: Score) -> None:
    miniatures.val(lambda label: (label, label))
    miniatures.real({1: [5], 38: [1]})
    miniatures.subset("a", right_for())
    val, _ = miniatures.open("imagenet-real", "imagenet-a", "imagenet-val")
    assert names_of(val) == ["imagenet-real", "imagenet-val", "imagenet-a-clean"]
    assert [scored(val, name) for name in names_of(val)] == [(1, 2), (1000, 1000), (200, 200)]


def test_real_takes_the_validation_images_asked_for_beside_it(miniatures: Any) -> None:
    miniatures.val(right_for(), folder="elsewhere")
    test = miniatures.one(f"imagenet-val={miniatures.home}/elsewhere", "imagenet-real")
    assert names_of(test) == ["imagenet-val", "imagenet-real"]


def test_real_falls_back_to_the_copy_of_its_labels_in_timm(miniatures: Any) -> None:
    miniatures.val(right_for())
    test = miniatures.one(f"imagenet-real={miniatures.home}/imagenet-val")
    assert "timm's copy of real.json" in test.scorings[0].note
    labels, wanted = test.scorings[0].label_sets, json.loads(timm_info("imagenet_real_labels.json"))
    assert labels is not None
    for index in (0, 1, 500, 999):  # one image of each class, by the number in its name
        number = int(test.samples.name(index)[-13:-5])
        assert number == 1 + index * 37 % 1000
        assert labels.rows(np.array([index]), np.arange(1000), 1000)[0].nonzero()[0].tolist() == sorted(wanted[number - 1])


def test_real_json_beside_the_images_is_preferred(miniatures: Any, scored: Score) -> None:
    miniatures.val(lambda label: (label, label))
    miniatures.real({1: [5]})
    miniatures.real({1: [0]}, folder="imagenet-val")
    assert scored(miniatures.one(f"imagenet-real={miniatures.home}/imagenet-val"), "imagenet-real") == (1, 1)


def test_sketch_uses_all_logits(miniatures: Any, scored: Score) -> None:
    miniatures.sketch(right_for(*range(0, 1000, 2)))
    test = miniatures.one("imagenet-sketch")
    assert scored(test, "imagenet-sketch") == (500, 1000)
    assert test.scorings[0].note == "ImageNet-Sketch, all logits; 1,000 images are there, 50,889 are published"


def test_imagenette_is_scored_over_all_logits_and_over_those_of_its_classes(miniatures: Any, scored: Score) -> None:
    miniatures.imagenette(lambda label: (1, label))  # goldfish first: no class of Imagenette
    test = miniatures.one("imagenette")
    assert scored(test, "imagenette") == (0, 10)
    assert scored(test, "imagenette-restricted") == (10, 10)
    assert "logits cut to its 10 classes" in test.scorings[1].note


def test_imagenette_is_scored_once_for_models_that_know_its_classes_alone(miniatures: Any, toy: Any, scored: Score) -> None:
    miniatures.imagenette(lambda label: (1, label))
    test = miniatures.one("imagenette2-320")
    student, teacher = toy(tuple(reversed(imagenette_wnids()))), toy()
    assert names_of(test.without_repeats([student.space])) == ["imagenette2-320"]
    assert names_of(test.without_repeats([student.space, teacher.space])) == ["imagenette2-320", "imagenette2-320-restricted"]
    assert scored(test, "imagenette2-320", student) == (10, 10)


def test_a_cut_without_a_free_counterpart_is_never_left_out(miniatures: Any, toy: Any) -> None:
    miniatures.subset("a", right_for())
    test = miniatures.one("imagenet-a")
    assert test.without_repeats([toy(imagenet_subset("a")).space]) == test


def test_a_student_of_imagenette_is_refused_on_imagenet_a(miniatures: Any, toy: Any, refused: Any) -> None:
    miniatures.subset("a", right_for())
    scoring = miniatures.one("imagenet-a").scorings[0]
    refused(
        lambda: scoring.aligned(toy(imagenette_wnids()).space),
        r"^imagenet-a: the model has 10 classes \(n01440764, n02102040, n02979186, \.\.\.\) and lacks 198 of the set's 200: n01498041, "
        r"n01531178, n01534433 and 195 more; leave the set out, or say which .* --class-map FILE",
    )


def test_a_student_of_the_200_classes_is_scored_by_name(miniatures: Any, toy: Any, scored: Score) -> None:
    miniatures.subset("a", right_for(6, 11, 13))
    student = toy(tuple(reversed(imagenet_subset("a"))))
    assert scored(miniatures.one("imagenet-a"), "imagenet-a", student) == (3, 200)


def test_a_limit_is_spread_evenly_and_labels_follow(miniatures: Any, scored: Score) -> None:
    miniatures.val(right_for(0, 250, 750))
    miniatures.real({1: [0], 1 + 500 * 37 % 1000: [500], 38: [1]})
    test = miniatures.one("imagenet-val", "imagenet-real", max_images=4)
    assert [test.samples.name(index)[:9] for index in range(4)] == [imagenet_wnids()[label] for label in (0, 250, 500, 750)]
    assert test.scorings[0].labels.tolist() == test.samples.labels.tolist() == [0, 250, 500, 750]
    assert scored(test, "imagenet-val") == (3, 4)
    assert scored(test, "imagenet-real") == (1, 2)
    assert "4 of 1,000 images, evenly spread" in test.scorings[0].note


def test_a_fingerprint_changes_with_files_labels_and_protocol_and_with_nothing_else(miniatures: Any, tmp_path: Path) -> None:
    folder = miniatures.imagenette(right_for())
    miniatures.imagenette(right_for(), folder="copy/val")

    def fingerprint(spec: str = "imagenette", **options: object) -> str:
        found: str = miniatures.one(spec, **options).fingerprint
        return found

    before = fingerprint()
    assert fingerprint() == fingerprint(f"imagenette={miniatures.home}/copy") == before
    class_map = tmp_path / "map.txt"
    class_map.write_text("n01440764 tench\n")
    others = [fingerprint("imagenette2-320"), fingerprint(max_images=5), fingerprint(class_map=class_map)]
    image = next((folder / "n01440764").iterdir())
    image.write_bytes(image.read_bytes() + b"\0")
    others.append(fingerprint())
    image.rename(image.with_name("ILSVRC2012_val_00009999.JPEG"))
    others.append(fingerprint())
    assert len({before, *others}) == 6
