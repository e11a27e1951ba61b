"""Average precision of boxes and masks by COCO's evaluator.

Shape letters: I images, T thresholds of intersection over union, D detections of a class.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from g2sd_deploy.data.dense.annotations import Instances
from g2sd_deploy.evaluation.intervals import Interval
from g2sd_deploy.evaluation.resampling import bootstrap_interval, times_drawn
from g2sd_export.edge.dense.detections import Detections

NUM_RESAMPLES = 200
_Kind = Literal["bbox", "segm"]
_AT_50, _AT_75 = 0, 5  # among the thresholds .50, .55 .. .95
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # areas: any, below 32 x 32 pixels, up to 96 x 96, above
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class _Ranked:
    """A class: what was found of it in all images, the surest first, and how much there is to be found.

    Attributes:
        hits: Detections that meet an object; regions that count as neither are neither here nor there.
        misses: Detections that meet nothing.
        image: Where each detection was made.
        positives: Objects in each image.
    """

    hits: Bool[np.ndarray, "T D"]
    misses: Bool[np.ndarray, "T D"]
    image: Int64[np.ndarray, " D"]
    positives: Int64[np.ndarray, " I"]


class PrecisionTally:
    """Objects found and true, image by image; of masks the run lengths alone are kept.

    Args:
        class_names: In the order of the labels.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self._truths: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._sizes: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, found: Detections, truth: Instances) -> None:
        """Take in an image.

        Args:
            found: Of each class the 100 surest count.
            truth: A crowd is a region in which detections of its class are neither hit nor miss.

        Raises:
            ValueError: A label that is no class, or masks of two sizes.
        """
        for name, labels in (("a detection", found.labels), ("an object", truth.labels)):
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
                raise ValueError(
                    f"{name} has a label of {labels.min()} to {labels.max()}; there are {len(self.class_names)} classes from 0"
                )
        if found.masks.shape[1:] != truth.masks.shape[1:]:
            raise ValueError(f"masks found are {list(found.masks.shape[1:])} and true ones {list(truth.masks.shape[1:])}; wanted one size")
        for row, crowd in zip(self._rows(truth, len(self._truths)), truth.crowd.tolist(), strict=True):
            self._truths.append(row | {"area": row["mask_area"], "iscrowd": int(crowd)})
        for row, score in zip(self._rows(found, len(self._found)), found.scores.tolist(), strict=True):
            self._found.append(row | {"score": score, "iscrowd": 0})
        self._sizes.append((truth.masks.shape[1], truth.masks.shape[2]))

    def scores(self, *, seed: int | None = None) -> dict[str, Any]:
        """The figures of all images together, each 0 to 1 and None where there is no object to find.

        Args:
            seed: Of the interval; None computes none, which is most of the work of small sets.

        Returns:
            `box` and `mask`: each `ap` (mean over classes that have objects, and thresholds .50 to .95), `ap50`, `ap75`, and `ap_small`,
            `ap_medium`, `ap_large` (objects of an area below 32^2, to 96^2, above). `box_ap_by_class`, `mask_ap_by_class`: `ap` of each
            class by name. `box_ap_interval`: 95 %, by the bootstrap over images, of the boxes' `ap`; None of fewer than two images.

        Source: cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py, which computes them.
        Differs: an object's area is that of its mask; COCO's files state one of the outline, which is nearly the same. A detected
            mask's size is its own area, not that of its box, as detectron2 has it too.
        """
        evaluated = self._evaluated("bbox")
        boxes, interval = evaluated.eval["precision"], None if seed is None else self._interval(evaluated, seed)
        masks = self._evaluated("segm").eval["precision"]
        return {
            "box": _summary(boxes),
            "mask": _summary(masks),
            "box_ap_interval": interval,
            "box_ap_by_class": self._by_class(boxes),
            "mask_ap_by_class": self._by_class(masks),
        }

    def _rows(self, objects: Detections | Instances, num_before: int) -> Iterator[dict[str, Any]]:
        """Objects of the next image in COCO's words. Their numbers begin with 1: the evaluator takes a match with number 0 for none."""
        from pycocotools import mask as run_lengths

        encoded = run_lengths.encode(np.asfortranarray(objects.masks.transpose(1, 2, 0).astype(np.uint8)))
        boxes = objects.boxes.astype(np.float64)
        sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for place, (box, label, mask) in enumerate(zip(sized.tolist(), objects.labels.tolist(), encoded, strict=True)):
            ids = {"id": num_before + place + 1, "image_id": len(self), "category_id": label}
            yield ids | {"bbox": box, "segmentation": mask, "mask_area": float(run_lengths.area(mask))}

    def _evaluated(self, kind: _Kind) -> Any:
        """COCO's evaluator with its results; what it prints is dropped."""
        from pycocotools.cocoeval import COCOeval

        found = [row | {"area": row["mask_area"] if kind == "segm" else row["bbox"][2] * row["bbox"][3]} for row in self._found]
        with redirect_stdout(io.StringIO()):
            evaluator = COCOeval(self._indexed([dict(row) for row in self._truths]), self._indexed(found), kind)
            evaluator.evaluate()
            evaluator.accumulate()
        return evaluator

    def _indexed(self, annotations: list[dict[str, Any]]) -> Any:
        from pycocotools.coco import COCO

        coco = COCO()
        categories = [{"id": label, "name": name} for label, name in enumerate(self.class_names)]
        images = [{"id": number, "height": height, "width": width} for number, (height, width) in enumerate(self._sizes)]
        coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
        coco.createIndex()
        return coco

    def _by_class(self, precision: np.ndarray) -> dict[str, float | None]:
        return {name: _mean(precision[:, :, label, _ALL, -1]) for label, name in enumerate(self.class_names)}

    def _ranked(self, evaluated: Any) -> Iterator[_Ranked]:
        """The classes that have objects, with what the evaluator made of each detection among objects of any area."""
        num_areas, most = len(evaluated.params.areaRng), evaluated.params.maxDets[-1]
        for label in range(len(self.class_names)):
            start = (label * num_areas + _ALL) * len(self)
            told = [(image, of) for image, of in enumerate(evaluated.evalImgs[start : start + len(self)]) if of is not None]
            positives = np.zeros(len(self), np.int64)
            for image, of in told:
                positives[image] = np.count_nonzero(of["gtIgnore"] == 0)
            if positives.any():
                yield _ranked(told, positives, most)

    def _interval(self, evaluated: Any, seed: int) -> Interval | None:
        ranked = list(self._ranked(evaluated))
        if not ranked:
            return None
        values = np.full(NUM_RESAMPLES, np.nan)
        for number in range(NUM_RESAMPLES):
            (times,) = times_drawn(seed, "box ap", range(number, number + 1), len(self))
            values[number] = resampled_precision(ranked, times)
        return bootstrap_interval(resampled_precision(ranked, np.ones(len(self), np.int64)), values, len(self))


