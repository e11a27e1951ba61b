"""Pictures, looked at pixel by pixel."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from g2sd_export.edge.dense.detections import Detections
from g2sd_export.edge.dense.drawing import (
    draw_detections,
    draw_segmentation,
    legend,
    magnification,
    magnified,
    magnified_detections,
)
from g2sd_export.edge.dense.files import classes_png, mask_from_run_lengths, run_lengths
from g2sd_export.edge.dense.lettering import drawable, shortened, text_size
from g2sd_export.edge.dense.palette import FIRST, colour_of, colours, ink_on
from g2sd_export.edge.dense.panels import GAP_PX, detection_panels, segmentation_panels, side_by_side

NAMES = ("sky", "grünes Ding", "sea")
GREY = np.full((60, 90, 1), 100, np.uint8)

# Linear RGB as a person without the red or the green receptors sees it (Vienot, Brettel and Mollon 1999, as matrices on linear RGB).
SEEN = {
    "normal": np.eye(3),
    "protan": np.asarray([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deutan": np.asarray([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}
XYZ = np.asarray([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: tuple[int, int, int], sight: str) -> npt.NDArray[np.float64]:
    unit = np.asarray(colour) / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(SEEN[sight] @ linear, 0, 1) / (XYZ @ np.ones(3)))
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def found_of(*boxes: tuple[float, ...], scores: tuple[float, ...], labels: tuple[int, ...]) -> Detections:
    masks = np.zeros((len(boxes), 60, 90), np.bool_)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) + 5 : int(bottom) - 5, int(left) + 5 : int(right) - 5] = True
    return Detections(np.asarray(boxes, np.float32), np.asarray(scores, np.float32), np.asarray(labels), masks)


@pytest.mark.parametrize("sight", SEEN)
def test_the_first_colours_are_told_apart_also_without_red_or_green(sight: str) -> None:
    distances = [np.linalg.norm(lab(one, sight) - lab(other, sight)) for one, other in combinations(FIRST, 2)]
    assert len(FIRST) == 8 and min(distances) > 10  # 2.3 is just noticeable; red and green of one lightness come to 5 and less
    assert np.linalg.norm(lab((255, 80, 80), "deutan") - lab((170, 150, 60), "deutan")) < 20


def test_colours_are_always_the_same_and_of_many_classes_all_different() -> None:
    assert (colours(150)[:8] == FIRST).all() and len({colour_of(index) for index in range(150)}) == 150
    assert (colours(256)[:150] == colours(150)).all() and colours(0).shape == (0, 3)
    assert ink_on((240, 228, 66)) == (0, 0, 0) and ink_on((0, 0, 120)) == (255, 255, 255)


def test_classes_are_mixed_into_the_grey_image() -> None:
    classes = np.zeros((60, 90), np.uint8)
    classes[:, 45:] = 2
    classes[:10] = 255
    before = GREY.copy()
    drawn = draw_segmentation(GREY, classes, NAMES, opacity=0.5)
    assert drawn.shape == (60, 90, 3) and drawn.dtype == np.uint8 and (before == GREY).all()
    assert (drawn[30, 20] == np.round(50 + np.asarray(colour_of(0)) / 2)).all()
    assert (drawn[30, 60] == np.round(50 + np.asarray(colour_of(2)) / 2)).all()
    assert (drawn[30, 44] == 255).all() and (drawn[:10] == 100).all()


def test_the_legend_shows_the_classes_that_are_there_and_no_other() -> None:
    classes = np.zeros((60, 90), np.uint8)
    classes[:, :10], classes[:5] = 1, 255
    shown = legend(classes, NAMES, 300, 12)
    tints = {tuple(int(part) for part in pixel) for pixel in shown.reshape(-1, 3)}
    assert colour_of(0) in tints and colour_of(1) in tints and colour_of(2) not in tints
    row = shown[shown.shape[0] // 2]
    assert (row == colour_of(0)).all(axis=1).argmax() < (row == colour_of(1)).all(axis=1).argmax()  # the more frequent comes first
    assert (shown == 0).any()
    assert legend(np.full((4, 4), 255, np.uint8), NAMES, 300, 12).shape == (0, 300, 3)
    assert legend(np.arange(3, dtype=np.uint8)[None], NAMES, 60, 12).shape[0] == 3 * text_size("", 12)[1]


def test_boxes_masks_and_names_are_drawn() -> None:
    found = found_of((10, 30, 40, 55), (60, 2, 85, 50), scores=(0.93, 0.5), labels=(0, 2))
    drawn = draw_detections(GREY, found, NAMES, opacity=0.5)
    first, second = np.asarray(colour_of(0)), np.asarray(colour_of(2))
    assert (drawn[30, 20:35] == first).all() and (drawn[54, 12:38] == first).all() and (drawn[35:50, 10] == first).all()
    assert (drawn[45, 39] == first).all() and (drawn[45, 40] == 100).all() and (drawn[55, 20] == 100).all()
    assert (drawn[45, 30] == np.round(50 + first / 2)).all()
    assert (drawn[45, 61] == 100).all() or (drawn[45, 61] == second).all()
    tag = drawn[30 - text_size("sky 0.93", 11)[1] : 30, 10 : 10 + text_size("sky 0.93", 11)[0]]
    assert (tag == first).all(axis=2).mean() > 0.5 and (tag.astype(int).sum(axis=2) < 120).any()  # dark letters on the colour
    assert (drawn[58, :50] == 100).all()


def test_the_surest_object_lies_on_top() -> None:
    found = found_of((10, 20, 50, 50), (10, 20, 50, 50), scores=(0.9, 0.3), labels=(1, 0))
    assert (draw_detections(GREY, found, NAMES)[49, 15:45] == colour_of(1)).all()


def test_boxes_at_the_border_and_empty_answers_are_drawn_without_complaint() -> None:
    found = found_of((0, 0, 90, 60), (88.6, 59.4, 90, 60), scores=(1.0, 0.2), labels=(0, 1))
    drawn = draw_detections(GREY, found, NAMES)
    assert drawn.shape == (60, 90, 3) and (drawn[59, :85] == colour_of(0)).all() and (drawn[30:55, 89] == colour_of(0)).all()
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros((0, 60, 90), np.bool_))
    assert (draw_detections(GREY, nothing, NAMES) == 100).all()


def test_small_images_are_enlarged_with_their_answers() -> None:
    assert magnification(28, 32) == 10 and magnification(2000, 10) == 1
    found = magnified_detections(found_of((10, 30, 40, 55), scores=(0.9,), labels=(0,)), 3)
    assert found.boxes.tolist() == [[30, 90, 120, 165]] and found.masks.shape == (1, 180, 270)
    assert magnified(np.asarray([[1, 2]], np.uint8), 2).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_panels_stand_side_by_side_under_their_captions() -> None:
    red, blue = (np.broadcast_to(np.asarray(colour, np.uint8), (60, 90, 3)) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = side_by_side([("image", red), ("a caption that is much too wide for it", blue)])
    head = sheet.shape[0] - 60
    assert sheet.shape[1] == 2 * 90 + GAP_PX and head > 10
    assert (sheet[head:, :90] == red).all() and (sheet[head:, 90 + GAP_PX :] == blue).all() and (sheet[:, 90 : 90 + GAP_PX] == 255).all()
    assert (sheet[:head, :90] < 100).any() and (sheet[:head, 90 + GAP_PX :] < 100).any()
    with pytest.raises(ValueError, match="all of one size"):
        side_by_side([("one", red), ("other", blue[:5])])


def test_panels_of_answers_hold_the_image_and_one_picture_each() -> None:
    classes = np.zeros((60, 90), np.uint8)
    sheet = segmentation_panels(GREY, [("truth", classes), ("student", classes + 1)], NAMES)
    assert sheet.shape[1] == 3 * 360 + 2 * GAP_PX and sheet.shape[0] > 240
    found = found_of((10, 30, 40, 55), scores=(0.9,), labels=(0,))
    assert detection_panels(GREY, [("teacher", found)], NAMES).shape[1] == 2 * 360 + GAP_PX


def test_texts_are_made_drawable_and_cut_to_their_room() -> None:
    assert drawable("Kleid für\nÜbermorgen") == "Kleid fur Ubermorgen" and drawable("靴") == "?"
    short = shortened("a very long name of a class", 60, 12)
    assert short.startswith("a") and short.endswith("...") and text_size(short, 12)[0] <= 60
    assert shortened("sea", 60, 12) == "sea" and shortened("sea", 2, 12) == ""


def test_a_map_of_classes_is_a_png_whose_values_are_the_classes() -> None:
    classes = np.asarray([[0, 1, 2], [255, 7, 100]], np.uint8)
    image = Image.open(io.BytesIO(classes_png(classes)))
    assert image.mode == "P" and (np.asarray(image) == classes).all()
    shown = np.asarray(image.convert("RGB"))
    assert tuple(shown[0, 1]) == colour_of(1) and (shown[1, 0] == 255).all()


@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
def test_run_lengths_are_those_of_coco(fill: float) -> None:
    mask = np.random.default_rng(0).random((7, 5)) < fill
    found = run_lengths(mask)
    packed = coco_mask.frPyObjects(found, 7, 5)
    assert packed["counts"] == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert (mask_from_run_lengths(found) == mask).all()


def test_the_background_stays_as_it_is_and_out_of_the_legend() -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    classes = np.zeros((8, 8), np.uint8)
    classes[4:] = 1
    picture = draw_segmentation(pixels, classes, ["background", "boot"])
    assert (picture[:4] == 90).all() and (picture[4:] != 90).any(axis=2).all()
    assert (draw_segmentation(pixels, classes, ["wall", "boot"])[:3] != 90).any()
    assert np.array_equal(legend(classes, ["background", "boot"], 200, 12), legend(np.ones_like(classes), ["background", "boot"], 200, 12))
    assert legend(np.zeros_like(classes), ["background", "boot"], 200, 12).shape[0] == 0
