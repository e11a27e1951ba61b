"""What one model did with each image: the columns that every score is computed from.

A batch of logits is reduced to these columns at once, so that a set of any size costs some 100 bytes an image and model instead of
its logits. Each row depends on its own logits only: however a set is cut into batches, the columns are the same to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from numpy.typing import NDArray

NUM_TOP = 5


@dataclass(frozen=True)
class Outcomes:
    """One row per image.

    Attributes:
        label: The right class among the scored logits; -1 where a set of classes is right.
        top5: Classes by falling logit, ties to the lower index; all of them where there are fewer than five.
        rank: Classes that outrank the best right class (on a tie those of lower index); 0 is a correct answer.
        label_logit: Logit of the right class; NaN where `label` is -1.
        label_prob: Softmax probability of the right class, 0 to 1; NaN where `label` is -1.
        top1_prob: Largest softmax probability, the model's confidence, above 0 and at most 1.
        nll: -log of `label_prob`, in nats; NaN where `label` is -1.
        brier: Sum over classes of (probability - 1 where right, else 0) squared, 0 to 2; NaN where `label` is -1.
        same: Whether the first class is the teacher's; None without a teacher.
        kl: KL(teacher || model) of the softmax probabilities, in nats; None without a teacher.
    """

    label: Int64[np.ndarray, "num"]
    top5: Int32[np.ndarray, "num top"]
    rank: Int32[np.ndarray, "num"]
    label_logit: Float64[np.ndarray, "num"]
    label_prob: Float64[np.ndarray, "num"]
    top1_prob: Float64[np.ndarray, "num"]
    nll: Float64[np.ndarray, "num"]
    brier: Float64[np.ndarray, "num"]
    same: Bool[np.ndarray, "num"] | None = None
    kl: Float64[np.ndarray, "num"] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def correct(self) -> Bool[np.ndarray, "num"]:
        """Whether the first class is right."""
        right: NDArray[np.bool_] = self.rank == 0
        return right

    def take(self, indices: Int64[np.ndarray, "picks"]) -> "Outcomes":
        """The rows of these images, in this order."""
        return Outcomes(**{name: column[indices] for name, column in _columns(self).items()})


def concatenate(parts: Sequence[Outcomes]) -> Outcomes:
    """The rows of all parts, in order.

    Raises:
        ValueError: No part, or parts that differ in their columns: some with a teacher and some without, or other numbers of classes.
    """
    if not parts:
        raise ValueError("there are no outcomes to join")
    kinds = {(part.top5.shape[1], part.same is None, part.kl is None) for part in parts}
    if len(kinds) > 1:
        raise ValueError("outcomes of different kinds cannot be joined: same number of classes wanted, and a teacher for all or for none")
    columns = [_columns(part) for part in parts]
    return Outcomes(**{name: np.concatenate([part[name] for part in columns]) for name in columns[0]})


def outcomes_of(logits: np.ndarray, labels: np.ndarray, *, right: np.ndarray | None = None, teacher: np.ndarray | None = None) -> Outcomes:
    """Reduce the logits of a batch.

    Args:
        logits: Floats [B,K] of any float dtype, K at least 1; computed in float64.
        labels: Whole numbers [B] in 0..K-1; ignored where `right` is given.
        right: Bools [B,K], one or more right classes an image; None where the label is the only one.
        teacher: Floats [B,K], the teacher's logits of the same images and classes.

    Raises:
        ValueError: Shapes do not fit, a label out of range, an image without a right class, or logits that are not finite (a NaN can
            so never count as an answer).
    """
    values = _checked_logits(logits)
    log_probs = _log_softmax(values)
    probs = np.exp(log_probs)
    top5 = _top_classes(values)
    rows = np.arange(len(values))
    if right is None:
        label = _checked_labels(labels, values.shape)
        best = label
        scored = (values[rows, label], probs[rows, label], -log_probs[rows, label] + 0.0, _brier(probs, label))
    else:
        best = _best_right(values, right)
        label = np.full(len(values), -1, dtype=np.int64)
        scored = (np.full(len(values), np.nan),) * 4
    same, kl = (None, None) if teacher is None else _compared(values, log_probs, teacher)
    return Outcomes(label, top5, _rank(values, best), scored[0], scored[1], probs[rows, top5[:, 0]], scored[2], scored[3], same, kl)


def _columns(outcomes: Outcomes) -> dict[str, Any]:
    """Those that are there, by name."""
    columns = {field.name: getattr(outcomes, field.name) for field in fields(outcomes)}
    return {name: column for name, column in columns.items() if column is not None}


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted: NDArray[np.float64] = values - values.max(axis=1, keepdims=True)  # the largest becomes 0, so exp cannot overflow
    log_sum: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - log_sum


def _top_classes(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """The first five by repeated argmax, which gives ties to the lower index and is quicker than a stable sort of all classes."""
    left, rows = values.copy(), np.arange(len(values))
    top = np.empty((len(values), min(NUM_TOP, values.shape[1])), dtype=np.int32)
    for place in range(top.shape[1]):
        top[:, place] = left.argmax(axis=1)
        left[rows, top[:, place]] = -np.inf
    return top


def _rank(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.int32]:
    of_class = values[np.arange(len(values)), classes][:, np.newaxis]
    outranks = (values > of_class) | ((values == of_class) & (np.arange(values.shape[1]) < classes[:, np.newaxis]))
    rank: NDArray[np.int32] = outranks.sum(axis=1, dtype=np.int32)
    return rank


def _brier(probs: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    off = probs.copy()
    off[np.arange(len(probs)), label] -= 1.0
    brier: NDArray[np.float64] = np.square(off).sum(axis=1)
    return brier


def _compared(
    values: NDArray[np.float64], log_probs: NDArray[np.float64], teacher: np.ndarray
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    if teacher.shape != values.shape:
        raise ValueError(f"logits of shapes {values.shape} and {teacher.shape} cannot be compared: same images and classes wanted")
    theirs = _checked_logits(teacher)
    their_log_probs = _log_softmax(theirs)
    kl = (np.exp(their_log_probs) * (their_log_probs - log_probs)).sum(axis=1)
    return theirs.argmax(axis=1) == values.argmax(axis=1), np.maximum(kl, 0.0)  # rounding can leave -1e-17


def _best_right(values: NDArray[np.float64], right: np.ndarray) -> NDArray[np.int64]:
    if right.shape != values.shape or right.dtype != np.bool_:
        raise ValueError(f"right classes are {right.dtype} of shape {right.shape}, wanted bool of {values.shape}, as the logits")
    without = np.flatnonzero(~right.any(axis=1))
    if without.size:
        raise ValueError(f"{without.size} of {len(right)} images have no right class, first image {without[0]}: leave such images out")
    best: NDArray[np.int64] = np.where(right, values, -np.inf).argmax(axis=1)
    return best


def _checked_labels(labels: np.ndarray, shape: tuple[int, ...]) -> NDArray[np.int64]:
    if labels.shape != shape[:1]:
        raise ValueError(f"labels have shape {labels.shape}, wanted ({shape[0]},): one per row of the logits {shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels have dtype {labels.dtype}, wanted whole numbers")
    outside = np.flatnonzero((labels < 0) | (labels >= shape[1]))
    if outside.size:
        raise ValueError(f"label {labels[outside[0]]} of image {outside[0]} is outside 0..{shape[1] - 1}, the range of {shape[1]} logits")
    return labels.astype(np.int64)


def _checked_logits(logits: np.ndarray) -> NDArray[np.float64]:
    if logits.ndim != 2:
        raise ValueError(f"logits have shape {logits.shape}, wanted [images, classes]")
    if logits.shape[1] == 0:
        raise ValueError(f"logits have shape {logits.shape}: there is nothing to score")
    if not np.issubdtype(logits.dtype, np.floating):
        raise ValueError(f"logits have dtype {logits.dtype}, wanted floats")
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise ValueError(f"logits of {(~finite).sum()} of {len(logits)} images are not finite, first image {int(finite.argmin())}")
    return np.array(logits, dtype=np.float64, order="C")  # row by row in memory, or sums would depend on the size of the batch
