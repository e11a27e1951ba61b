"""Training samples: pixels, classes, boxes and masks stay together through scaling, mirroring, cropping and padding."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from g2sd_deploy.data.dense.annotations import IGNORED, Annotated, Instances
from g2sd_deploy.data.dense.augment import NUM_DETECTION_DRAWS, NUM_SEGMENTATION_DRAWS, detection_sample, segmentation_sample
from g2sd_deploy.data.dense.geometry import boxes_of
from g2sd_deploy.data.dense.photometric import photometric_distortion
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import DetectionAugmentSettings, SegmentationAugmentSettings

FILL = (10, 20, 30)
COLOURS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
PLAIN = SegmentationAugmentSettings(scale=(1.0, 1.0), flip=False, photometric=False, max_share=1.0)
STILL = DetectionAugmentSettings(scale=(1.0, 1.0), flip=False)


def scene(height: int = 40, width: int = 56) -> Annotated:
    """Three squares of colours, classes and labels of their own on white; the ground is class 3."""
    pixels, classes = np.full((height, width, 3), 255, dtype=np.uint8), np.full((height, width), 3, dtype=np.uint8)
    masks = np.zeros((3, height, width), dtype=bool)
    for index, (top, left, side) in enumerate(((3, 4, 12), (20, 30, 16), (2, 40, 9))):
        area = slice(top, top + side), slice(left, left + side)
        pixels[area], classes[area], masks[index][area] = COLOURS[index], index, True
    instances = Instances(boxes_of(masks), np.arange(3, dtype=np.int64), masks, np.zeros(3, dtype=bool))
    return Annotated(pixels, classes, instances)


def nearest_to(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a colour of a square is nearer than those of the other squares and of the ground."""
    all_colours = np.array([*COLOURS, (255, 255, 255)])
    return np.abs(pixels[:, :, None].astype(int) - all_colours).sum(axis=3).argmin(axis=2) == COLOURS.index(colour)


def off_by_one_at_most(found: np.ndarray, truth: np.ndarray) -> bool:
    """Whether two areas differ at their edges only."""
    grown = [np.pad(area, 1) for area in (found, truth)]
    around = [
        np.any([np.roll(area, (row, column), (0, 1)) for row in (-1, 0, 1) for column in (-1, 0, 1)], axis=0)[1:-1, 1:-1] for area in grown
    ]
    return not (found & ~around[1]).any() and not (truth & ~around[0]).any()


def draws_for(num: int, index: int) -> np.ndarray:
    return uniform(7, "test", 0, np.array([index]), num)[0]


@pytest.mark.parametrize("index", range(20))
def test_classes_stay_on_their_pixels(index: int) -> None:
    settings = SegmentationAugmentSettings(scale=(0.5, 2.0), photometric=False)
    annotated = scene()
    pixels, classes = segmentation_sample(annotated, draws_for(NUM_SEGMENTATION_DRAWS, index), settings, 40, FILL)
    assert pixels.shape == (40, 40, 3)
    assert classes.shape == (40, 40)
    shown = classes != IGNORED
    assert (pixels[~shown] == FILL).all()
    assert set(np.unique(classes[shown])) <= {0, 1, 2, 3}
    for label, colour in enumerate(COLOURS):
        assert off_by_one_at_most(nearest_to(pixels, colour) & shown, classes == label)


@pytest.mark.parametrize("index", range(20))
def test_boxes_masks_and_labels_stay_on_their_pixels(index: int) -> None:
    settings = DetectionAugmentSettings(scale=(0.3, 2.0))
    pixels, truth = detection_sample(scene(), draws_for(NUM_DETECTION_DRAWS, index), settings, 40, FILL)
    rows, columns = truth.size
    assert (pixels[rows:] == FILL).all()
    assert (pixels[:, columns:] == FILL).all()
    assert not truth.masks[:, rows:].any()
    assert not truth.masks[:, :, columns:].any()
    inside = np.zeros((40, 40), dtype=bool)
    inside[:rows, :columns] = True
    masks = dict(zip(truth.labels.tolist(), truth.masks.numpy(), strict=True))
    for label, colour in enumerate(COLOURS):
        found = nearest_to(pixels, colour) & inside
        assert off_by_one_at_most(found, masks.get(label, np.zeros_like(found)))
    for box, mask in zip(truth.boxes.tolist(), truth.masks.numpy(), strict=True):
        left, top, right, bottom = map(int, box)
        assert mask[top:bottom, left:right].all()  # squares fill their boxes
        assert mask.sum() == (bottom - top) * (right - left)


def test_scale_one_without_a_crop_leaves_an_image_and_its_truth_as_they_are() -> None:
    square = scene(56, 56)
    pixels, classes = segmentation_sample(square, np.full(NUM_SEGMENTATION_DRAWS, 0.99), PLAIN, 56, FILL)
    assert (pixels == square.pixels).all()
    assert (classes == square.classes).all()
    assert square.instances is not None
    pixels, truth = detection_sample(square, np.full(NUM_DETECTION_DRAWS, 0.99), STILL, 56, FILL)
    assert (pixels == square.pixels).all()
    assert (truth.masks.numpy() == square.instances.masks).all()
    assert truth.boxes.tolist() == square.instances.boxes.tolist()
    assert truth.labels.tolist() == [0, 1, 2]
    assert truth.size == (56, 56)


