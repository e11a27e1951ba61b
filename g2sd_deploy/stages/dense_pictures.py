"""Pictures of images with their truth, or with what a network answers."""

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from g2sd_deploy.data.dense.annotations import Annotated
from g2sd_deploy.evaluation.dense_scoring import Infer
from g2sd_export.edge.dense.applying import detect, segment
from g2sd_export.edge.dense.detections import Detections
from g2sd_export.edge.dense.drawing import draw_detections, draw_segmentation
from g2sd_export.edge.dense.task import DenseTask

SHOWN_SCORE = 0.5
"""Objects that a picture shows; all above the task's smallest score would cover the image."""


def rgb(pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """The image itself; a grey one in three equal channels."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def drawn_truth(annotated: Annotated, class_names: tuple[str, ...]) -> UInt8[np.ndarray, "h w 3"]:
    """An image under what is to be said of it."""
    found = annotated.instances
    if found is None:
        assert annotated.classes is not None
        return draw_segmentation(rgb(annotated.pixels), annotated.classes, class_names)
    objects = ~found.crowd
    certain = np.ones(int(objects.sum()), np.float32)
    answer = Detections(found.boxes[objects], certain, found.labels[objects], found.masks[objects])
    return draw_detections(rgb(annotated.pixels), answer, class_names)


def drawn_answer(
    pixels: UInt8[np.ndarray, "h w c"], infer: Infer, task: DenseTask, class_names: tuple[str, ...]
) -> UInt8[np.ndarray, "h w 3"]:
    """An image under what a network says of it."""
    if task.kind == "segmentation":
        return draw_segmentation(rgb(pixels), segment(infer, pixels, task, batch=8), class_names)
    return draw_detections(rgb(pixels), detect(infer, pixels, replace(task, min_score=max(task.min_score, SHOWN_SCORE))), class_names)
