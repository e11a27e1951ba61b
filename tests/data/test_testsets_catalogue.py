"""The catalogue of test sets says what is published, and nothing in it contradicts the rest."""

from pathlib import Path

import pytest

from g2sd_deploy.data.testsets import catalogue
from g2sd_deploy.data.testsets.catalogue import CATALOGUE, find_set, home_of, known_sets
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.places import Places


def test_every_listed_set_is_complete_and_its_hashes_are_the_published_ones() -> None:
    facts = {
        "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
        "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
        "imagenet-a.tar": "c3e55429088dc681f30d81f4726b6595",
        "imagenet-r.tar": "a61312130a589d0ca1a8fca1f2bd3337",
        "noise.tar": "e80562d7f6c3f8834afb1ecf27252745",
        "blur.tar": "2d8e81fdd8e07fef67b9334fa635e45c",
        "weather.tar": "33ffea4db4d93fe4a428c40a6ce0c25d",
        "digital.tar": "89157860d7b10d5797849337ca2e5c03",
        "extra.tar": "d492dfba5fc162d8ec2c3cd8ee672984",
        "imagenette2-160.tgz": "e793b78cc4c9e9a4ccc0c1155377a412",
        "imagenette2-320.tgz": "3df6f0d01a2c9592104656642f5e78a3",
        "real.json": "c03b536b209b127cb61430fd1ce950d5",
    }
    archives = [archive for listed in known_sets().values() for archive in listed.archives]
    assert {archive.file: archive.md5 for archive in archives if archive.md5} == facts
    assert len({archive.file for archive in archives}) == len(archives) == 14
    counts = {
        name: (sum(images.most for images in listed.groups.values()), len(listed.class_names)) for name, listed in known_sets().items()
    }
    assert counts == {
        "imagenet-val": (50_000, 1000),
        "imagenet-real": (0, 1000),
        "imagenetv2-matched-frequency": (10_000, 1000),
        "imagenet-a": (7500, 200),
        "imagenet-r": (30_000, 200),
        "imagenet-sketch": (50_889, 1000),
        "imagenet-c": (3_750_000, 1000),
        "imagenet-c-extra": (1_000_000, 1000),
        "imagenette2-160": (13_394, 10),
        "imagenette2-320": (13_394, 10),
    }


def test_classes_are_in_the_order_of_the_indices() -> None:
    assert find_set("imagenet-val")[1].class_names[:2] == ("n01440764", "n01443537")
    assert find_set("imagenetv2-matched-frequency")[1].class_names[:3] == ("0", "1", "2")
    a, r = (set(find_set(name)[1].class_names) for name in ("imagenet-a", "imagenet-r"))
    assert len(a & r) == 86


def test_every_corruption_of_imagenet_c_comes_from_one_archive() -> None:
    listed = known_sets()["imagenet-c"]
    held = [name for archive in listed.archives for name in archive.holds]
    assert sorted(held) == sorted(listed.corruptions) and len(held) == 15
    assert [len(listed.groups_of(archive)) for archive in listed.archives] == [15, 20, 20, 20]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("imagenet_a", "imagenet-a"),
        ("Imagenette", "imagenette"),
        ("imagenet-sketches", "imagenet-sketch"),
        ("imagenet-cc", "imagenet-c"),
    ],
)
def test_a_misspelt_set_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"^there is no test set {wrong}; did you mean {near}\?; `g2sd data sets` shows them all$"):
        find_set(wrong)


def test_a_name_that_is_near_to_nothing_is_answered_with_the_list() -> None:
    with pytest.raises(UserError, match=r"^there is no test set qqq; `g2sd data sets` shows them all$"):
        find_set("qqq")


def test_an_alias_lies_where_the_set_lies(tmp_path: Path) -> None:
    where = Places(tmp_path, tmp_path / "lock")
    assert home_of("imagenette", where) == home_of("imagenette2-320", where) == tmp_path / "data" / "imagenette2-320"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("unique: true", "uniqe: true", "uniqe"),
        ("md5: fa75699e90414af021442c21a62c3abf", "use: labels", "duplicate key|has no hash"),
        ("needs: imagenet-val", "needs: imagenet-vall", "imagenet-vall is named and not listed"),
        ("holds: [snow,", "holds: [sleet,", "an archive holds sleet, which the set has not"),
        ("bytes: 388478", "bytes: many", "valid integer"),
    ],
)
def test_a_catalogue_with_a_mistake_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str) -> None:
    text = CATALOGUE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "sets.yaml").write_text(text.replace(old, new, 1))
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "sets.yaml")
    with pytest.raises(Exception, match=told):
        known_sets()