def test_a_flip_mirrors_pixels_classes_masks_and_boxes() -> None:
    square = scene(56, 56)
    mirrored = np.full(NUM_SEGMENTATION_DRAWS, 0.4)
    pixels, classes = segmentation_sample(square, mirrored, PLAIN.model_copy(update={"flip": True}), 56, FILL)
    assert (pixels == square.pixels[:, ::-1]).all()
    assert (classes == square.classes[:, ::-1]).all()
    _, truth = detection_sample(square, mirrored[:NUM_DETECTION_DRAWS], STILL.model_copy(update={"flip": True}), 56, FILL)
    assert truth.boxes[0].tolist() == [56 - 16, 3, 56 - 4, 15]


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [
        ((30, 50), 1.0, (32, 53)),  # the short side fits
        ((50, 30), 1.5, (80, 48)),
        ((10, 100), 1.0, (13, 128)),  # the long side fits four times
        ((64, 64), 0.5, (16, 16)),
    ],
)
def test_segmentation_fits_the_short_side_and_four_times_that_the_long_side(
    size: tuple[int, int], factor: float, expected: tuple[int, int]
) -> None:
    settings = PLAIN.model_copy(update={"scale": (factor, factor)})
    annotated = Annotated(np.zeros((*size, 3), dtype=np.uint8), np.zeros(size, dtype=np.uint8), None)
    _, classes = segmentation_sample(annotated, np.zeros(NUM_SEGMENTATION_DRAWS), settings, 32, FILL)
    assert (classes != IGNORED).sum() == min(expected[0], 32) * min(expected[1], 32)
    _, classes = segmentation_sample(annotated, np.zeros(NUM_SEGMENTATION_DRAWS), settings.model_copy(update={"max_share": 0.5}), 32, FILL)
    assert (classes != IGNORED).sum() == min(expected[0], 32) * min(expected[1], 32)  # no crop is good enough: the last one is taken


def test_every_place_of_a_crop_is_reached() -> None:
    columns = np.broadcast_to(np.arange(10, dtype=np.uint8), (8, 10))
    annotated = Annotated(np.repeat(columns[:, :, None], 3, 2), columns, None)
    lefts = set()
    for draw in np.linspace(0, 1, 30, endpoint=False):
        draws = np.full(NUM_SEGMENTATION_DRAWS, 0.99)
        draws[2:4] = 0.0, draw
        pixels, classes = segmentation_sample(annotated, draws, PLAIN, 8, FILL)
        assert (pixels[:, :, 0] == classes).all()
        lefts.add(int(classes[0, 0]))
    assert lefts == {0, 1, 2}


def test_a_crop_that_one_class_fills_is_drawn_anew_by_the_next_draws() -> None:
    classes = np.zeros((8, 40), dtype=np.uint8)
    classes[4:, 32:] = 1
    annotated = Annotated(np.zeros((8, 40, 3), dtype=np.uint8), classes, None)
    draws = np.zeros(NUM_SEGMENTATION_DRAWS)
    strict = PLAIN.model_copy(update={"max_share": 0.75})

    def crop_of(place: int) -> np.ndarray:
        """The crop where only this one of the eleven places shows two classes."""
        draws[2:24] = 0.0
        draws[3 + 2 * place] = 0.999
        # four times the crop's side is shorter than this image, so that it shrinks to 6 x 32
        return segmentation_sample(annotated, draws, strict, 8, FILL)[1]

    for place in (0, 1, 9, 10):
        assert set(np.unique(crop_of(place))) == {0, 1, IGNORED}
    assert set(np.unique(segmentation_sample(annotated, np.zeros(NUM_SEGMENTATION_DRAWS), strict, 8, FILL)[1])) == {0, IGNORED}


