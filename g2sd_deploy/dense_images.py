"""The images that an export of a segmenter or a detector asks about: those of the proof, and those that INT8 is made with."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from g2sd_deploy.data.dense.annotations import DenseSamples
from g2sd_deploy.data.images import BadImage, evenly_spread
from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.average_precision import PrecisionTally
from g2sd_deploy.evaluation.segmentation import SegmentationTally
from g2sd_deploy.exporting import NUM_HELD_OUT
from g2sd_export.dense.proof import Metric
from g2sd_export.dense.quantising import HeldOut
from g2sd_export.dense.questions import questions_of
from g2sd_export.edge.dense.task import DenseTask
from g2sd_export.int8.calibration import inputs_of, pick_calibration
from g2sd_export.shipping.material import TrainingImages


@dataclass(frozen=True)
class Usable:
    """Images that could be read; an unusable one is passed over, as it is in training.

    Attributes:
        samples: What they are of.
        indices: Where they stand in it.
        pixels: uint8 [h, w, c] of each.
    """

    samples: DenseSamples
    indices: tuple[int, ...]
    pixels: tuple[UInt8[np.ndarray, "h w c"], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images, for people."""
        return tuple(self.samples.name(index) for index in self.indices)


def usable(samples: DenseSamples, indices: Iterable[int]) -> Usable:
    """Read some images."""
    found = {}
    for index in indices:
        try:
            found[index] = samples.read(index).pixels
        except BadImage:
            continue
    return Usable(samples, tuple(found), tuple(found.values()))


def metric_of(images: Usable, task: DenseTask, class_names: tuple[str, ...]) -> Metric:
    """What the task is about, as the proof asks for it: `miou`, or `ap` and `mask_ap`, of results for these images in this order.

    Raises:
        UserError: When it is called: an image has no truth of the task.
    """

    def truth(index: int) -> Any:
        annotated = images.samples.read(index)
        found = annotated.classes if task.kind == "segmentation" else annotated.instances
        if found is None:
            raise UserError(f"{images.samples.name(index)} has no truth for {task.kind}; export with a data set that has it")
        return found

    def miou(results: Iterable[Any]) -> dict[str, float | None]:
        tally = SegmentationTally(len(class_names))
        for index, found in zip(images.indices, results, strict=True):
            tally.add(found, truth(index))
        return {"miou": tally.scores(class_names)["miou"]}

    def precision(results: Iterable[Any]) -> dict[str, float | None]:
        tally = PrecisionTally(class_names)
        for index, found in zip(images.indices, results, strict=True):
            tally.add(found, truth(index))
        scores = tally.scores()
        return {"ap": scores["box"]["ap"], "mask_ap": scores["mask"]["ap"]}

    return miou if task.kind == "segmentation" else precision


def quantising_images(
    train: DenseSamples, task: DenseTask, class_names: tuple[str, ...], *, num_calibrated: int, source: str
) -> tuple[TrainingImages | None, HeldOut | None]:
    """Training images to calibrate with, and others to judge what came of it.

    Args:
        train: Training images with their truth.
        task: How they are cut.
        class_names: In the order of the classes.
        num_calibrated: Square inputs to calibrate with.
        source: Where they come from, for people.

    Returns:
        None for either that has no image.
    """
    ids = [train.name(index) for index in range(len(train))]
    total = min(len(ids), num_calibrated + inputs_of(NUM_HELD_OUT, task.image_px))
    pick = pick_calibration(np.zeros(len(ids), np.int64), ids, count=total).indices
    seen, held_out = usable(train, pick[:num_calibrated]), usable(train, pick[num_calibrated:])
    windows = questions_of(seen.pixels, task).windows
    some = windows[evenly_spread(len(windows), min(num_calibrated, len(windows)))]
    unlabelled = np.zeros(len(some), np.int64)
    return (
        TrainingImages(some, unlabelled, seen.names, source) if len(some) else None,
        HeldOut(questions_of(held_out.pixels, task), metric_of(held_out, task, class_names)) if held_out.indices else None,
    )
