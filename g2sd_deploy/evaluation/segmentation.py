"""How well the classes of pixels are told: intersection over union and accuracies.

Shape letters: C classes, N images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from g2sd_deploy.data.dense.annotations import IGNORED
from g2sd_deploy.evaluation.intervals import Interval
from g2sd_deploy.evaluation.resampling import jackknife_interval


def confusion_matrix(predicted: UInt8[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"], num_classes: int) -> Int64[np.ndarray, "C C"]:
    """Pixels by true class (rows) and predicted class (columns).

    Args:
        predicted: Classes from 0; any value where the truth is `IGNORED`.
        truth: Classes from 0, or `IGNORED` where nothing is asked.
        num_classes: At most 255.

    Returns:
        Counts of the pixels whose truth is not ignored.

    Raises:
        ValueError: A class that is not one of them, or maps of two sizes.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"the predicted map is {list(predicted.shape)} and the true one {list(truth.shape)}; they must have one size")
    asked = truth != IGNORED
    rows, columns = truth[asked].astype(np.int64), predicted[asked].astype(np.int64)
    for name, values in (("truth", rows), ("prediction", columns)):
        if values.size and values.max() >= num_classes:
            raise ValueError(f"the {name} has class {values.max()}; there are {num_classes}, counted from 0")
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


class SegmentationTally:
    """Pixels counted image by image.

    Beside one matrix of all images, three numbers a class are kept of each image (pixels told right, predicted, true), which is all
    an interval needs: 2,000 images of 150 classes take 7 MB, where their matrices would take 360.

    Args:
        num_classes: At most 255.
    """

    def __init__(self, num_classes: int) -> None:
        self.matrix: Int64[np.ndarray, "C C"] = np.zeros((num_classes, num_classes), np.int64)
        self._areas: list[Int64[np.ndarray, "3 C"]] = []

    def __len__(self) -> int:
        return len(self._areas)

    def add(self, predicted: UInt8[np.ndarray, "h w"], truth: UInt8[np.ndarray, "h w"]) -> None:
        """Count the pixels of an image.

        Raises:
            ValueError: As `confusion_matrix`.
        """
        matrix = confusion_matrix(predicted, truth, len(self.matrix))
        self.matrix += matrix
        self._areas.append(np.stack([matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)]))

    def scores(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The figures of all images together, each 0 to 1 and None where no pixel tells it.

        Args:
            class_names: In the order of the classes.

        Returns:
            `miou`: mean of the intersections over unions of the classes that truth or prediction has. `miou_interval`: 95 %,
            by the jackknife over images; None of fewer than two. `aacc`: share of pixels told right. `macc`: mean over the classes that the
            truth has of the share of their pixels told right. `iou_by_class`: by name; None where neither truth nor prediction has
            the class.

        Source: open-mmlab/mmsegmentation@v0.16.0, mmseg/core/evaluation/metrics.py (eval_metrics; its means leave out 0 / 0).
        """
        right, predicted, true = self.matrix.diagonal(), self.matrix.sum(axis=0), self.matrix.sum(axis=1)
        iou = _shares(right, predicted + true - right)
        miou = float(_mean_of_told(iou))
        return {
            "miou": _told(miou),
            "miou_interval": self._interval(miou),
            "aacc": _told(_shares(right.sum(), true.sum())),
            "macc": _told(_mean_of_told(_shares(right, true))),
            "iou_by_class": {name: _told(value) for name, value in zip(class_names, iou, strict=True)},
        }

    def _interval(self, miou: float) -> Interval | None:
        if not self._areas:
            return None
        areas = np.stack(self._areas)
        right, predicted, true = (areas.sum(axis=0) - areas).swapaxes(0, 1)  # of all images but one
        return jackknife_interval(miou, _mean_of_told(_shares(right, predicted + true - right)))


def _shares(part: Any, whole: Any) -> Float64[np.ndarray, "..."]:
    """Element by element of arrays or numbers; not a number where the whole is nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean_of_told(shares: Float64[np.ndarray, "*some C"]) -> Float64[np.ndarray, "*some"]:
    """Mean over the last axis of what is a number; not a number where nothing is."""
    told = np.isfinite(shares)
    return _shares(np.where(told, shares, 0.0).sum(axis=-1), told.sum(axis=-1))


def _told(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
