"""One scene: a pure function of the spec, the split and an index."""

import numpy as np
from jaxtyping import Bool, Float64

from g2sd_deploy.data.dense.annotations import Annotated, Instances
from g2sd_deploy.data.dense.masks import box_of_mask
from g2sd_deploy.data.scenes import backgrounds, placing
from g2sd_deploy.data.scenes.backgrounds import Ground, make_ground, num_noise_draws
from g2sd_deploy.data.scenes.garments import garments_of
from g2sd_deploy.data.scenes.painting import Layer, layer_of, paint
from g2sd_deploy.data.scenes.placing import Placed, place
from g2sd_deploy.data.scenes.settings import LEAST_VISIBLE_PX, VERSION, SceneSpec
from g2sd_deploy.randomness import uniform


def compose(spec: SceneSpec, split: str, index: int) -> Annotated:
    """The scene `index` of a split, with its truth.

    Its semantic map holds 0 for the ground and 1 + label for a garment; its instances are listed from front to back, with the masks and
    boxes of what is visible.
    """
    ground, placed = planned(spec, split, index)
    kept = visible(spec, split, placed)
    pixels = paint(ground.pixels, [layer for _, layer, _ in kept])
    labels = np.array([one.label for one, _, _ in kept], np.int64)
    masks = np.stack([mask for _, _, mask in kept])
    classes = np.zeros(pixels.shape[:2], np.uint8)
    for label, mask in zip(labels, masks, strict=True):
        classes[mask] = label + 1
    boxes = np.array([box_of_mask(mask) for mask in masks], np.float32)
    return Annotated(pixels, classes, Instances(boxes, labels, masks, np.zeros(len(labels), bool)))


def planned(spec: SceneSpec, split: str, index: int) -> tuple[Ground, list[Placed]]:
    """The ground and the garments that are drawn for a scene, from front to back; the first lies within the scene as a whole."""
    num = 1 + backgrounds.NUM_DRAWS + spec.max_garments * placing.NUM_DRAWS
    draws = _draws(spec, f"scenes/{VERSION}/{split}", index, num)
    noise = _draws(spec, f"scenes/{VERSION}/{split}/noise", index, num_noise_draws(spec.image_px))
    ground = make_ground(draws[1 : 1 + backgrounds.NUM_DRAWS], noise, spec.image_px)
    garments = garments_of(split)
    num_garments = 1 + int(draws[0] * spec.max_garments)
    rows = draws[1 + backgrounds.NUM_DRAWS :].reshape(spec.max_garments, placing.NUM_DRAWS)
    placed = [place(row, garments, spec, ground.mean, inside=i == 0) for i, row in enumerate(rows[:num_garments])]
    return ground, placed


def visible(spec: SceneSpec, split: str, placed: list[Placed]) -> list[tuple[Placed, Layer, Bool[np.ndarray, "side side"]]]:
    """Garments that can be seen well enough, from front to back, with what is seen of them.

    A garment of which those in front of it (and the edge of the scene) leave too little is left out, and hides nothing.
    """
    free = np.ones((spec.image_px, spec.image_px), bool)
    kept: list[tuple[Placed, Layer, Bool[np.ndarray, "side side"]]] = []
    for one in placed:
        layer = layer_of(one, garments_of(split).layers[one.garment], spec.image_px)
        mask = np.zeros_like(free)
        mask[layer.place] = layer.mask & free[layer.place]
        seen = int(mask.sum())
        if kept and seen < max(LEAST_VISIBLE_PX, spec.min_visible * layer.num_px):
            continue
        free &= ~mask
        kept.append((one, layer, mask))
    assert kept[0][2].any(), "the first garment lies within the scene and nothing hides it"
    return kept


def _draws(spec: SceneSpec, stream: str, index: int, num: int) -> Float64[np.ndarray, " num"]:
    drawn: Float64[np.ndarray, " num"] = uniform(spec.seed, stream, 0, np.array([index], np.int64), num)[0]
    return drawn
