"""ImageNet-C in miniature: what is stored is cropped, every case has the same images, and what is missing is told."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.data.decoding import fit_to_all
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.data.testsets import opening
from g2sd_deploy.data.testsets.label_spaces import imagenet_wnids
from g2sd_deploy.data.testsets.protocols import EXTRA_CORRUPTIONS, KNOWN, MEAN_CORRUPTIONS
from g2sd_export.edge.preprocess import Preprocessing

WNIDS = imagenet_wnids()[:3]
FRAME = 2


def same(label: int) -> tuple[int, int]:
    return label, label


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet-C with three classes, so that all of its 75 cases can be written."""
    few = {name: replace(KNOWN[name], class_names=lambda: WNIDS) for name in ("imagenet-c", "imagenet-c-extra")}
    monkeypatch.setattr(opening, "KNOWN", KNOWN | few)


def cases(*corruptions: str, severities: str = "12345") -> list[str]:
    return [f"{corruption}/{severity}" for corruption in corruptions for severity in severities]


def test_stored_images_are_cropped_and_not_resized(miniatures: Any, scored: Callable[..., tuple[int, int]], small: None) -> None:
    miniatures.stored(["fog/3"], FRAME, same, WNIDS)  # images of 48 px; the model takes 32, and looks at the upper corners
    test = miniatures.one("imagenet-c")
    assert (test.corruption, test.as_stored) == (("fog", 3), True)
    assert scored(test, "imagenet-c") == (3, 3)
    assert scored(test, "imagenet-c", as_stored=False) == (1, 3)  # resized, the frame is seen, which says class 2
    assert "the centre is cropped without a resize" in test.scorings[0].note


def test_an_image_smaller_than_the_models_input_is_not_enlarged(miniatures: Any, small: None) -> None:
    miniatures.stored(["fog/3"], FRAME, same, WNIDS)
    test = miniatures.one("imagenet-c")
    large = Preprocessing(image_px=64, resize_px=72, num_channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(BadImage, match="48 x 48 pixels and not resized, but the model wants 64"):
        fit_to_all(test.samples.read(0), (large,), as_stored=test.as_stored)


def test_all_cases_are_opened_in_order_with_the_same_images(miniatures: Any, small: None) -> None:
    miniatures.stored(cases(*MEAN_CORRUPTIONS), FRAME, same, WNIDS)
    tests = miniatures.open("imagenet-c")
    assert [test.corruption for test in tests] == [(name, severity) for name in MEAN_CORRUPTIONS for severity in range(1, 6)]
    assert {tuple(test.samples.name(index) for index in range(3)) for test in tests} == {
        tuple(f"{wnid}/ILSVRC2012_val_{1 + 37 * label:08d}.JPEG" for label, wnid in enumerate(WNIDS))
    }
    assert {scoring.name for test in tests for scoring in test.scorings} == {"imagenet-c"}
    assert {test.scorings[0].note.partition("; 3 images")[2] for test in tests} == {" are there, 50,000 are published"}
    assert len({test.fingerprint for test in tests}) == 75


def test_missing_corruptions_and_severities_and_extra_ones_are_told(miniatures: Any, small: None) -> None:
    miniatures.stored([*cases(*MEAN_CORRUPTIONS[2:]), "spatter/2"], FRAME, same, WNIDS)
    (miniatures.home / "imagenet-c/fog/4").rename(miniatures.home / "away")
    tests = miniatures.open("imagenet-c")
    note = tests[0].scorings[0].note
    assert note.endswith(
        "; without gaussian_noise, shot_noise; without fog/4, spatter/1, spatter/3, spatter/4, spatter/5; so there is no mCE; spatter are "
        "extra and in no mean"
    )
    assert [test.corruption for test in tests][-1] == ("spatter", 2)
    assert len(tests) == 13 * 5 - 1 + 1


def test_the_extra_corruptions_are_a_set_of_their_own_where_they_are_pulled_alone(miniatures: Any, small: None, refused: Any) -> None:
    miniatures.stored(cases(*EXTRA_CORRUPTIONS), FRAME, same, WNIDS)
    (miniatures.home / "imagenet-c").rename(miniatures.home / "imagenet-c-extra")
    tests = miniatures.open("imagenet-c-extra")
    assert [test.corruption for test in tests][:6] == [*(("speckle_noise", severity) for severity in range(1, 6)), ("gaussian_blur", 1)]
    assert "without" not in tests[0].scorings[0].note.partition("; 3 images")[2]
    extra = miniatures.home / "imagenet-c-extra"
    refused(lambda: miniatures.open("imagenet-c-extra", f"imagenet-c={extra}"), "imagenet-c: is asked for twice, from different folders")


def test_folders_of_the_archives_groups_are_looked_into(miniatures: Any, small: None) -> None:
    miniatures.stored(["weather/fog/1", "noise/shot_noise/2", "brightness/1"], FRAME, same, WNIDS)
    assert [test.corruption for test in miniatures.open("imagenet-c")] == [("shot_noise", 2), ("fog", 1), ("brightness", 1)]


def test_the_same_images_of_each_case_are_taken_by_a_limit(miniatures: Any, small: None) -> None:
    miniatures.stored(cases("fog", "snow"), FRAME, same, WNIDS)
    tests = miniatures.open("imagenet-c", max_images=2)
    assert {tuple(test.samples.name(index)[:9] for index in range(len(test.samples))) for test in tests} == {WNIDS[:2]}
    assert all(test.scorings[0].labels.tolist() == [0, 1] for test in tests)


def remove_one(root: Path) -> None:
    next((root / "fog/2" / WNIDS[1]).iterdir()).unlink()
    (root / "fog/2" / WNIDS[1] / "ILSVRC2012_val_00000777.JPEG").write_bytes(b"x")


def misspell(root: Path) -> None:
    (root / "snow").rename(root / "snwo")


def seventh(root: Path) -> None:
    (root / "fog/2").rename(root / "fog/7")


def lose_class(root: Path) -> None:
    (root / "fog/2" / WNIDS[1]).rename(root.parent / "away")


def double(root: Path) -> None:
    (root / "weather").mkdir()
    (root / "weather" / "fog").mkdir()


def stray(root: Path) -> None:
    (root / "fog" / "1.JPEG").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            remove_one,
            "fog/2: has other images than snow/1, so a mean over both would compare different images; `g2sd data check imagenet-c ",
        ),
        (misspell, r"snwo: is no corruption of imagenet-c, and holds images \(1/n01440764/ILSVRC2012_val_00000001.JPEG\); move it out"),
        (seventh, "fog/7: is no severity from 1 to 5, and holds images"),
        (lose_class, "fog/2: lacks 1 of the 3 class folders of imagenet-c: n01443537; `g2sd data check imagenet-c .*` tells all"),
        (double, "weather/fog: is also .*imagenet-c/fog; keep one of the two folders"),
        (stray, "fog/1.JPEG: is an image outside of the class folders"),
    ],
)
def test_what_would_make_a_wrong_mean_is_refused(
    miniatures: Any, small: None, refused: Any, spoil: Callable[[Path], None], told: str
) -> None:
    spoil(miniatures.stored(cases("snow", "fog"), FRAME, same, WNIDS))
    refused(lambda: miniatures.open("imagenet-c"), told)


def test_a_folder_without_corruptions_is_refused(miniatures: Any, refused: Any, tmp_path: Path) -> None:
    refused(
        lambda: miniatures.open(f"imagenet-c={tmp_path}"), "holds no folder CORRUPTION/SEVERITY of imagenet-c, such as gaussian_noise/1"
    )
