"""A scene: the same bytes whenever it is asked for, and a truth that agrees with itself and with the picture."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from g2sd_deploy.data.dense.annotations import Annotated, Instances
from g2sd_deploy.data.idx import find_idx, read_idx
from g2sd_deploy.data.scenes import SceneSpec, compose
from g2sd_deploy.data.scenes.composing import planned, visible
from g2sd_deploy.data.scenes.garments import garments_of
from g2sd_deploy.data.scenes.painting import paint
from g2sd_deploy.data.scenes.settings import LEAST_VISIBLE_PX
from g2sd_deploy.data.sources.idx import BUNDLED
from g2sd_deploy.errors import UserError

Scenes = list[tuple[Annotated, Instances]]


def _bytes_of(scene: Annotated) -> bytes:
    assert scene.classes is not None
    assert scene.instances is not None
    parts = (scene.pixels, scene.classes, scene.instances.boxes, scene.instances.labels, scene.instances.masks, scene.instances.crowd)
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def test_a_scene_does_not_depend_on_what_was_asked_before(spec: SceneSpec) -> None:
    upwards = [_bytes_of(compose(spec, "test", index)) for index in range(6)]
    downwards = [_bytes_of(compose(spec, "test", index)) for index in reversed(range(6))]
    assert upwards == downwards[::-1]
    assert len(set(upwards)) == 6


def test_the_bytes_of_a_version_never_change() -> None:
    digest = hashlib.sha256()
    for split in ("train", "test"):
        for index in range(12):
            digest.update(_bytes_of(compose(SceneSpec(seed=1), split, index)))
    assert digest.hexdigest() == "77af87c560dc6a6a44802f8621912d1fefbc987ea22c03140a7f08a5523a85c2", (
        "other scenes for the same seed need another VERSION in settings.py"
    )


def test_another_seed_split_or_index_gives_another_scene(spec: SceneSpec) -> None:
    scenes = [compose(spec, "train", 0), compose(replace(spec, seed=4), "train", 0), compose(spec, "test", 0), compose(spec, "train", 1)]
    assert len({scene.pixels.tobytes() for scene in scenes}) == 4


def test_boxes_enclose_what_is_visible_exactly(scenes: Scenes) -> None:
    for _, objects in scenes:
        for box, mask in zip(objects.boxes, objects.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_map_of_classes_says_what_the_objects_say(scenes: Scenes) -> None:
    for scene, objects in scenes:
        expected = np.zeros(scene.pixels.shape[:2], int)
        for label, mask in zip(objects.labels, objects.masks, strict=True):
            assert not expected[mask].any(), "no pixel belongs to two objects"
            expected[mask] = label + 1
        assert scene.classes is not None
        assert np.array_equal(scene.classes, expected)


def test_labels_are_those_of_the_garments_and_every_class_occurs(spec: SceneSpec, scenes: Scenes) -> None:
    labels = read_idx(find_idx(BUNDLED, "train-labels-idx1-ubyte"))
    pictures = read_idx(find_idx(BUNDLED, "train-images-idx3-ubyte"))
    for index in range(8):
        for placed, _, _ in visible(spec, "train", planned(spec, "train", index)[1]):
            grey, silhouette = (garments_of("train").layers[placed.garment, i] for i in range(2))
            shown = (pictures * silhouette.astype(np.uint8) == np.rint(grey * 255)).all((1, 2))
            assert labels[shown].tolist() == [placed.label]
        assert scenes[index][1].labels.tolist() == [
            placed.label for placed, _, _ in visible(spec, "train", planned(spec, "train", index)[1])
        ]
    assert {label for _, objects in scenes for label in objects.labels.tolist()} == set(range(10))


def test_a_garment_hides_those_behind_it(spec: SceneSpec, scenes: Scenes) -> None:
    num_hidden = 0
    for index, (_, objects) in enumerate(scenes):
        kept = visible(spec, "train", planned(spec, "train", index)[1])
        alone = np.zeros((len(kept), spec.image_px, spec.image_px), bool)
        for mask, (_, layer, _) in zip(alone, kept, strict=True):
            mask[layer.place] = layer.mask
        front = np.where(alone.any(0), alone.argmax(0), -1)
        assert np.array_equal(objects.masks, np.arange(len(kept))[:, None, None] == front)
        num_hidden += int((alone & ~objects.masks).sum())
    assert num_hidden > 1000


def test_pixels_that_a_garment_covers_wholly_have_its_colour(spec: SceneSpec, scenes: Scenes) -> None:
    for index, (scene, objects) in enumerate(scenes[:10]):
        kept = visible(spec, "train", planned(spec, "train", index)[1])
        hidden = np.zeros(scene.pixels.shape[:2], bool)
        for (_, layer, _), mask in zip(kept, objects.masks, strict=True):
            whole = np.zeros_like(hidden)
            whole[layer.place] = layer.coverage == 1.0
            colours = np.zeros(scene.pixels.shape)
            colours[layer.place] = layer.colours * 255.0
            clear = whole & ~hidden
            assert not (clear & ~mask).any()
            assert np.abs(scene.pixels[clear] - colours[clear]).max(initial=0.0) <= 0.51
            hidden[layer.place] |= layer.coverage > 0.0


def test_what_shows_too_little_is_left_out_of_the_truth_and_of_the_picture() -> None:
    strict = SceneSpec(image_px=48, max_garments=8, min_visible=0.8)
    num_left_out = 0
    for index in range(15):
        ground, placed = planned(strict, "train", index)
        kept = visible(strict, "train", placed)
        for number, (_, layer, mask) in enumerate(kept):
            assert number == 0 or mask.sum() >= max(LEAST_VISIBLE_PX, 0.8 * layer.num_px)
        num_left_out += len(placed) - len(kept)
        scene = compose(strict, "train", index)
        again = visible(replace(strict, min_visible=0.0), "train", [one for one, _, _ in kept])
        assert np.array_equal(scene.pixels, paint(ground.pixels, [layer for _, layer, _ in again]))
        assert scene.instances is not None
        assert len(scene.instances.labels) == len(kept)
    assert num_left_out > 10


def test_no_scene_is_empty_however_small() -> None:
    small = SceneSpec(image_px=32, max_garments=2, smallest=0.2, largest=0.2)
    for index in range(100):
        objects = compose(small, "test", index).instances
        assert objects is not None
        assert len(objects.labels) >= 1
        assert objects.masks.any((1, 2)).all()


def test_the_size_in_pixels_does_not_change_what_a_scene_holds() -> None:
    small, large = (planned(SceneSpec(image_px=px), "train", 5)[1] for px in (48, 96))
    assert [one.garment for one in small] == [one.garment for one in large]
    assert np.allclose([one.centre for one in large], [[2 * at for at in one.centre] for one in small])
    assert np.allclose([one.side_px for one in large], [2 * one.side_px for one in small])


def test_scenes_hold_up_to_the_asked_number_of_garments() -> None:
    spec = SceneSpec(image_px=32, max_garments=3)
    counts = [len(planned(spec, "train", index)[1]) for index in range(200)]
    assert set(counts) == {1, 2, 3}


def test_splits_share_no_garment() -> None:
    held = {split: {picture.tobytes() for picture in garments_of(split).layers} for split in ("train", "test")}
    assert not held["train"] & held["test"]
    with pytest.raises(UserError, match="no split val; give train or test"):
        garments_of("val")
