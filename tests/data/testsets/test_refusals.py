"""Folders that would give a score which is not the set's, and words after --on that mean nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIRST = "n01440764"


def same(label: int) -> tuple[int, int]:
    return label, label


def lose(folder: Path) -> None:
    (folder / FIRST).rename(folder.parent.parent / "away")


def empty(folder: Path) -> None:
    next((folder / FIRST).iterdir()).unlink()


def unknown(folder: Path) -> None:
    (folder / FIRST / "x.JPEG").write_bytes(b"x")
    (folder / FIRST).rename(folder / "n00000000")
    (folder / FIRST).mkdir()


def loose(folder: Path) -> None:
    (folder / "ILSVRC2012_val_00000099.JPEG").write_bytes(b"x")


def nested(folder: Path) -> None:
    (folder / FIRST / "more").mkdir()
    (folder / FIRST / "more" / "ILSVRC2012_val_00000099.JPEG").write_bytes(b"x")


def twice(folder: Path) -> None:
    image = next((folder / FIRST).iterdir())
    (folder / "n03888257" / image.name).write_bytes(image.read_bytes())


def too_many(folder: Path) -> None:
    for number in range(3_916):
        (folder / FIRST / f"n01440764_{number}.JPEG").touch()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lose, "lacks 1 of the 10 class folders of imagenette: n01440764; `g2sd data check imagenette .*` tells all"),
        (empty, "n01440764: the class folder holds no image"),
        (unknown, r"n00000000: is no class of imagenette, and holds images \(ILSVRC2012_val_00000001.JPEG\); move it out"),
        (loose, "ILSVRC2012_val_00000099.JPEG: is an image beside the class folders of imagenette"),
        (nested, r"more: lies in a class folder, and holds images \(ILSVRC2012_val_00000099.JPEG\)"),
        (twice, "n03888257/ILSVRC2012_val_00000001.JPEG: is also in the class n01440764, and would be scored twice"),
        (too_many, "holds 3,926 images, and imagenette has 3,925; give the folder of the test images, not that of the training images"),
    ],
)
def test_folders_that_would_make_a_wrong_score_are_refused(miniatures: Any, refused: Any, spoil: Callable[[Path], None], told: str) -> None:
    spoil(miniatures.imagenette(same))
    refused(lambda: miniatures.open("imagenette"), told)


def test_a_link_that_leads_nowhere_is_named(miniatures: Any, refused: Any) -> None:
    folder = miniatures.imagenette(same)
    image = next((folder / FIRST).iterdir())
    image.unlink()
    image.symlink_to(folder / "gone")
    refused(
        lambda: miniatures.open("imagenette"), f"{FIRST}/{image.name}: cannot be read .No such file or directory.; fetch the image again"
    )


def test_what_is_no_image_is_counted_and_what_is_hidden_is_not(miniatures: Any) -> None:
    folder = miniatures.imagenette(same)
    for name in ("notes.txt", f"{FIRST}/Thumbs.db", f"{FIRST}/._ILSVRC2012_val_00000001.JPEG", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "read.py").write_text("")
    test = miniatures.one("imagenette")
    assert (len(test.samples), test.note) == (10, "2 files that are no images are left out")


def test_a_flat_folder_of_validation_images_is_refused_with_what_to_do(miniatures: Any, refused: Any) -> None:
    for number in range(1, 4):
        (miniatures.home / "flat").mkdir(parents=True, exist_ok=True)
        (miniatures.home / "flat" / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(b"x")
    refused(
        lambda: miniatures.open(f"imagenet-val={miniatures.home}/flat"),
        "flat: holds images that are in no class folders, such as n01440764/; `g2sd data pull imagenet-val --from ...`",
    )


def test_images_with_other_names_are_not_the_validation_images(miniatures: Any, refused: Any) -> None:
    folder = miniatures.val(same)
    image = next((folder / FIRST).iterdir())
    image.rename(image.with_name("n01440764_10026.JPEG"))
    refused(
        lambda: miniatures.open("imagenet-val"), "n01440764_10026.JPEG: is no image of imagenet-val, whose names begin with ILSVRC2012_val_"
    )
    image.with_name("n01440764_10026.JPEG").rename(image.with_name("ILSVRC2012_val_00050001.JPEG"))
    assert len(miniatures.open("imagenet-val")) == 1
    refused(
        lambda: miniatures.open("imagenet-real", "imagenet-val"),
        "ILSVRC2012_val_00050001.JPEG: ReaL finds the labels of an image by its name",
    )


def test_v2_with_two_folders_of_one_class_or_a_number_too_high_is_refused(miniatures: Any, refused: Any) -> None:
    folder = miniatures.v2(same)
    (folder / "7").rename(folder / "1000")
    refused(lambda: miniatures.open("imagenetv2-matched-frequency"), "1000: is no class of imagenetv2-matched-frequency, and holds images")
    (folder / "1000").rename(folder / "007")
    assert miniatures.one("imagenetv2-matched-frequency").samples.labels.tolist() == list(range(1000))
    (folder / "7").mkdir()
    refused(lambda: miniatures.open("imagenetv2-matched-frequency"), "7: is class 7 of imagenetv2-matched-frequency, as 007 is; keep one")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (json.dumps([[0]] * 49_999), "real.json: is a list of 49,999, wanted 50,000 lists of labels, one per validation image"),
        (json.dumps({"0": [0]}), "real.json: is no list, wanted 50,000 lists"),
        (json.dumps([[0]] * 49_999 + [[1000]]), "real.json: image 50000 has the label 1000, wanted 0 to 999"),
        (json.dumps([[-1]] + [[0]] * 49_999), "real.json: image 1 has the label -1, wanted 0 to 999"),
        (json.dumps([[True]] + [[0]] * 49_999), "real.json: image 1 has the label true, wanted 0 to 999"),
        (json.dumps([7] + [[0]] * 49_999), "real.json: image 1 has 7, wanted a list of labels"),
        ("[[0], [1", "real.json: cannot be read .*; fetch it with `g2sd data pull imagenet-real`"),
    ],
)
def test_labels_of_real_that_are_not_what_they_should_be_are_refused(tmp_path: Path, refused: Any, content: str, told: str) -> None:
    from g2sd_deploy.data.testsets.real_labels import read_real

    (tmp_path / "real.json").write_text(content)
    refused(lambda: read_real(tmp_path / "real.json"), told)


def test_real_without_images_or_without_a_label_is_refused(miniatures: Any, refused: Any) -> None:
    miniatures.real({})
    refused(
        lambda: miniatures.open("imagenet-real"), "imagenet-real: scores the validation images, and there are none in .*imagenet-real or"
    )
    miniatures.val(same)
    refused(lambda: miniatures.open("imagenet-real", max_images=5), "none of the 5 images has a ReaL label; choose more")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("imagenet-a", r"imagenet-a: is not here \(.*imagenet-a\); fetch it with `g2sd data pull imagenet-a`, or give its folder"),
        ("imagenet-a=none", "imagenet-a=none: there is no such folder; give the folder of imagenet-a"),
        ("imagenet_a=/", "there is no known set imagenet_a; did you mean imagenet-a"),
        ("imagenet-v2", "no such folder or file, and no known set of that name; did you mean imagenet-"),
        ("zzz", "no known set of that name; the known sets are imagenet-val, imagenet-real, imagenetv2-matched-frequency, imagenet-a,"),
    ],
)
def test_a_set_that_is_not_there_is_named_with_what_to_do(miniatures: Any, refused: Any, spec: str, told: str) -> None:
    refused(lambda: miniatures.open(spec), told)


def test_a_set_is_not_scored_twice(miniatures: Any, refused: Any) -> None:
    miniatures.imagenette(same)
    miniatures.imagenette(same, folder="other/val")
    refused(lambda: miniatures.open("imagenette", "imagenette"), "is asked for twice; leave one out")
    refused(lambda: miniatures.open("imagenette", f"imagenette={miniatures.home}/other"), "imagenette: is asked for twice, from different")


def test_options_that_fit_no_set_are_refused(miniatures: Any, refused: Any, tmp_path: Path) -> None:
    miniatures.imagenette(same)
    refused(lambda: miniatures.open("imagenette", restrict=True), "--restrict cuts the logits of sets that have no protocol of their own")
    (tmp_path / "map.txt").write_text("n01440764 0\nn0144076 1\n")
    refused(lambda: miniatures.open("imagenette", class_map=tmp_path / "map.txt"), "map.txt: names the class n0144076, which no set has")
