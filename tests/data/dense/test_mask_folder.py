"""Folders of images and masks: read back exactly what was written, and what is wrong with one in one line."""

import io
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.dense.label_maps import semantic_map
from g2sd_deploy.data.dense.mask_folder import MaskFolder
from g2sd_deploy.data.dense.opening import find_dense_splits, guess_dense_kind, open_dense
from g2sd_deploy.data.dense.reading import find_class_names
from g2sd_deploy.data.images import BadImage

Refused = Callable[[Callable[[], object], str], None]


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def test_pixels_and_classes_are_those_of_the_files(mask_set: Any) -> None:
    source = MaskFolder(mask_set.root, ignore_zero=False)
    assert source.class_names == ("ground", "cat", "dog", "kite")
    assert source.description == "Images with masks of the folder set."
    samples = source.samples("training", None)
    assert [samples.name(i) for i in range(len(samples))] == [f"images/training/{name}.png" for name in ("a", "b", "deep/c")]
    for index, name in enumerate(("a", "b", "deep/c")):
        annotated = samples.read(index)
        np.testing.assert_array_equal(annotated.pixels, np.asarray(Image.open(mask_set.image("training", name))))
        np.testing.assert_array_equal(annotated.classes, np.asarray(Image.open(mask_set.mask("training", name))))
        assert annotated.classes is not None and annotated.classes.dtype == np.uint8 and annotated.instances is None
    assert guess_dense_kind(str(mask_set.root)) == "masks" and guess_dense_kind(str(mask_set.root / "images")) is None
    assert find_dense_splits("masks", str(mask_set.root)) == ("training", "validation")


def test_where_zero_is_ignored_the_others_are_one_less(mask_set: Any) -> None:
    (mask_set.root / "classes.txt").write_text("cat\ndog\nkite\n")
    found = MaskFolder(mask_set.root, ignore_zero=True).samples("training", None).read(1).classes
    written = np.asarray(Image.open(mask_set.mask("training", "b")))
    wanted = [[{0: 255, 1: 0, 2: 1, 3: 2, 255: 255}[int(value)] for value in row] for row in written]
    np.testing.assert_array_equal(found, wanted)


def test_a_saved_listing_and_a_pickled_one_read_the_same(mask_set: Any, tmp_path: Path) -> None:
    samples = MaskFolder(str(mask_set.root), ignore_zero=False).samples("training", None)
    where = samples.save(tmp_path / "kept")
    assert json.loads(json.dumps(where)) == where
    opened = open_dense(tmp_path / "kept", where)
    for other in (opened, pickle.loads(pickle.dumps(opened)), pickle.loads(pickle.dumps(samples))):
        assert len(other) == 3
        for i in range(3):
            assert other.name(i) == samples.name(i)
            np.testing.assert_array_equal(other.read(i).classes, samples.read(i).classes)
            np.testing.assert_array_equal(other.read(i).pixels, samples.read(i).pixels)


def test_a_limit_keeps_evenly_spread_pairs(mask_set: Any) -> None:
    source = MaskFolder(mask_set.root, ignore_zero=False)
    part = source.samples("training", 2)
    assert [part.name(i) for i in range(len(part))] == ["images/training/a.png", "images/training/b.png"]
    np.testing.assert_array_equal(part.read(1).classes, source.samples("training", None).read(1).classes)


