"""Accuracy, likelihood, calibration and agreement from logits. Pure numpy: no files, no settings, no clock.

Every function takes logits [N,K] of any float dtype and computes in float64. A NaN or an infinity is refused, so it can
never count as a correct answer.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

NUM_CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassificationMetrics:
    """How well a model classifies one set of images.

    Attributes:
        top1: Share of images whose first class is right, 0 to 1.
        top5: Share of images with the right class among the first five (among all, where there are fewer than five classes).
        nll: Mean negative log-likelihood of the right class, in nats.
        ece: Expected calibration error over 15 bins, 0 to 1.
        num_images: Images scored.
    """

    top1: float
    top5: float
    nll: float
    ece: float
    num_images: int

    def to_dict(self) -> dict[str, float | int]:
        """The same five values under the same names, ready for JSON."""
        return asdict(self)


def classification_metrics(logits: np.ndarray, labels: np.ndarray) -> ClassificationMetrics:
    """All metrics of one model on one set.

    Args:
        logits: Float [N,K], N and K at least 1.
        labels: Whole numbers [N] in 0..K-1.

    Raises:
        ValueError: Shapes do not fit, nothing to score, a label out of range, or logits that are not finite.
    """
    return ClassificationMetrics(
        top1=top_k_accuracy(logits, labels, k=1),
        top5=top_k_accuracy(logits, labels, k=5),
        nll=negative_log_likelihood(logits, labels),
        ece=expected_calibration_error(logits, labels),
        num_images=len(labels),
    )


def top_k_accuracy(logits: np.ndarray, labels: np.ndarray, *, k: int) -> float:
    """Share of images whose right class is among the k largest logits.

    Ties go to the lower class index, as in ``numpy.argmax``: a model that answers the same for every class is right only
    where the label is one of the first k classes.

    Args:
        logits: Float [N,K].
        labels: Whole numbers [N] in 0..K-1.
        k: At least 1; more than K means K.

    Returns:
        0 to 1.

    Raises:
        ValueError: As in ``classification_metrics``, or k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}, wanted at least 1")
    values, classes = _checked(logits, labels)
    right = values[np.arange(len(values)), classes][:, np.newaxis]
    outranks = (values > right) | ((values == right) & (np.arange(values.shape[1]) < classes[:, np.newaxis]))
    return float((outranks.sum(axis=1) < k).mean())


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax(logits)[label], in nats.

    Args:
        logits: Float [N,K].
        labels: Whole numbers [N] in 0..K-1.

    Returns:
        0 or more.

    Raises:
        ValueError: As in ``classification_metrics``.
    """
    values, classes = _checked(logits, labels)
    return float(-_log_softmax(values)[np.arange(len(values)), classes].mean())


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, *, num_bins: int = NUM_CALIBRATION_BINS) -> float:
    """Mean distance between confidence and accuracy, over bins of equal width weighted by their images.

    Bin m of M holds the images whose largest probability lies in (m/M, (m+1)/M].

    Args:
        logits: Float [N,K].
        labels: Whole numbers [N] in 0..K-1.
        num_bins: M, at least 1.

    Returns:
        0 to 1.

    Raises:
        ValueError: As in ``classification_metrics``, or fewer than one bin.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3, M = 15.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, wanted at least 1")
    values, classes = _checked(logits, labels)
    first, confidence = top1_confidence(values)
    bins = np.searchsorted(np.arange(1, num_bins) / num_bins, confidence, side="left")
    gaps = np.bincount(bins, weights=(first == classes) - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(values))


def top1_confidence(logits: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First class of each image and its probability.

    Args:
        logits: Float [N,K].

    Returns:
        Class [N] (the lower index on a tie) and softmax probability [N] in (0, 1].

    Raises:
        ValueError: Not a matrix, empty, or not finite.
    """
    values = _checked_logits(logits)
    first = values.argmax(axis=1)
    return first, np.exp(_log_softmax(values)[np.arange(len(values)), first])


def agreement(logits_a: np.ndarray, logits_b: np.ndarray) -> float:
    """Share of images to which two models give the same first class, right or wrong.

    Args:
        logits_a: Float [N,K].
        logits_b: Float [N,K], same images in the same order.

    Returns:
        0 to 1.

    Raises:
        ValueError: Shapes differ, nothing to compare, or logits that are not finite.
    """
    if logits_a.shape != logits_b.shape:
        raise ValueError(f"logits of shapes {logits_a.shape} and {logits_b.shape} cannot be compared: same images and classes wanted")
    return float((_checked_logits(logits_a).argmax(axis=1) == _checked_logits(logits_b).argmax(axis=1)).mean())


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted: NDArray[np.float64] = values - values.max(axis=1, keepdims=True)  # the largest becomes 0, so exp cannot overflow
    log_sum: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - log_sum


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values = _checked_logits(logits)
    if labels.ndim != 1 or len(labels) != len(values):
        raise ValueError(f"labels have shape {labels.shape}, wanted ({len(values)},): one per row of the logits {logits.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels have dtype {labels.dtype}, wanted whole numbers")
    num_classes = values.shape[1]
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if outside.size:
        raise ValueError(
            f"label {labels[outside[0]]} of image {outside[0]} is outside 0..{num_classes - 1}, the range of {num_classes} logits"
        )
    return values, labels.astype(np.int64)


def _checked_logits(logits: np.ndarray) -> NDArray[np.float64]:
    if logits.ndim != 2:
        raise ValueError(f"logits have shape {logits.shape}, wanted [images, classes]")
    if logits.size == 0:
        raise ValueError(f"logits have shape {logits.shape}: there is nothing to score")
    if not np.issubdtype(logits.dtype, np.floating):
        raise ValueError(f"logits have dtype {logits.dtype}, wanted floats")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise ValueError(f"logits of {(~finite).sum()} of {len(logits)} images are not finite, first image {int(finite.argmin())}")
    return logits.astype(np.float64)
