"""Students of several runs on the same images, from the predictions that their evaluations stored."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from g2sd_deploy.report import PairedStudents, RunSummary, same_test
from g2sd_export.paired import paired_drop

_FEW = 8
"""Up to so many runs every pair is compared; of more, each with the first."""
_STUDENT, _CLEAN = "student", "clean"


def pair_students(folders: Sequence[Path], runs: Sequence[RunSummary]) -> list[PairedStudents]:
    """Compare the students of every two runs, or say why that cannot be.

    Args:
        folders: Run folders.
        runs: What was read from each.

    Raises:
        UserError: A file of predictions is damaged.
    """
    answers = [_answers(folder) for folder in folders]
    places = combinations(range(len(runs)), 2) if len(runs) <= _FEW else ((0, other) for other in range(1, len(runs)))
    return [_pair(first, second, runs, answers) for first, second in places]


def _answers(folder: Path) -> Mapping[str, np.ndarray] | None:
    """Rows of the run's own test, by column; None where no predictions are stored."""
    from g2sd_deploy.evaluation.predictions import columns_of, predictions_file, read_predictions

    file = folder / "evaluate" / predictions_file(_STUDENT)
    if not file.is_file():
        return None
    table = read_predictions(file)
    kinds = set(zip(table["set"].to_pylist(), table["variant"].to_pylist(), strict=True))
    return columns_of(file, _CLEAN) if (_CLEAN, "") in kinds else None


def _pair(first: int, second: int, runs: Sequence[RunSummary], answers: Sequence[Mapping[str, np.ndarray] | None]) -> PairedStudents:
    one, other = answers[first], answers[second]
    if one is None or other is None:
        missing = " and ".join(("first", "second")[place] for place, found in enumerate((one, other)) if found is None)
        return PairedStudents(first, second, f"the {missing} holds no predictions of a student on its test images")
    if not same_test(runs[first], runs[second]):
        return PairedStudents(first, second, "they were tested on different images or classes")
    one, other = _in_order(one), _in_order(other)
    if not (np.array_equal(one["index"], other["index"]) and np.array_equal(one["label"], other["label"])):
        return PairedStudents(first, second, "their predictions are of different images")
    found = paired_drop(one["correct"].astype(bool), other["correct"].astype(bool))
    low, high = found.interval
    return PairedStudents(
        first,
        second,
        num_images=found.num_images,
        only_first=found.lost,
        only_second=found.gained,
        gain=0.0 - found.drop,  # no negative zero
        interval=(-high, -low),
        p_value=found.p_value,
    )


def _in_order(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows by their place in the set: several processes write them as they come."""
    order = np.argsort(columns["index"], kind="stable")
    return {name: columns[name][order] for name in ("index", "label", "correct")}