def grey_png(rows: np.ndarray, depth: int) -> bytes:
    """A grey PNG with fewer than 8 bits, by the format's own description."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rows.shape
    bits = [[int(bit) for value in row for bit in f"{value:0{depth}b}"] for row in rows]
    packed = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_masks_of_few_bits_keep_their_numbers(depth: int) -> None:
    rows = np.random.default_rng(depth).integers(0, 2**depth, (5, 7))
    np.testing.assert_array_equal(semantic_map(grey_png(rows, depth), 2**depth, ignore_zero=False), rows)


def test_palette_masks_of_few_bits_keep_their_numbers() -> None:
    rows = np.random.default_rng(0).integers(0, 4, (5, 7), dtype=np.uint8)
    image, buffer = Image.fromarray(rows), io.BytesIO()
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 9, 9, 9])
    image.save(buffer, "PNG", bits=2, transparency=0)
    assert buffer.getvalue()[24] == 2
    np.testing.assert_array_equal(semantic_map(buffer.getvalue(), 4, ignore_zero=False), rows)


@pytest.mark.parametrize(
    ("values", "num_classes", "ignore_zero", "reason"),
    [
        ([[0, 4]], 4, False, "value 4, but 4 class names go from 0 to 3; if 0 stands for nothing .* set data.ignore_zero$"),
        ([[0, 5, 4, 255]], 4, False, "value 4, 5, but 4 class names go from 0 to 3$"),
        ([[9, 5, 4, 6, 7, 8]], 4, False, "value 4, 5, 6, 7, 8, ..., but"),
        ([[0, 5]], 4, True, "value 5, but 4 class names go from 1 to 4$"),
        ([[254]], 4, False, "value 254, but"),
    ],
)
def test_numbers_without_a_class_are_refused(
    values: list[list[int]], num_classes: int, ignore_zero: bool, reason: str, bad: Refused
) -> None:
    mask = png(np.array(values, dtype=np.uint8))
    bad(lambda: semantic_map(mask, num_classes, ignore_zero=ignore_zero), f"its mask has the {reason}")


def test_all_numbers_below_255_can_be_classes() -> None:
    values = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(semantic_map(png(values), 255, ignore_zero=False), values)
    np.testing.assert_array_equal(semantic_map(png(values), 254, ignore_zero=True)[0, :3], [255, 0, 1])


def colours(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros((*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (
            Image.fromarray(np.zeros((6, 9, 3), dtype=np.uint8)),
            r"has colours or transparency \(RGB\); wanted a grey or palette PNG of 8 bits",
        ),
        (
            Image.fromarray(np.zeros((6, 9), dtype=np.uint16)),
            "has 16 bits; wanted a grey or palette PNG of 8 bits whose pixels are numbers",
        ),
        (Image.new("LA", (9, 6)), r"has colours or transparency \(LA\)"),
    ],
)
def test_a_mask_that_holds_no_numbers_of_classes_is_refused_and_a_set_of_them_at_once(
    mask: Image.Image, reason: str, mask_set: Any, bad: Refused, refused: Refused
) -> None:
    mask.save(mask_set.mask("training", "b"))
    samples = MaskFolder(mask_set.root, ignore_zero=False).samples("training", None)
    bad(lambda: samples.read(1), f"its mask {reason}")
    mask.save(mask_set.mask("training", "a"))
    refused(
        lambda: MaskFolder(mask_set.root, ignore_zero=False).samples("training", None), f"annotations/training/a.png: as a mask it {reason}"
    )


def test_a_jpeg_that_is_called_png_is_no_mask(mask_set: Any, bad: Refused) -> None:
    Image.new("L", (9, 6)).save(mask_set.mask("training", "b"), "JPEG")
    samples = MaskFolder(mask_set.root, ignore_zero=False).samples("training", None)
    bad(lambda: samples.read(1), "its mask is JPEG, whose pixels may not be what was written; save masks as PNG")


def test_a_pair_that_is_damaged_is_a_bad_image(mask_set: Any, bad: Refused) -> None:
    mask_set.mask("training", "a").write_bytes(b"")
    mask_set.mask("training", "b").write_bytes(mask_set.mask("training", "b").read_bytes()[:-30])
    mask_set.image("training", "deep/c").write_bytes(b"no image at all")
    samples = MaskFolder(mask_set.root, ignore_zero=False).samples("training", None)
    bad(lambda: samples.read(0), r"its mask cannot be decoded \(the file is empty\)")
    bad(lambda: samples.read(1), r"its mask cannot be decoded \(.*truncated")
    bad(lambda: samples.read(2), "it cannot be decoded .cannot identify image file")
    mask_set.mask("training", "a").write_bytes(b"more")
    bad(lambda: samples.read(0), "its mask annotations/training/a.png: the file has 4 bytes, but had 0 when the images were listed")
    mask_set.image("training", "b").unlink()
    bad(lambda: samples.read(1), "the file is gone since the images were listed")


def test_a_mask_of_another_size_than_its_image_is_refused(mask_set: Any, bad: Refused) -> None:
    Image.new("L", (6, 9)).save(mask_set.mask("training", "a"))
    samples = MaskFolder(mask_set.root, ignore_zero=False).samples("training", None)
    bad(lambda: samples.read(0), "its mask has 6 x 9 pixels, but the image has 9 x 6; was one of them resized, or turned?")


def _remove_mask(made: Any) -> None:
    made.mask("training", "b").unlink()


def _remove_image(made: Any) -> None:
    made.image("training", "deep/c").unlink()


def _same_name(made: Any) -> None:
    Image.new("RGB", (3, 3)).save(made.root / "images" / "training" / "a.jpg")


def _no_masks(made: Any) -> None:
    for name in ("a", "b", "deep/c"):
        made.mask("training", name).rename(made.mask("training", name).with_suffix(".tif"))


def _no_folder(made: Any) -> None:
    (made.root / "annotations" / "training").rename(made.root / "annotations" / "train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove_mask, r"images/training/b.png: has no mask of the same name with .png in annotations \(1 such images\); add it"),
        (_remove_image, r"annotations/training/deep/c.png: is the mask of no image \(1 such masks\); add the image to images"),
        (_same_name, "images/training/a.png: has the name of a.jpg, so that one mask would belong to both; rename or remove one"),
        (_no_masks, r"annotations/training: holds no mask \(.png\); put the files there"),
        (_no_folder, r"annotations/training: there is no such folder \(found train, validation in annotations\); wanted images/SPLIT and"),
        (lambda made: (made.root / "classes.txt").unlink(), "set: holds no classes.txt; write one with the name of each class"),
        (lambda made: (made.root / "classes.txt").write_text("a\n\nb\n"), "classes.txt: number 1 of its classes has no name"),
        (lambda made: (made.root / "classes.txt").write_text("a\nb\na\n"), "classes.txt: names a twice; give each class a name of its own"),
        (lambda made: (made.root / "classes.txt").write_text("\n"), "classes.txt: names no class; write one name a line"),
        (
            lambda made: (made.root / "classes.txt").write_text("\n".join(map(str, range(256)))),
            "classes.txt: names 256 classes, but a mask of 8 bits tells 255 apart",
        ),
        (lambda made: (made.root / "classes.txt").write_bytes(b"caf\xe9"), "classes.txt: is not UTF-8 text"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused_in_one_line(
    damage: Callable[[Any], None], message: str, mask_set: Any, refused: Refused
) -> None:
    damage(mask_set)
    refused(lambda: MaskFolder(mask_set.root, ignore_zero=False).samples("training", None), message)


def test_a_root_that_is_not_there_is_refused(tmp_path: Path, refused: Refused) -> None:
    refused(lambda: MaskFolder(tmp_path / "none", ignore_zero=False), "data.root .*none: there is no such folder; set data.root to")


def test_class_names_are_found_in_the_files_that_data_sets_have(tmp_path: Path, refused: Refused) -> None:
    assert find_class_names(tmp_path) is None
    (tmp_path / "id2label.json").write_text(json.dumps({str(i): name for i, name in enumerate("abcdefghijkl")}))
    assert find_class_names(tmp_path) == tuple("abcdefghijkl")
    (tmp_path / "objectInfo150.txt").write_text(
        "Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t9\t1\t1\twall\n2\t0.2\t8\t2\t1\tbuilding, edifice\n"
    )
    assert find_class_names(tmp_path) == ("wall", "building, edifice")
    (tmp_path / "classes.txt").write_text("one\n two \n")
    assert find_class_names(tmp_path) == ("one", "two")


@pytest.mark.parametrize("text", ['{"0": "a", "2": "b"}', "[]", "{}", '{"0": 5}', '{"a": 0}'])
def test_an_id2label_that_leaves_a_number_out_is_refused(text: str, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "id2label.json").write_text(text)
    refused(lambda: find_class_names(tmp_path), "id2label.json: is no object that names every number from 0 on")
    (tmp_path / "id2label.json").write_text("{")
    refused(lambda: find_class_names(tmp_path), "id2label.json: is no JSON")


def test_the_fingerprint_changes_with_a_mask_or_the_class_names_and_nothing_else(mask_set: Any) -> None:
    def now() -> str:
        return MaskFolder(mask_set.root, ignore_zero=False).fingerprint()

    first = now()
    (mask_set.root / "README.md").write_text("bought in 2026")
    assert now() == first
    Image.new("L", (3, 3)).save(mask_set.mask("training", "a"))
    second = now()
    (mask_set.root / "classes.txt").write_text("ground\ncat\ndog\nboats\n")
    assert len({first, second, now()}) == 3


def test_a_bad_image_is_told_apart_from_a_user_error(mask_set: Any) -> None:
    samples = MaskFolder(mask_set.root, ignore_zero=False).samples("training", None)
    mask_set.root.rename(mask_set.root.with_name("elsewhere"))
    with pytest.raises(Exception, match="the folder of the images is not there any more") as caught:
        samples.read(0)
    assert not isinstance(caught.value, BadImage)
