"""How the classes of a set are found among a model's logits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from g2sd_deploy.data.testsets import LabelSets, LabelSpace, Scoring
from g2sd_deploy.data.testsets.class_maps import read_class_map
from g2sd_deploy.data.testsets.label_spaces import imagenet_subset, imagenet_wnids, timm_info

NUMBERS = tuple(map(str, range(1000)))


def scoring(
    class_names: tuple[str, ...], labels: list[int], *, restricted: bool = False, class_map: dict[str, str] | None = None
) -> Scoring:
    return Scoring("birds", np.array(labels, dtype=np.int64), class_names, restricted, "", class_map=class_map or {})


def space(*names: str) -> LabelSpace:
    return LabelSpace.of(names, len(names))


def test_the_subsets_are_the_published_ones() -> None:
    order = imagenet_wnids()
    assert list(order) == sorted(order)
    assert (len(order), order[0]) == (1000, "n01440764")
    subsets = {which: imagenet_subset(which) for which in ("a", "r")}  # type: ignore[arg-type]
    for which, names in subsets.items():
        assert len(names) == 200
        assert list(names) == timm_info(f"imagenet_{which}_synsets.txt").split()
    assert len(set(subsets["a"]) & set(subsets["r"])) == 86


def test_classes_are_found_by_name_wherever_the_model_has_them() -> None:
    aligned = scoring(("owl", "tit"), [0, 1, 1, -1]).aligned(space("tit", "cat", "owl"))
    assert aligned.columns is None
    assert aligned.labels.tolist() == [2, 0, 0, -1]
    assert aligned.num_classes == 3


def test_a_cut_keeps_the_sets_classes_in_the_sets_order() -> None:
    aligned = scoring(("owl", "tit"), [0, 1, -1], restricted=True).aligned(space("tit", "cat", "owl"))
    assert aligned.columns is not None
    assert aligned.columns.tolist() == [2, 0]
    assert aligned.labels.tolist() == [0, 1, -1]
    assert aligned.num_classes == 2


@pytest.mark.parametrize("restricted", [False, True])
def test_logits_of_exactly_the_sets_classes_are_brought_into_its_order_and_left_alone_where_they_are_in_it(restricted: bool) -> None:
    birds = scoring(("owl", "tit", "wren"), [0, 2], restricted=restricted)
    turned, straight = birds.aligned(space("wren", "owl", "tit")), birds.aligned(space("owl", "tit", "wren"))
    assert turned.columns is not None
    assert turned.columns.tolist() == [1, 2, 0]
    assert straight.columns is None
    assert turned.labels.tolist() == straight.labels.tolist() == [0, 2]


def test_a_class_that_the_model_lacks_is_named() -> None:
    with pytest.raises(
        Exception, match=r"^birds: the model has 2 classes \(tit, cat, \.\.\.\) and lacks 1 of the set's 2: owl; .*--class-map"
    ):
        scoring(("owl", "tit"), [1]).aligned(space("tit", "cat"))


@pytest.mark.parametrize("names", [None, NUMBERS])
def test_1000_logits_without_names_are_in_the_order_of_imagenet_for_sets_of_imagenet_only(
    names: tuple[str, ...] | None, refused: Any
) -> None:
    unnamed = LabelSpace.of(names, 1000)
    aligned = scoring((imagenet_wnids()[7], imagenet_wnids()[2]), [0, 1]).aligned(unnamed)
    assert aligned.labels.tolist() == [7, 2]
    assert aligned.note == "its 1000 logits have no names and are taken in the order of ImageNet's WordNet ids"
    refused(lambda: scoring(("owl", "tit"), [0]).aligned(unnamed), "the model has 1000 classes without names and lacks 2 of the set's 2")
    refused(lambda: scoring(("n01440764", "n99999999"), [0]).aligned(unnamed), "lacks 2 of the set's 2")


def test_other_numbers_of_logits_without_names_have_no_order(refused: Any) -> None:
    refused(lambda: scoring(imagenet_wnids(), [0]).aligned(LabelSpace.of(None, 1001)), "the model has 1001 classes without names and lacks")


def test_logits_without_names_fit_classes_without_names() -> None:
    aligned = scoring(("0", "1", "10", "2"), [0, 2]).aligned(LabelSpace.of(None, 11))
    assert aligned.labels.tolist() == [0, 10]
    assert aligned.note == ""


def test_a_named_model_is_read_by_its_names_and_nothing_is_assumed() -> None:
    names = (*imagenet_wnids()[1:], imagenet_wnids()[0])
    aligned = scoring((imagenet_wnids()[0],), [0]).aligned(LabelSpace.of(names, 1000))
    assert (aligned.labels.tolist(), aligned.note) == ([999], "")


def test_names_that_do_not_fit_the_logits_or_come_twice_are_refused(refused: Any) -> None:
    refused(lambda: LabelSpace.of(("a", "b"), 3), "the model has 3 logits, but names 2 classes")
    refused(lambda: scoring(("crane", "owl"), [0]).aligned(space("crane", "owl", "crane")), "several classes of the model are named crane")
    assert scoring(("owl",), [0]).aligned(space("crane", "owl", "crane")).labels.tolist() == [1]


def test_a_class_map_names_classes_of_the_model_or_their_logits() -> None:
    birds = scoring(("owl", "tit", "cat"), [0, 1, 2], class_map={"owl": "Strix aluco", "tit": "0"})
    assert birds.aligned(space("Parus", "cat", "Strix aluco", "x")).labels.tolist() == [2, 0, 1]


def test_several_classes_may_be_mapped_to_one_and_a_cut_keeps_it_once() -> None:
    birds = scoring(("owl", "tit", "cat"), [0, 1, 2], restricted=True, class_map={"owl": "bird", "tit": "bird"})
    aligned = birds.aligned(space("dog", "cat", "bird"))
    assert aligned.columns is not None
    assert (aligned.columns.tolist(), aligned.labels.tolist(), aligned.num_classes) == ([2, 1], [0, 0, 1], 2)


@pytest.mark.parametrize("target", ["crow", "3", "-1", "1.0", "²"])
def test_a_class_map_that_leads_nowhere_is_refused(target: str, refused: Any) -> None:
    refused(
        lambda: scoring(("owl",), [0], class_map={"owl": target}).aligned(space("a", "b", "c")),
        f"--class-map: owl is mapped to {target}, which is no class of the model and no number of a logit from 0 to 2",
    )


@pytest.mark.parametrize(
    ("text", "mapped"),
    [
        ("owl 3\ntit Parus major\n", {"owl": "3", "tit": "Parus major"}),
        ("Ankle boot\t9\n\nT-shirt/top\t0\r\n", {"Ankle boot": "9", "T-shirt/top": "0"}),
        ("n01440764\nn01443537\n", {"n01440764": "0", "n01443537": "1"}),
        ("owl   3", {"owl": "3"}),
    ],
)
def test_a_class_map_is_read_in_both_forms(text: str, mapped: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text(text, encoding="utf-8")
    assert read_class_map(file) == mapped


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"owl 3\ntit\n", "some lines have one column and others not, such as line 2"),
        (b"owl\n\ntit\n", "some lines have one column and others not, such as line 2"),
        (b"owl 3\nowl 4\n", "names the class owl twice"),
        (b"\xff\xfe", "cannot be read .it is no UTF-8 text."),
    ],
)
def test_a_class_map_with_a_fault_is_refused(content: bytes, told: str, tmp_path: Path, refused: Any) -> None:
    file = tmp_path / "map.txt"
    file.write_bytes(content)
    refused(lambda: read_class_map(file), told)
    refused(lambda: read_class_map(tmp_path / "none"), "none: cannot be read .No such file or directory.")


def test_label_sets_tell_all_right_classes_by_the_columns_of_the_model() -> None:
    sets = LabelSets.of([[2, 0], [], [1]])
    assert sets.first().tolist() == [2, -1, 1]
    place = np.array([3, 0, 1])  # of class 0 to 2
    assert sets.rows(np.array([2, 0]), place, 4).tolist() == [[True, False, False, False], [False, True, False, True]]
    named = Scoring("real", sets.first(), ("a", "b", "c"), False, "", sets)
    right = named.aligned(space("c", "x", "a", "b")).right(np.array([0, 2]))
    assert right is not None
    assert right.tolist() == [[True, False, True, False], [False, False, False, True]]
    assert scoring(("a",), [0]).aligned(space("a", "b")).right(np.array([0])) is None
