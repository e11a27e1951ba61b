"""Do answers and labels number the classes alike? A model whose classes are in another order is right and yet never correct."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from .paired import mcnemar_p

_P_VALUE = 1e-6  # a check that every export makes must not cry wolf
_TIMES_BETTER = 2.0
_TELLABLE = 3  # kinds of images that even an untrained model may answer apart by chance are fewer
_MAX_NAMED = 3


def misnumbered(answers: Int64[np.ndarray, "num"], labels: Int64[np.ndarray, "num"]) -> str:
    """Look for another order of the classes under which the answers would be right.

    The order is learned on every other image and tried on the rest, so that no order is found that is not there. It must be a
    permutation and make at least twice as many answers right as now, and chance must not explain it; so a bad or an untrained model
    is not complained about.

    Args:
        answers: Class with the largest logit, per image.
        labels: True class, per image.

    Returns:
        What is wrong, with the numbers and the first classes concerned; empty where the order is right or cannot be told.
    """
    order = _likeliest_order(answers[::2], labels[::2])
    if len(set(order.values())) < len(order) or (len(order) < _TELLABLE and set(order) != set(order.values())):
        return ""
    labels, answers = labels[1::2], answers[1::2]
    known = np.isin(labels, list(order))
    labels, answers = labels[known], answers[known]
    now, moved = answers == labels, answers == np.array([order[label] for label in labels.tolist()], dtype=np.int64)
    num, hits, moved_hits = len(labels), int(now.sum()), int(moved.sum())
    unlikely = mcnemar_p(int((now & ~moved).sum()), int((moved & ~now).sum())) < _P_VALUE
    if not unlikely or moved_hits < _TIMES_BETTER * hits:
        return ""
    found = f"{hits} of {num} answers are right, and {moved_hits} would be with {_words(order)}"
    return f"{found}: the labels, or the classes of the model, are in another order"


def _likeliest_order(answers: Int64[np.ndarray, "num"], labels: Int64[np.ndarray, "num"]) -> dict[int, int]:
    """From each label that occurs to the answer that most of its images get."""
    return {int(label): int(np.bincount(answers[labels == label]).argmax()) for label in np.unique(labels)}


def _words(order: dict[int, int]) -> str:
    moves = {answer - label for label, answer in order.items() if answer != label}
    if len(moves) == 1 and all(answer != label for label, answer in order.items()):
        return f"every label moved by {moves.pop():+d}"
    changed = [f"{label} as {answer}" for label, answer in order.items() if label != answer]
    return f"label {', '.join(changed[:_MAX_NAMED])}{' and so on' if len(changed) > _MAX_NAMED else ''}"
