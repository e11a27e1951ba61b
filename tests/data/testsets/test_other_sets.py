"""Sets without a protocol: class folders, with splits and without, arrays and the bundled images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.sources import BUNDLED_FASHION_MNIST, FASHION_MNIST_CLASSES
from g2sd_deploy.data.testsets import LabelSpace


def save(path: Path, level: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Three images of two classes, in class folders."""
    for name in ("owl/1.png", "tit/1.png", "tit/2.png"):
        save(tmp_path / "birds" / name)
    return tmp_path / "birds"


def test_class_folders_without_splits_are_a_set(miniatures: Any, birds: Path) -> None:
    test = miniatures.one(str(birds))
    assert (test.name, test.as_stored, test.corruption) == ("birds", False, None)
    (scoring,) = test.scorings
    assert (scoring.class_names, scoring.labels.tolist(), scoring.restricted) == (("owl", "tit"), [0, 1, 1], False)
    assert scoring.note == "Image files of the folder birds, one folder per class; all logits; 3 images"
    assert [test.samples.name(index) for index in range(3)] == ["owl/1.png", "tit/1.png", "tit/2.png"]


def test_class_folders_with_splits_are_a_set_of_the_split_that_is_asked_for(miniatures: Any, birds: Path) -> None:
    root = birds.parent / "all"
    root.mkdir()
    birds.rename(root / "val")
    save(root / "train" / "owl" / "9.png")
    test = miniatures.one(str(root), split="val")
    assert (test.name, test.scorings[0].labels.tolist()) == ("all val", [0, 1, 1])
    assert test.scorings[0].class_names == ("owl", "tit")


def test_a_split_that_is_not_there_is_named_with_those_that_are(miniatures: Any, birds: Path, refused: Any) -> None:
    root = birds.parent / "all"
    root.mkdir()
    birds.rename(root / "val")
    refused(lambda: miniatures.open(str(root)), r"all: has no split test \(found val\); choose one with --split")


def test_an_empty_class_folder_is_refused(miniatures: Any, birds: Path, refused: Any) -> None:
    (birds / "wren").mkdir()
    refused(lambda: miniatures.open(str(birds)), "wren: the class folder holds no image; add images or remove the class")


def test_the_bundled_images_are_a_set(miniatures: Any) -> None:
    test = miniatures.one(BUNDLED_FASHION_MNIST, max_images=20)
    (scoring,) = test.scorings
    assert (scoring.name, scoring.class_names) == ("fashion-mnist test", FASHION_MNIST_CLASSES)
    assert len(test.samples) == len(scoring.labels) == 20
    aligned = scoring.aligned(LabelSpace.of(FASHION_MNIST_CLASSES, 10))
    assert aligned.columns is None
    assert aligned.labels.tolist() == test.samples.labels.tolist()
    assert "20 images, evenly spread" in scoring.note


def test_arrays_are_a_set(miniatures: Any, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "digits.npz",
        test_images=np.zeros((4, 8, 8), np.uint8),
        test_labels=np.array([1, 0, 2, 1]),
        class_names=np.array(["a", "b", "c"]),
    )
    test = miniatures.one(str(tmp_path / "digits.npz"))
    assert (test.name, test.scorings[0].labels.tolist()) == ("digits.npz test", [1, 0, 2, 1])


def test_logits_are_cut_to_the_sets_classes_where_that_is_asked_for(miniatures: Any, birds: Path) -> None:
    scoring = miniatures.one(str(birds), restrict=True).scorings[0]
    aligned = scoring.aligned(LabelSpace.of(("cat", "tit", "owl"), 3))
    assert aligned.columns.tolist() == [2, 1]
    assert "logits cut to its 2 classes" in scoring.note


def test_a_class_map_applies_to_the_sets_whose_classes_it_names(miniatures: Any, birds: Path, tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("owl\tStrix aluco\ntit\t0\n")
    miniatures.imagenette(lambda label: (label, label))
    tests = miniatures.open("imagenette", str(birds), class_map=tmp_path / "map.txt")
    assert [dict(test.scorings[0].class_map) for test in tests] == [{}, {"owl": "Strix aluco", "tit": "0"}]
    aligned = tests[1].scorings[0].aligned(LabelSpace.of(("Parus", "x", "Strix aluco"), 3))
    assert aligned.labels.tolist() == [2, 0, 0]


def test_a_limit_is_spread_evenly(miniatures: Any, birds: Path) -> None:
    test = miniatures.one(str(birds), max_images=2)
    assert [test.samples.name(index) for index in range(2)] == ["owl/1.png", "tit/1.png"]
    assert test.scorings[0].labels.tolist() == test.samples.labels.tolist() == [0, 1]


def test_two_folders_of_one_name_are_told_apart(miniatures: Any, birds: Path, refused: Any) -> None:
    save(birds.parent / "more" / "birds" / "owl" / "1.png")
    tests = miniatures.open(str(birds), str(birds.parent / "more" / "birds"))
    assert [test.scorings[0].name for test in tests] == ["birds", "birds 2"]
    refused(lambda: miniatures.open(str(birds), str(birds)), "is asked for twice; leave one out")


@pytest.mark.parametrize("change", ["rename", "grow", "label", "restrict", "limit"])
def test_a_fingerprint_changes_with_the_images_and_how_they_are_scored(miniatures: Any, birds: Path, change: str) -> None:
    before, options = miniatures.one(str(birds)).fingerprint, {}
    assert miniatures.one(str(birds)).fingerprint == before
    changes: dict[str, Callable[[], object]] = {
        "rename": lambda: (birds / "tit/2.png").rename(birds / "tit/3.png"),
        "grow": lambda: Image.new("L", (9, 9)).save(birds / "tit/2.png"),
        "label": lambda: (birds / "tit/2.png").rename(birds / "owl/2.png"),
        "restrict": lambda: options.update(restrict=True),
        "limit": lambda: options.update(max_images=2),
    }
    changes[change]()
    assert miniatures.one(str(birds), **options).fingerprint != before
