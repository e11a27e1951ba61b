"""COCO folders: read back exactly what independent code wrote, and what is wrong with one in one line."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from g2sd_deploy.data.dense.annotations import DenseSamples, Instances
from g2sd_deploy.data.dense.coco import CocoFolder
from g2sd_deploy.data.dense.opening import find_dense_splits, guess_dense_kind, open_dense
from g2sd_deploy.errors import UserError

Refused = Callable[[Callable[[], object], str], None]


def objects(samples: DenseSamples, index: int) -> Instances:
    found = samples.read(index).instances
    assert found is not None
    return found


def same(one: DenseSamples, other: DenseSamples) -> None:
    assert [one.name(i) for i in range(len(one))] == [other.name(i) for i in range(len(other))]
    for i in range(len(one)):
        np.testing.assert_array_equal(one.read(i).pixels, other.read(i).pixels)
        for left, right in zip(vars(objects(one, i)).values(), vars(objects(other, i)).values(), strict=True):
            np.testing.assert_array_equal(left, right)


def test_objects_are_those_that_were_written_by_polygon_by_both_kinds_of_run_lengths_and_by_box(coco: Any) -> None:
    source = CocoFolder(coco.root)
    assert source.class_names == ("dog", "cat", "kite")
    assert source.description == "Images with objects of the folder coco, annotated as COCO."
    samples = source.samples("val", None)
    assert [samples.name(i) for i in range(len(samples))] == ["val/0000.png", "val/0001.png", "val/0002.png"]
    for index, (numbers, labels, crowd) in enumerate([([10, 20, 30], [1, 0, 2], [0, 0, 0]), ([], [], []), ([40, 50], [0, 1], [1, 0])]):
        annotated = samples.read(index)
        np.testing.assert_array_equal(annotated.pixels, np.asarray(Image.open(coco.root / "val" / f"{index:04d}.png")))
        found = objects(samples, index)
        assert annotated.classes is None
        assert found.labels.tolist() == labels and found.labels.dtype == np.int64
        assert found.crowd.tolist() == crowd and found.crowd.dtype == np.bool_
        assert found.masks.shape == (len(numbers), *annotated.pixels.shape[:2]) and found.masks.dtype == np.bool_
        assert found.boxes.shape == (len(numbers), 4) and found.boxes.dtype == np.float32
        for mask, box, number in zip(found.masks, found.boxes, numbers, strict=True):
            np.testing.assert_array_equal(mask, coco.masks[number])
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == ([2, 4.25, 5, 9.25] if number == 50 else tight)


def test_a_saved_listing_and_a_pickled_one_read_the_same(coco: Any, tmp_path: Path) -> None:
    samples = CocoFolder(str(coco.root)).samples("val", None)
    where = samples.save(tmp_path / "kept")
    assert json.loads(json.dumps(where)) == where == {"source": "coco", "root": str(coco.root.resolve())}
    coco.file.unlink()
    opened = open_dense(tmp_path / "kept", where)
    same(opened, samples)
    same(pickle.loads(pickle.dumps(opened)), samples)
    same(pickle.loads(pickle.dumps(samples)), samples)
    assert len(pickle.dumps(opened)) < 1000, "a worker is sent the folder, not the arrays"


def test_a_limit_keeps_evenly_spread_images_with_their_own_objects(coco: Any) -> None:
    whole, part = (CocoFolder(coco.root).samples("val", limit) for limit in (None, 2))
    assert [part.name(i) for i in range(len(part))] == ["val/0000.png", "val/0001.png"]
    np.testing.assert_array_equal(objects(part, 0).masks, objects(whole, 0).masks)
    assert len(objects(part, 1).labels) == 0
    coco.held["images"] = coco.held["images"][::-1]
    last = CocoFolder(coco.write().root).samples("val", 1)
    assert last.name(0) == "val/0002.png"
    np.testing.assert_array_equal(objects(last, 0).masks, objects(whole, 2).masks)


def test_a_grey_image_becomes_rgb(coco: Any) -> None:
    Image.open(coco.root / "val" / "0001.png").convert("L").save(coco.root / "val" / "0001.png")
    pixels = CocoFolder(coco.root).samples("val", None).read(1).pixels
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(coco.root / "val" / "0001.png"))[..., None].repeat(3, axis=2))


def test_the_pixels_of_an_image_stay_when_the_next_one_is_read(coco: Any) -> None:
    for number, size in ((0, (30, 20)), (2, (12, 16))):
        Image.new("RGB", size, (90 * number, 40, 20)).save(coco.root / "val" / f"{number:04d}.png", "JPEG", quality=100)
    samples = CocoFolder(coco.root).samples("val", None)
    first = samples.read(0).pixels
    kept = first.copy()
    assert samples.read(2).pixels.mean() > kept.mean() + 50
    np.testing.assert_array_equal(first, kept)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_polygons_that_are_no_hundredths_of_a_pixel_lose_nothing(coco: Any) -> None:
    draw = np.random.default_rng(3)
    for _ in range(20):
        corners = draw.uniform(-3, 33, 12).tolist()
        coco.object(10)["segmentation"] = [corners]
        coco.object(20)["segmentation"] = [[round(corner, 2) for corner in corners]]
        coco.object(30)["segmentation"] = [[round(corner, 1) for corner in corners]]
        found = objects(CocoFolder(coco.write().root).samples("val", None), 0)
        wanted = [coco_mask.decode(coco_mask.frPyObjects(coco.object(number)["segmentation"], 20, 30))[..., 0] for number in (10, 20, 30)]
        np.testing.assert_array_equal(found.masks, [mask.astype(bool) for mask in wanted if mask.any()])


def test_objects_of_which_nothing_lies_in_the_image_are_left_out_and_boxes_are_cut_at_its_border(coco: Any) -> None:
    coco.object(10).update(segmentation=[[40, 2, 45, 2, 45, 12]])
    coco.object(20).update(segmentation=None, bbox=[25, 15, 10, 10])
    coco.object(30).update(segmentation=[], bbox=[4, 4, 0, 3])
    samples = CocoFolder(coco.write().root).samples("val", None)
    found = objects(samples, 0)
    assert found.labels.tolist() == [0] and found.boxes.tolist() == [[25, 15, 30, 20]]
    assert found.masks.sum() == 25 and found.masks[0, 15:, 25:].all()
    assert samples.remarks(0) == [
        ("object left out", "annotation 10"),
        ("object without a mask", "annotation 20"),
        ("box beyond the image", "annotation 20, by 5 pixels"),
        ("object left out", "annotation 30"),
    ]


def test_a_box_of_less_than_a_pixel_has_a_mask_of_one(coco: Any) -> None:
    coco.object(50)["bbox"] = [11.7, 15.8, 0.2, 0.1]
    found = objects(CocoFolder(coco.write().root).samples("val", None), 2)
    assert found.masks[1].sum() == 1 and found.masks[1, 15, 11]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segmentation": {"size": [30, 20], "counts": "0"}}, "its mask has 20 x 30 pixels, but the image has 30 x 20"),
        ({"segmentation": {"size": [20, 30], "counts": [3, 4]}}, "its run lengths are of 7 pixels, but a mask of 30 x 20 has 600"),
        ({"segmentation": {"size": [20, 30], "counts": [700, -100]}}, "its run lengths are not all whole numbers from 0 on"),
        ({"segmentation": {"size": [20, 30], "counts": "hello"}}, "its run lengths are cut off"),
        ({"segmentation": {"size": [20, 30], "counts": "0 0"}}, "damaged .a character that stands for nothing"),
        ({"segmentation": {"size": [20, 30], "counts": "\\\\\\\\\\\\\\\\\\0"}}, "damaged .a number without an end"),
        ({"segmentation": {"size": [20, 30], "counts": "O1"}}, "damaged .one is negative"),
        ({"segmentation": {"size": [20, 30], "counts": "33"}}, "its run lengths are of 6 pixels, but"),
        ({"segmentation": {"size": [20], "counts": "33"}}, r"its run lengths have the size \[20\]; wanted height and width"),
        ({"segmentation": {"size": [20, 30]}}, "its run lengths have no counts"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "a polygon has 5 numbers; wanted x, y of each corner, of three corners or more"),
        ({"segmentation": [[1, 2, 3, 4]]}, "a polygon has 4 numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "a polygon is no list of numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "a polygon is no list of numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, [6]]]}, "a polygon is no list of numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 10**40]]}, "a polygon is no list of numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, r"a polygon reaches to 1e\+09, but the image is 30 x 20"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "its segmentation is neither a list of polygons nor an object with size and counts"),
        ({"segmentation": [], "bbox": [1, 2, 3]}, r"it has no segmentation and the bbox \[1, 2, 3\]; wanted left, top, width, height"),
        ({"segmentation": [], "bbox": [1, 2, 3, float("inf")]}, "it has no segmentation and the bbox"),
        ({"segmentation": []}, "it has no segmentation and the bbox None"),
    ],
)
def test_a_damaged_annotation_makes_its_image_a_bad_one_and_no_other(change: dict[str, Any], reason: str, coco: Any, bad: Refused) -> None:
    coco.object(10).update(change)
    samples = CocoFolder(coco.write().root).samples("val", None)
    bad(lambda: samples.read(0), f"^annotation 10: .*{reason}")
    assert len(objects(samples, 2).labels) == 2


def test_an_image_that_is_missing_damaged_or_of_another_size_is_a_bad_one(coco: Any, bad: Refused) -> None:
    (coco.root / "val" / "0000.png").unlink()
    Image.new("RGB", (16, 12)).save(coco.root / "val" / "0002.png")
    samples = CocoFolder(coco.root).samples("val", None)
    bad(lambda: samples.read(0), "the file is not there, but the annotation file lists it")
    bad(lambda: samples.read(2), "it has 16 x 12 pixels, but the annotation file says 12 x 16; was it resized, or turned")
    (coco.root / "val" / "0001.png").write_bytes(b"")
    bad(lambda: samples.read(1), "the file has 0 bytes, but had .* when the images were listed")
    bad(lambda: CocoFolder(coco.root).samples("val", None).read(1), "the file is empty")


def _drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda held: held.pop(name)


def _set(which: str, index: int, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda held: held[which][index].update(values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop("annotations"), r"holds no annotations \(found info, images, categories\); wanted an object with images, annotations, cat"),
        (_drop("categories"), "holds no categories"),
        (lambda held: held.update(images={}), "images is no list; write it again"),
        (lambda held: held.update(categories=[]), "names no categories"),
        (lambda held: held.update(images=[], annotations=[]), "lists no images"),
        (lambda held: held["annotations"].append(7), "annotation 6 of the list is 7; wanted an object"),
        (_set("annotations", 1, image_id=99), r"annotation 10 has image_id 99, but no image has that id \(1 such\); remove it"),
        (_set("annotations", 1, category_id=1), "annotation 10 has category_id 1, but no category has that id"),
        (_set("annotations", 1, image_id="7"), "annotation 2 of the list has the image_id '7'; wanted a whole number"),
        (_set("annotations", 1, id=2**70), "annotation 2 of the list has the id 1180591620717411303424; wanted a whole number"),
        (_set("annotations", 1, id=20), r"annotation 20 is there twice \(1 such\); give each an id of its own"),
        (_set("annotations", 1, iscrowd=2), "annotation 2 of the list has iscrowd 2; wanted 0 or 1"),
        (_set("images", 1, id=7), "image 7 is there twice"),
        (_set("images", 1, height=0), r"image 2 of the list \(0001.png\) has height 0 and width 8; write the image's own into the file"),
        (_set("images", 1, width=None), r"image 2 of the list \(0001.png\) has the width None; wanted a whole number"),
        (_set("images", 1, file_name="0000.png"), "image 2 of the list has the file_name 0000.png, as another one has"),
        (_set("images", 1, file_name="../0001.png"), "has the file_name '../0001.png'; wanted a path below the folder of the split"),
        (_set("images", 1, file_name="/etc/passwd"), "has the file_name '/etc/passwd'; wanted a path"),
        (_set("images", 1, file_name=None), "has the file_name None; wanted a path"),
        (_set("categories", 1, id=9), "category 9 is there twice"),
        (_set("categories", 1, name="dog"), "two categories are called dog"),
        (_set("categories", 1, name=" "), "category 2 of the list has the name ' '; wanted a text of one line"),
        (_set("categories", 1, name="\ud800"), "category 2 of the list has the name"),
        (_set("images", 1, file_name="a\0b.png"), "image 2 of the list has the file_name 'a.*b.png'; wanted a path"),
    ],
)
def test_an_annotation_file_that_is_built_otherwise_is_refused_in_one_line(
    damage: Callable[[dict[str, Any]], object], message: str, coco: Any, refused: Refused
) -> None:
    held = json.loads(json.dumps(coco.held))
    damage(held)
    coco.write(text=json.dumps(held))
    refused(lambda: CocoFolder(coco.root).samples("val", None), f"instances_val.json: .*{message}")


def test_folders_and_files_that_are_not_there_are_named(coco: Any, refused: Refused, tmp_path: Path) -> None:
    refused(lambda: CocoFolder(tmp_path / "none"), "data.root .*none: there is no such folder; set data.root to the folder of the images")
    refused(lambda: CocoFolder(coco.root).samples("train", None), r"instances_train.json: is not there \(found annotations of val\)")
    for file in (coco.root / "val").iterdir():
        file.unlink()
    refused(
        lambda: CocoFolder(coco.root).samples("val", None), "val: holds none of the images of instances_val.json .the first is 0000.png"
    )
    (coco.root / "val").rmdir()
    refused(lambda: CocoFolder(coco.root).samples("val", None), r"/val: is not there \(found annotations of val\)")
    coco.file.unlink()
    refused(lambda: CocoFolder(coco.root).class_names, "instances_SPLIT.json: there is no annotation file of that name")


def test_classes_are_those_of_all_splits_and_their_order_that_of_the_smallest_file(coco: Any, refused: Refused) -> None:
    train = coco.copy(coco.root)
    train.held["categories"].reverse()
    train.held["info"]["text"] = "a file that is longer"
    train.write("train")
    source = CocoFolder(coco.root)
    assert source.class_names == ("dog", "cat", "kite")
    same_objects = objects(source.samples("train", None), 0)
    assert same_objects.labels.tolist() == [1, 0, 2]
    assert guess_dense_kind(str(coco.root)) == "coco" and find_dense_splits("coco", str(coco.root)) == ("train", "val")
    train.held["categories"][0]["name"] = "boat"
    train.write("train")
    refused(lambda: CocoFolder(coco.root).samples("train", None), "instances_train.json: its categories are not those of .* 4 boat")


def test_the_fingerprint_changes_with_an_image_or_the_annotations_and_nothing_else(coco: Any) -> None:
    first = CocoFolder(coco.root).fingerprint()
    (coco.root / "notes.md").write_text("bought in 2026")
    assert CocoFolder(coco.root).fingerprint() == first
    coco.held["annotations"].pop()
    coco.write()
    second = CocoFolder(coco.root).fingerprint()
    Image.new("RGB", (8, 8)).save(coco.root / "val" / "0001.png")
    assert len({first, second, CocoFolder(coco.root).fingerprint()}) == 3


_MEASURE = """
import json, resource, sys
from pathlib import Path
from g2sd_deploy.data.dense.coco_file import read_coco
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_coco(Path(sys.argv[1]))
before = peak()
held = read_coco(Path(sys.argv[2]))
after = peak()
size = sum(array.nbytes for array in vars(held.objects).values())
assert "torch" not in sys.modules
print(json.dumps([len(held.objects.ids), size, (after - before) * 1024]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is Linux's")
def test_a_hundred_thousand_objects_take_fifty_bytes_each_beside_their_corners_and_never_three_times_that(
    coco: Any, tmp_path: Path
) -> None:
    corners = [[round(4.37 * i + 0.01 * j, 2) for j in range(16)] for i in range(10)]
    texts = [json.dumps([one]) for one in corners]
    entries = (
        f'{{"segmentation":{texts[i % 10]},"area":7.1,"iscrowd":0,"image_id":{7 - i % 3},"category_id":3,"id":{i}}}' for i in range(100_000)
    )
    big = tmp_path / "big.json"
    big.write_text(json.dumps({**coco.held, "annotations": ["here"]}).replace('"here"', ",".join(entries)))
    measured = subprocess.run([sys.executable, "-c", _MEASURE, str(coco.file), str(big)], capture_output=True, text=True, check=True)
    num, size, peak = json.loads(measured.stdout)
    assert num == 100_000 and size <= num * (50 + 4 * 16 + 8)
    assert peak <= 3 * size + 8 * 2**20, "as Python objects they would take a hundred megabytes and more"


def test_a_user_error_it_is_and_no_other(coco: Any) -> None:
    with pytest.raises(UserError):
        CocoFolder(coco.write(text="[]").root).samples("val", None)
