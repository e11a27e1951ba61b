"""What `verify_dense` and `check_split` find, with a real file of each kind."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.dense import checking
from g2sd_deploy.data.dense.checking import PROBLEMS, check_split, verify_dense
from g2sd_deploy.data.dense.coco import CocoFolder
from g2sd_deploy.data.dense.mask_folder import MaskFolder
from g2sd_deploy.data.findings import Finding


def quiet(done: int, total: int) -> None:
    """A tick that nobody hears."""


def told(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.problem, finding.name, finding.detail) for finding in findings]


def test_a_sound_set_of_masks_has_no_findings_and_every_image_is_counted(mask_set: Any) -> None:
    source, ticks = MaskFolder(mask_set.root, ignore_zero=False), list[tuple[int, int]]()
    samples = source.samples("training", None)
    assert check_split(samples, lambda done, total: ticks.append((done, total)), class_names=source.class_names) == []
    assert ticks == [(3, 3)]


def test_damage_is_an_error_and_the_rest_is_still_looked_at(mask_set: Any) -> None:
    mask_set.put("training", "d", np.full((4, 4), 77, dtype=np.uint8), 20)
    mask_set.put("training", "e", np.full((4, 4), 255, dtype=np.uint8), 21)
    mask_set.image("training", "b").write_bytes(mask_set.image("training", "b").read_bytes()[:-40])
    findings = check_split(MaskFolder(mask_set.root, ignore_zero=False).samples("training", None), quiet)
    truncated, *others = told(findings)
    assert truncated[:2] == ("truncated", "images/training/b.png")
    assert others == [
        ("unusable image", "images/training/d.png", "its mask has the value 77, but 4 class names go from 0 to 3"),
        ("nothing asked", "images/training/e.png", ""),
    ]
    assert [finding.severity for finding in findings] == ["error", "error", "warning"]


def test_classes_that_never_occur_are_named(mask_set: Any) -> None:
    (mask_set.root / "classes.txt").write_text("ground\ncat\ndog\nkite\nboat\n")
    source = MaskFolder(mask_set.root, ignore_zero=False)
    findings = check_split(source.samples("training", None), quiet, class_names=source.class_names)
    assert told(findings) == [("no pixel of a class", "boat", "")]


def test_objects_are_looked_at_one_by_one(coco: Any) -> None:
    coco.object(20).update(segmentation=[[40, 2, 45, 2, 45, 12]])
    coco.object(30).update(segmentation=[], bbox=[25, 15, 60, 10])
    coco.object(40).update(segmentation=[[1, 2]])
    source = CocoFolder(coco.write().root)
    findings = check_split(source.samples("val", None), quiet, class_names=source.class_names)
    assert told(findings) == [
        ("unusable image", "val/0002.png", "annotation 40: a polygon has 2 numbers; wanted x, y of each corner, of three corners or more"),
        ("no object of a class", "dog", ""),
        ("object left out", "val/0000.png", "annotation 20"),
        ("box beyond the image", "val/0000.png", "annotation 30, by 55 pixels"),
        ("object without a mask", "val/0000.png", "annotation 30"),
        ("images without objects", "the split", "1 of 2"),
    ]


def test_a_missing_image_and_one_that_is_turned_are_found(coco: Any) -> None:
    turned = Image.open(coco.root / "val" / "0000.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(coco.root / "val" / "0000.png", exif=exif)
    (coco.root / "val" / "0001.png").unlink()
    findings = check_split(CocoFolder(coco.root).samples("val", None), quiet)
    assert told(findings)[:2] == [
        ("unusable image", "val/0001.png", "the file is not there, but the annotation file lists it"),
        ("turned by EXIF", "val/0000.png", "orientation 6"),
    ]
    assert findings[1].severity == "warning", "a mask that was drawn on the turned image does not fit"


def test_an_image_of_two_splits_is_found_by_work_that_can_be_sent_to_processes(mask_set: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def mapped(work: Any, inputs: Any, *, workers: int) -> Iterator[Any]:
        assert workers == 3
        return (answer for answer in map(pickle.loads(pickle.dumps(work)), inputs))

    monkeypatch.setattr(checking, "map_in_order", mapped)
    values = np.asarray(Image.open(mask_set.mask("training", "b")))
    mask_set.put("validation", "z", values, 1)
    verified = verify_dense(MaskFolder(mask_set.root, ignore_zero=False), ("training", "validation"), workers=3, tick=quiet)
    assert verified.num == {"training": 3, "validation": 2}
    assert told(verified.findings) == [("in two splits", "images/validation/z.png", "the same as images/training/b.png")]


def test_samples_that_are_no_files_are_read_all_the_same(mask_set: Any) -> None:
    samples = MaskFolder(mask_set.root, ignore_zero=False).samples("training", None)

    class Composed:
        def __len__(self) -> int:
            return 2

        def name(self, index: int) -> str:
            return f"scene {index}"

        def read(self, index: int) -> Any:
            return samples.read(index)

        def save(self, folder: Path) -> dict[str, Any]:
            return {}

    assert told(check_split(Composed(), quiet, class_names=("ground", "cat", "dog", "kite", "boat"))) == [
        ("no pixel of a class", "boat", "")
    ]


def test_every_problem_says_what_to_do() -> None:
    assert all(severity in ("error", "warning", "note") and advice for severity, advice in PROBLEMS.values())
