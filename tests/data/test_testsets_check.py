"""What `g2sd data check` finds, with a miniature of each layout and every fault planted in it."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.testsets.catalogue import ListedSet, known_sets
from g2sd_deploy.data.testsets.checking import PROBLEMS, Checked, check
from g2sd_deploy.errors import UserError

CLASSES = ("n10", "n20", "n30")


def jpeg(mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


IMAGE = jpeg()
ARCHIVE = {"file": "a.tar", "url": "https://example.org/a.tar", "md5": "0" * 32}


def listed(**changes: Any) -> ListedSet:
    base = {"title": "t", "licence": "MIT", "page": "p", "classes": CLASSES, "archives": [ARCHIVE]}
    return ListedSet.model_validate(base | changes)


FLAT = listed(folders={".": {"images": 6, "per_class": 2}})
VAL = listed(folders={"val": {"images": 6, "per_class": 2}}, unique=True)
MANY = listed(corruptions=["snow", "fog"], may_hold=["saturate"], folders={".": {"images": 3, "per_class": 1}}, unique=True)
RANGE = listed(folders={".": {"images": [5, 7]}})


def fill(folder: Path, per_class: int = 2, classes: tuple[str, ...] = CLASSES, name: str = "{wnid}_{i}.JPEG") -> Path:
    for wnid in classes:
        (folder / wnid).mkdir(parents=True)
        for i in range(per_class):
            (folder / wnid / name.format(wnid=wnid, i=i)).write_bytes(IMAGE)
    return folder


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return fill(tmp_path / "flat")


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for corruption in ("snow", "fog"):
        for severity in range(1, 6):
            fill(tmp_path / "many" / corruption / str(severity), 1)
    return tmp_path / "many"


def found(checked: Checked) -> list[tuple[str, str, str]]:
    return [(finding.problem, finding.name, finding.detail) for finding in checked.findings]


def test_a_whole_set_has_no_findings(flat: Path, many: Path) -> None:
    assert check(FLAT, flat) == Checked(flat, {".": 6})
    checked = check(MANY, many)
    assert found(checked) == [] and len(checked.num) == 10 and set(checked.num.values()) == {3}


def test_the_folder_above_and_the_only_split_are_found_too(tmp_path: Path, flat: Path) -> None:
    assert check(FLAT, tmp_path) == Checked(flat, {".": 6})
    fill(tmp_path / "in" / "val")
    assert check(VAL, tmp_path / "in").num == {"val": 6}
    assert check(VAL, tmp_path / "in" / "val") == Checked(tmp_path / "in" / "val", {".": 6})


def test_of_two_folders_the_one_that_fits_best_is_taken(tmp_path: Path) -> None:
    fill(tmp_path / "a", classes=("n10", "n99"))
    fill(tmp_path / "b")
    assert check(FLAT, tmp_path).root == tmp_path / "b"


def test_a_missing_and_an_unknown_class_are_named(flat: Path) -> None:
    (flat / "n20").rename(flat / "n21")
    assert found(check(FLAT, flat)) == [
        ("missing class", "n20", "no such folder"),
        ("unknown class", "n21", ""),
        ("wrong number of images", ".", "4 instead of 6"),
    ]


def test_counts_are_compared_per_set_and_per_class(flat: Path) -> None:
    (flat / "n20" / "n20_0.JPEG").rename(flat / "n30" / "other.JPEG")
    assert found(check(FLAT, flat)) == [
        ("wrong number of a class", "n20", "1 images instead of 2"),
        ("wrong number of a class", "n30", "3 images instead of 2"),
    ]
    assert found(check(RANGE, flat)) == []
    shutil.rmtree(flat / "n30")
    (flat / "n30").mkdir()
    assert found(check(RANGE, flat)) == [
        ("wrong number of images", ".", "3 instead of 5 to 7"),
        ("wrong number of a class", "n30", "no image"),
    ]


def test_extra_files_are_told_and_those_of_file_managers_are_not(flat: Path) -> None:
    for name in ("README.txt", ".DS_Store", "n10/.DS_Store", "n10/notes.md"):
        (flat / name).write_text("mine")
    for name in ("stray.jpg", "n10/._n10_0.JPEG"):  # loaders read hidden images, too
        (flat / name).write_bytes(IMAGE)
    (flat / "n20" / "deeper").mkdir()
    assert found(check(FLAT, flat)) == [
        ("extra image", "n10/._n10_0.JPEG", ""),
        ("extra image", "stray.jpg", ""),
        ("extra folder", "n20/deeper", ""),
        ("not read", "README.txt", ""),
        ("not read", "n10/notes.md", ""),
    ]
    assert (check(FLAT, flat).count("error"), check(FLAT, flat).count("note")) == (3, 2)


def test_other_splits_beside_the_set_are_no_error(tmp_path: Path) -> None:
    fill(tmp_path / "in" / "val")
    fill(tmp_path / "in" / "train")
    checked = check(VAL, tmp_path / "in")
    assert found(checked) == [("other folder", "train", "")] and checked.count("error") == 0


def test_empty_files_and_links_to_nowhere_are_told(flat: Path) -> None:
    (flat / "n10" / "n10_0.JPEG").write_bytes(b"")
    (flat / "n20" / "n20_0.JPEG").unlink()
    (flat / "n20" / "n20_0.JPEG").symlink_to(flat / "gone.JPEG")
    assert found(check(FLAT, flat)) == [
        ("wrong number of images", ".", "5 instead of 6"),
        ("wrong number of a class", "n20", "1 images instead of 2"),
        ("empty file", "n10/n10_0.JPEG", "0 bytes"),
        ("missing file", "n20/n20_0.JPEG", "a link that leads nowhere"),
    ]


def test_linked_images_and_class_folders_are_images(tmp_path: Path, flat: Path) -> None:
    (tmp_path / "linked").mkdir()
    for wnid in CLASSES:
        (tmp_path / "linked" / wnid).symlink_to(flat / wnid)
    assert found(check(FLAT, tmp_path / "linked")) == []


def test_one_name_in_two_classes_is_told_where_names_are_the_images(tmp_path: Path) -> None:
    folder = fill(tmp_path / "in" / "val")
    (folder / "n30" / "n30_1.JPEG").rename(folder / "n30" / "n10_0.JPEG")
    assert found(check(VAL, tmp_path / "in")) == [("name in two classes", "val/n30/n10_0.JPEG", "n10_0.JPEG is also val/n10/n10_0.JPEG")]
    shutil.rmtree(folder)
    fill(folder, name="sketch_{i}.JPEG")
    assert found(check(FLAT, folder)) == []


def test_missing_corruptions_and_severities_are_named_once(many: Path) -> None:
    shutil.rmtree(many / "fog")
    shutil.rmtree(many / "snow" / "4")
    assert found(check(MANY, many)) == [("missing corruption", "fog", ""), ("missing folder", "snow/4", "")]


def test_all_corruptions_have_the_same_images(many: Path) -> None:
    (many / "fog" / "3" / "n20" / "n20_0.JPEG").rename(many / "fog" / "3" / "n20" / "n20_7.JPEG")
    told = "compared with snow/1: 1 missing (such as n20_0.JPEG), 1 more (such as n20_7.JPEG)"
    assert found(check(MANY, many)) == [("other images", "fog/3", told)]


def test_what_else_lies_beside_the_corruptions_is_noted(many: Path) -> None:
    fill(many / "saturate" / "1", 1)
    fill(many / "snow" / "6", 1)
    (many / "LICENSE").write_text("mine")
    checked = check(MANY, many)
    assert found(checked) == [("other corruption", "saturate", ""), ("other folder", "snow/6", ""), ("not read", "LICENSE", "")]
    assert checked.count("error") == 0


def test_images_that_do_not_decode_are_errors_and_grey_and_cmyk_ones_are_counted(flat: Path) -> None:
    contents = {
        "n10/n10_0.JPEG": jpeg("L"),
        "n10/n10_1.JPEG": jpeg("CMYK"),
        "n20/n20_0.JPEG": IMAGE[: len(IMAGE) // 2],
        "n20/n20_1.JPEG": b"<!doctype html>",
        "n30/n30_0.JPEG": b"",
    }
    for name, content in contents.items():
        (flat / name).write_bytes(content)
    assert [problem for problem, _, _ in found(check(FLAT, flat))] == ["empty file"]  # nothing else is looked into
    told: list[tuple[int, int]] = []
    checked = check(FLAT, flat, workers=1, tick=lambda done, total: told.append((done, total)))
    assert checked.decoded and told[-1] == (6, 6)
    assert [(problem, name) for problem, name, _ in found(checked)] == [
        ("empty file", "n30/n30_0.JPEG"),
        ("truncated", "n20/n20_0.JPEG"),
        ("not decodable", "n20/n20_1.JPEG"),
        ("grey", "n10/n10_0.JPEG"),
        ("CMYK", "n10/n10_1.JPEG"),
    ]
    assert (checked.count("error"), checked.count("note")) == (3, 2)


def test_a_16_bit_image_is_grey_too_and_a_floating_point_one_is_refused(flat: Path) -> None:
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(flat / "n10" / "n10_0.JPEG", "PNG")
    Image.fromarray(np.ones((20, 30), np.float32)).save(flat / "n10" / "n10_1.JPEG", "TIFF")
    problems = {(problem, name) for problem, name, _ in found(check(FLAT, flat, workers=1))}
    deep, floating = "n10/n10_0.JPEG", "n10/n10_1.JPEG"
    assert problems == {("grey", deep), ("16 bits", deep), ("wrong suffix", deep), ("floating point", floating), ("wrong suffix", floating)}


def test_every_problem_of_an_image_has_a_severity_here() -> None:
    from g2sd_deploy.data import verifying

    of_images = {"missing class", "empty class", "damaged shard", "no image of a class", "in two splits"}
    assert set(verifying.PROBLEMS) - of_images <= set(PROBLEMS)
    assert all(advice for _, advice in PROBLEMS.values())


@pytest.fixture
def labels(tmp_path: Path) -> Callable[[object], Checked]:
    def run(content: object) -> Checked:
        path = tmp_path / "real.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        real = listed(labels={"file": "real.json", "images": 3, "empty": 1})
        assert found(check(real, tmp_path)) == found(check(real, path))
        return check(real, tmp_path)

    return run


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([[0], [], [1, 2]], []),
        ([[0], []], ["2 images instead of 3"]),
        ([[0], [1], [1, 2]], ["0 images without a label instead of 1"]),
        ([[0], [], [1, 3], [-1]][:3], ["image 3 has label 3, out of 0 to 2"]),
        ([[-1], [], [7]], ["image 1 has label -1, out of 0 to 2 (and 1 more)"]),
    ],
)
def test_label_sets_are_counted_and_their_range_is_checked(labels: Callable[[object], Checked], content: object, told: list[str]) -> None:
    checked = labels(content)
    assert [finding.detail for finding in checked.findings] == told
    assert {finding.problem for finding in checked.findings} <= {"wrong labels"}


@pytest.mark.parametrize("content", ['{"a": 1}', "[[0], [", "[[0], 1, [2]]", '[["cat"], [], [1]]'])
def test_what_is_no_list_of_label_sets_is_told(labels: Callable[[object], Checked], content: str) -> None:
    (finding,) = labels(content).findings
    assert finding.problem == "wrong labels" and finding.detail.startswith("no list of lists of class indices (")


def test_a_folder_without_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: there is no such folder; give the folder of the set, or pull it"):
        check(FLAT, tmp_path / "gone")
    fill(tmp_path / "cats", classes=("cat",))
    with pytest.raises(UserError, match=rf"^{tmp_path}/cats: holds no class folder of the set, such as {tmp_path}/cats/n10; give"):
        check(FLAT, tmp_path / "cats")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ILSVRC2012_val_00000001.JPEG").write_bytes(IMAGE)
    with pytest.raises(UserError, match=r"such as .*raw/val/n10; it holds 1 images that are not sorted into class folders; give"):
        check(VAL, tmp_path / "raw")
    with pytest.raises(UserError, match=r"real\.json: there is no such file"):
        check(listed(labels={"file": "real.json", "images": 3, "empty": 1}), tmp_path)


def test_imagenet_v2_wants_folders_that_are_numbers(tmp_path: Path) -> None:
    v2 = known_sets()["imagenetv2-matched-frequency"]
    for index in range(1000):
        (tmp_path / "v2" / str(index)).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "v2" / str(index) / f"{i}.jpeg").touch()
    (tmp_path / "v2" / "7").rename(tmp_path / "v2" / "007")
    problems = [one for one in found(check(v2, tmp_path / "v2")) if one[0] != "empty file"]
    assert problems == [
        ("missing class", "7", "no such folder"),
        ("unknown class", "007", ""),
        ("wrong number of images", ".", "9,990 instead of 10,000"),
    ]


def test_findings_are_sorted_by_how_bad_they_are(flat: Path) -> None:
    (flat / "notes.md").write_text("mine")
    (flat / "n20" / "n20_0.JPEG").write_bytes(b"")
    order = [list(PROBLEMS).index(finding.problem) for finding in check(FLAT, flat).findings]
    assert order == sorted(order)
    severities = [severity for severity, _ in PROBLEMS.values()]
    assert severities == sorted(severities)
