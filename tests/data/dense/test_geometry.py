"""Views of an image: pixels, classes and masks stay on each other, and each is what an exact formula says."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from g2sd_deploy.data.dense.geometry import View, boxes_of, resize_pixels, resized_by, view_classes, view_masks, view_pixels


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def whole(size: tuple[int, int], resized: tuple[int, int] | None = None, *, mirrored: bool = False) -> View:
    """A view of the whole image, large enough for no crop."""
    resized = resized or size
    return View(size, resized, (0, 0), max(resized), mirrored)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_of_everything_at_its_own_size_is_the_image_itself(channels: int) -> None:
    pixels = noise(13, 21, channels)
    view = whole((13, 21))
    assert view.shown == (13, 21)
    assert (view_pixels(pixels, view) == pixels).all()
    assert (view_classes(pixels[:, :, 0], view) == pixels[:, :, 0]).all()
    masks = pixels[None, :, :, 0] > 99
    assert (view_masks(masks, view)[:, :13, :21] == masks).all()


def test_mirroring_twice_gives_the_image_back() -> None:
    pixels, view = noise(13, 21), whole((13, 21), mirrored=True)
    masks = pixels.transpose(2, 0, 1) > 99
    square = View((21, 21), (21, 21), (0, 0), 21, True)
    assert (view_pixels(view_pixels(pixels, view), view) == pixels).all()
    assert (view_pixels(pixels, view) != pixels).any()
    assert (view_classes(view_classes(pixels[:, :, 0], view), view) == pixels[:, :, 0]).all()
    assert (view_masks(view_masks(masks, view), square)[:, :13, :] == masks).all()


@pytest.mark.parametrize("resized", [(26, 42), (9, 15), (13, 40), (1, 1)])
def test_a_mirrored_view_is_the_view_of_the_mirrored_image(resized: tuple[int, int]) -> None:
    pixels = noise(13, 21)
    corner, other = (resized[0] // 3, resized[1] // 4), whole((13, 21), resized)
    mirrored = View((13, 21), resized, corner, 10, True)
    plain = View((13, 21), resized, corner, 10, False)
    turned = np.ascontiguousarray(pixels[:, ::-1])
    assert np.abs(view_pixels(pixels, mirrored).astype(int) - view_pixels(turned, plain)).max() <= 1  # weights are rounded from one side
    assert (view_classes(pixels[:, :, 0], mirrored) == view_classes(turned[:, :, 0], plain)).all()
    assert view_pixels(pixels, mirrored).shape[:2] == mirrored.shown
    assert other.shown == resized


def by_area(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bilinear resizing in float64: a triangle as wide as two pixels of the coarser grid, axis by axis."""
    values = pixels.astype(np.float64)
    for axis, new in enumerate(size):
        old = values.shape[axis]
        step = max(1.0, old / new)
        distance = np.abs((np.arange(old) + 0.5)[None] - (np.arange(new) + 0.5)[:, None] * old / new) / step
        weights = np.maximum(0.0, 1.0 - distance)
        values = np.moveaxis(np.tensordot(weights / weights.sum(axis=1, keepdims=True), values, (1, axis)), 0, axis)
    return values


@pytest.mark.parametrize("size", [(40, 30), (9, 50), (5, 7), (33, 24)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_resized_as_a_float64_formula_and_pillow_do(size: tuple[int, int], channels: int) -> None:
    pixels = noise(20, 24, channels)
    got = resize_pixels(pixels, size)
    assert np.abs(got - by_area(pixels, size)).max() <= 1.5
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).resize(size[::-1], Image.Resampling.BILINEAR)
    assert np.abs(got.astype(int) - np.asarray(image).reshape(got.shape)).max() <= 2


@pytest.mark.parametrize("resized", [(31, 47), (7, 9), (60, 13), (20, 24), (45, 100)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_truth_is_that_at_the_centre_of_each_pixel_by_a_float64_formula(resized: tuple[int, int], mirrored: bool) -> None:
    height, width = 20, 24
    classes = noise(height, width, 1)[:, :, 0]
    view = View((height, width), resized, (2, 3), 32, mirrored)
    got = view_classes(classes, view)
    rows, columns = view.shown
    for row in range(rows):
        for column in range(columns):
            y, x = (row + 2 + 0.5) * height / resized[0], (column + 3 + 0.5) * width / resized[1]
            if min(abs(y - round(y)), abs(x - round(x))) < 1e-9:
                continue  # between two pixels
            x = width - x if mirrored else x
            assert got[row, column] == classes[int(y), int(x)]
    masks = np.stack([classes == value for value in (classes[5, 5], classes[9, 3])])
    shown = view_masks(masks, view)
    assert shown.shape == (2, 32, 32)
    assert (shown[:, :rows, :columns] == np.stack([got == classes[5, 5], got == classes[9, 3]])).all()
    assert not shown[:, rows:].any()
    assert not shown[:, :, columns:].any()


def ellipses(num: int) -> np.ndarray:
    rng, (rows, columns) = np.random.default_rng(0), np.mgrid[:40, :56] + 0.5
    centres = rng.uniform((16, 24), (24, 32), (num, 2))
    return np.stack([((rows - y) / 11) ** 2 + ((columns - x) / 19) ** 2 < 1 for y, x in centres])


@pytest.mark.parametrize("resized", [(48, 80), (17, 29), (61, 31)])
def test_masks_are_those_of_torchvision(resized: tuple[int, int]) -> None:
    masks = ellipses(3)
    shown = view_masks(masks, whole((40, 56), resized))[:, : resized[0], : resized[1]]
    theirs = v2.functional.resize(tv_tensors.Mask(torch.from_numpy(masks)), list(resized), v2.InterpolationMode.NEAREST_EXACT)
    assert np.mean(shown != theirs.numpy()) < 0.01  # its float coordinates may fall to the other side


@pytest.mark.parametrize("resized", [(48, 80), (17, 29), (61, 31)])
def test_masks_lie_where_the_light_of_their_pixels_lies(resized: tuple[int, int]) -> None:
    masks, off = ellipses(30), []
    for mask in masks:
        view = whole((40, 56), resized)
        shown = view_masks(mask[None], view)[0, : resized[0], : resized[1]].astype(np.float64)
        light = view_pixels(np.where(mask, 255, 0).astype(np.uint8)[:, :, None], view)[:, :, 0] / 255.0
        centres = [[np.average(np.arange(n), weights=of.sum(axis=1 - axis)) for axis, n in enumerate(resized)] for of in (light, shown)]
        off.append(np.subtract(*centres))
    assert np.abs(np.mean(off, axis=0)).max() < 0.05


def test_a_box_has_the_edges_of_the_outermost_pixels_of_its_mask() -> None:
    masks = np.zeros((3, 12, 20), dtype=bool)
    masks[0, 4:9, 2:7] = True
    masks[1, 11, 19] = True
    masks[2, 0, 5] = masks[2, 7, 0] = True
    assert boxes_of(masks).tolist() == [[2, 4, 7, 9], [19, 11, 20, 12], [0, 0, 6, 8]]
    assert boxes_of(masks).dtype == np.float32
    assert boxes_of(masks[:0]).shape == (0, 4)


def test_a_size_never_shrinks_to_nothing() -> None:
    assert resized_by((1000, 3), 0.01) == (10, 1)
    assert resized_by((427, 640), 0.5) == (214, 320)
