"""Pictures of images with their truth, or with what a network answers; small images are enlarged, so that names can be read."""

import numpy as np
from jaxtyping import UInt8

from g2sd_deploy.data.dense.annotations import Annotated
from g2sd_deploy.evaluation.dense_scoring import Infer
from g2sd_export.edge.dense.applying import detect, segment
from g2sd_export.edge.dense.detections import SHOWN_SCORE, Detections
from g2sd_export.edge.dense.drawing import draw_detections, draw_segmentation, magnification, magnified, magnified_detections
from g2sd_export.edge.dense.task import DenseTask

_BATCH = 8


def plain(pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "rows columns 3"]:
    """The image itself; a grey one in three equal channels."""
    rgb = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
    return magnified(rgb, magnification(*rgb.shape[:2]))


def drawn_truth(annotated: Annotated, kind: str, class_names: tuple[str, ...]) -> UInt8[np.ndarray, "rows columns 3"]:
    """An image under what a task is to say of it."""
    if kind == "segmentation":
        assert annotated.classes is not None
        return _with_classes(annotated.pixels, annotated.classes, class_names)
    found = annotated.instances
    assert found is not None
    objects = ~found.crowd
    certain = np.ones(int(objects.sum()), np.float32)
    return _with_objects(
        annotated.pixels, Detections(found.boxes[objects], certain, found.labels[objects], found.masks[objects]), class_names
    )


def drawn_answer(
    pixels: UInt8[np.ndarray, "h w c"], infer: Infer, task: DenseTask, class_names: tuple[str, ...]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """An image under what a network says of it."""
    if task.kind == "segmentation":
        return _with_classes(pixels, segment(infer, pixels, task, batch=_BATCH), class_names)
    return _with_objects(pixels, detect(infer, pixels, task).from_score(SHOWN_SCORE), class_names)


def _with_classes(pixels: np.ndarray, classes: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    return draw_segmentation(plain(pixels), magnified(classes, magnification(*classes.shape)), class_names)


def _with_objects(pixels: np.ndarray, found: Detections, class_names: tuple[str, ...]) -> np.ndarray:
    return draw_detections(plain(pixels), magnified_detections(found, magnification(*pixels.shape[:2])), class_names)