def _ranked(told: Sequence[tuple[int, dict[str, Any]]], positives: Int64[np.ndarray, " I"], most: int) -> _Ranked:
    scores = np.concatenate([of["dtScores"][:most] for _, of in told])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([of["dtMatches"][:, :most] for _, of in told], axis=1)[:, order] > 0
    counted = ~np.concatenate([of["dtIgnore"][:, :most] for _, of in told], axis=1)[:, order].astype(bool)
    image = np.repeat([place for place, _ in told], [len(of["dtScores"][:most]) for _, of in told])[order]
    return _Ranked(matched & counted, ~matched & counted, image.astype(np.int64), positives)


def resampled_precision(ranked: Sequence[_Ranked], times: Int64[np.ndarray, " I"]) -> float:
    """Average precision if each image had been seen so many times.

    The matches of an image do not depend on the other images, so nothing is matched again: a detection counts as often as its image.
    It is what the evaluator would say, but for the order among equal scores of several images.

    Args:
        ranked: Classes.
        times: Of each image; 1 for all gives the evaluator's own figure.

    Returns:
        Mean over the classes that have objects in these images; not a number where none has.
    """
    of_class = [_precision(of, times[of.image], int(times @ of.positives)) for of in ranked]
    told = [value for value in of_class if value is not None]
    return float(np.mean(told)) if told else float("nan")


def _precision(ranked: _Ranked, times: Int64[np.ndarray, " D"], num: int) -> float | None:
    """Mean over thresholds and recalls of the precision at each recall or any higher one."""
    if not num:
        return None
    hits: Float64[np.ndarray, "T D"] = np.cumsum(ranked.hits * times, axis=1, dtype=np.float64)
    misses = np.cumsum(ranked.misses * times, axis=1, dtype=np.float64)
    precision = hits / (hits + misses + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.pad(precision, ((0, 0), (0, 1)))  # a recall that is never reached has precision 0
    places = [np.searchsorted(recall, _RECALLS, side="left") for recall in hits / num]
    return float(np.mean([row[place] for row, place in zip(padded, places, strict=True)]))


def _summary(precision: np.ndarray) -> dict[str, float | None]:
    """Figures of the evaluator's table [T, recalls, classes, areas, numbers of detections]."""
    table = precision[..., -1]
    return {
        "ap": _mean(table[..., _ALL]),
        "ap50": _mean(table[_AT_50, ..., _ALL]),
        "ap75": _mean(table[_AT_75, ..., _ALL]),
        "ap_small": _mean(table[..., _SMALL]),
        "ap_medium": _mean(table[..., _MEDIUM]),
        "ap_large": _mean(table[..., _LARGE]),
    }


def _mean(precision: np.ndarray) -> float | None:
    """Mean of what is told: -1 stands where there is no object."""
    told = precision[precision > -1]
    return float(told.mean()) if told.size else None