def test_what_is_ignored_counts_for_no_share() -> None:
    """Seven eighths are ignored; the rest is half and half, so the first crop is good."""
    classes = np.full((8, 16), IGNORED, dtype=np.uint8)
    classes[7, :8] = [0, 1] * 4
    annotated = Annotated(np.zeros((8, 16, 3), dtype=np.uint8), classes, None)
    draws = np.full(NUM_SEGMENTATION_DRAWS, 0.99)
    draws[2:4] = 0.0
    got = segmentation_sample(annotated, draws, PLAIN.model_copy(update={"max_share": 0.6}), 8, FILL)[1]
    assert (got == classes[:, :8]).all()


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (48, 48)])
@pytest.mark.parametrize("factor", [0.1, 0.37, 1.0, 1.7])
def test_large_scale_jitter_is_that_of_torchvision(size: tuple[int, int], factor: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    no_truth = Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, *size), dtype=bool), np.zeros(0, dtype=bool))
    settings = DetectionAugmentSettings(scale=(factor, factor), flip=False)
    got, truth = detection_sample(Annotated(pixels, None, no_truth), np.array([0.3, 0.9, 0.6]), settings, 64, FILL)
    theirs = v2.ScaleJitter((64, 64), (factor, factor), antialias=True)(tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)))
    rows, columns = theirs.shape[1:]  # cut to whole pixels, where ours are rounded
    assert max(abs(min(rows, 64) - truth.size[0]), abs(min(columns, 64) - truth.size[1])) <= 1
    if (min(rows, 64), min(columns, 64)) == truth.size and max(rows, columns) * factor == pytest.approx(64 * factor**2):
        top, left = int(0.6 * (max(rows - 64, 0) + 1)), int(0.6 * (max(columns - 64, 0) + 1))
        assert (got[: truth.size[0], : truth.size[1]] == theirs.permute(1, 2, 0).numpy()[top : top + 64, left : left + 64]).all()
    assert truth.boxes.shape == (0, 4)
    assert truth.masks.shape == (0, 64, 64)


def test_the_scale_is_uniform_between_its_ends() -> None:
    settings = DetectionAugmentSettings(scale=(0.25, 0.75), flip=False)
    sides = [detection_sample(scene(64, 64), np.array([draw, 0.9, 0.0]), settings, 64, FILL)[1].size[0] for draw in (0.0, 0.5, 1 - 2**-53)]
    assert sides == [16, 32, 48]


def test_objects_that_vanish_and_crowds_are_dropped_with_their_labels() -> None:
    annotated = scene(40, 56)
    assert annotated.instances is not None
    instances = annotated.instances
    crowd = Annotated(annotated.pixels, None, Instances(instances.boxes, instances.labels, instances.masks, np.array([False, True, False])))
    _, truth = detection_sample(crowd, np.array([0.0, 0.9, 0.0]), STILL, 56, FILL)
    assert truth.labels.tolist() == [0, 2]
    corner = DetectionAugmentSettings(scale=(2.0, 2.0), flip=False)
    _, truth = detection_sample(annotated, np.array([0.0, 0.9, 0.0]), corner, 56, FILL)  # rows 0 .. 27, columns 0 .. 27
    assert truth.labels.tolist() == [0]
    _, truth = detection_sample(annotated, np.array([0.0, 0.9, 1 - 2**-53]), corner, 56, FILL)  # rows 12 .. 39, columns 28 .. 55
    assert truth.labels.tolist() == [1]
    assert truth.boxes.tolist() == [[2 * (30 - 28), 2 * (20 - 12), 2 * (46 - 28), 2 * (36 - 12)]]


def test_draws_decide_everything_and_global_generators_nothing() -> None:
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    settings = SegmentationAugmentSettings()
    samples = [segmentation_sample(scene(), draws_for(NUM_SEGMENTATION_DRAWS, index), settings, 32, FILL) for index in (0, 1, 0)]
    found = [
        detection_sample(scene(), draws_for(NUM_DETECTION_DRAWS, index), DetectionAugmentSettings(), 32, FILL)[0] for index in (0, 1, 0)
    ]
    assert before == (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert (samples[0][0] == samples[2][0]).all()
    assert (samples[0][1] == samples[2][1]).all()
    assert (samples[0][0] != samples[1][0]).any()
    assert (found[0] == found[2]).all()
    assert (found[0] != found[1]).any()


def test_photometric_distortion_changes_pixels_alone_and_never_the_padding() -> None:
    draws = draws_for(NUM_SEGMENTATION_DRAWS, 3)
    small = SegmentationAugmentSettings(scale=(0.5, 0.5), flip=False)
    draws[-9:] = [0.1, 0.7, 0.1, 0.2, 0.1, 0.8, 0.1, 0.3, 0.1]
    pixels, classes = segmentation_sample(scene(), draws, small, 40, FILL)
    plain, same = segmentation_sample(scene(), draws, small.model_copy(update={"photometric": False}), 40, FILL)
    assert (classes == same).all()
    assert (pixels[classes == IGNORED] == FILL).all()
    shown = classes != IGNORED
    assert (pixels[shown] == photometric_distortion(plain[shown][None], draws[-9:])[0]).all()
    assert (pixels[shown] != plain[shown]).any()


def test_grey_images_are_augmented_too() -> None:
    grey = Annotated(scene().pixels[:, :, :1], scene().classes, scene().instances)
    draws = np.full(NUM_SEGMENTATION_DRAWS, 0.1)
    assert segmentation_sample(grey, draws, SegmentationAugmentSettings(), 48, (9,))[0].shape == (48, 48, 1)
    pixels, _ = detection_sample(grey, draws[:NUM_DETECTION_DRAWS], DetectionAugmentSettings(), 48, (9,))
    assert pixels.shape == (48, 48, 1)
    assert pixels[-1, -1, 0] == 9
