"""Students of two runs paired from the predictions that their evaluations stored, and the command that shows them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from g2sd_deploy.comparing import compare_runs
from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.predictions import SCHEMA
from g2sd_deploy.pairing import pair_students
from g2sd_deploy.report import PairedStudents, read_run
from g2sd_export.paired import score_interval

NUM = 1000
Write = Callable[..., Path]


@pytest.fixture
def write(full_run_factory: Callable[[], Any], tmp_path: Path) -> Write:
    """A run folder whose student decided these images rightly; None stores no predictions."""

    def written(
        name: str, correct: Sequence[bool] | None, *, labels: np.ndarray | None = None, order: np.ndarray | None = None, num_test: int = NUM
    ) -> Path:
        run = full_run_factory()
        run.artifacts["data"]["metrics"]["num_test"] = num_test
        folder = run.write(tmp_path / name)
        if correct is not None:
            write_predictions(folder / "evaluate" / "predictions-student.parquet", np.array(correct), labels, order)
        return folder

    return written


def write_predictions(path: Path, correct: np.ndarray, labels: np.ndarray | None, order: np.ndarray | None) -> None:
    """A file as an evaluation writes it: the clean images, and corrupted ones that a pairing must not count."""
    label = np.arange(len(correct)) % 10 if labels is None else labels
    place = np.arange(len(correct)) if order is None else order
    rows = [
        {"set": "clean", "variant": variant, "image": f"image {index}", "index": index, "label": int(label[index]), "top5": [0, 1, 2, 3, 4]}
        | {"label_logit": 0.0, "label_prob": 0.5, "top1_prob": 0.5, "correct": bool(correct[index]) and not variant}
        for variant in ("", "fog/3")
        for index in map(int, place)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def pairs(*folders: Path) -> list[PairedStudents]:
    return pair_students(folders, [read_run(folder) for folder in folders])


def answers(only_first: int, only_second: int, both: int = 700) -> tuple[list[bool], list[bool]]:
    """Two students that differ on so many images."""
    wrong = NUM - both - only_first - only_second
    first = [True] * (both + only_first) + [False] * (only_second + wrong)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * wrong
    return first, second


def test_two_students_are_compared_on_the_images_where_they_differ(write: Write) -> None:
    first, second = answers(30, 60)
    (pair,) = pairs(write("a", first), write("b", second))
    assert (pair.num_images, pair.only_first, pair.only_second, pair.gain) == (NUM, 30, 60, pytest.approx(0.03))
    low, high = score_interval(60, 30, NUM)
    assert pair.interval == (pytest.approx(low), pytest.approx(high)) and pair.differs
    assert pair.p_value == pytest.approx(0.002, abs=0.001)


def test_a_small_difference_is_not_told_as_one(write: Write) -> None:
    first, second = answers(30, 33)
    (pair,) = pairs(write("a", first), write("b", second))
    assert not pair.differs and pair.p_value > 0.5


def test_images_are_matched_by_their_place_and_not_by_the_order_of_the_rows(write: Write) -> None:
    first, second = answers(30, 60)
    shuffled = np.random.default_rng(0).permutation(NUM)
    (pair,) = pairs(write("a", first), write("b", second, order=shuffled))
    assert (pair.only_first, pair.only_second) == (30, 60)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"correct": None}, "the second holds no predictions"),
        ({"correct": [True] * NUM, "num_test": 999}, "they were tested on different images or classes"),
        ({"correct": [True] * NUM, "labels": np.zeros(NUM, dtype=int)}, "their predictions are of different images"),
        ({"correct": [True] * 10}, "their predictions are of different images"),
    ],
)
def test_what_cannot_be_paired_says_why(second: dict[str, Any], told: str, write: Write) -> None:
    (pair,) = pairs(write("a", [True] * NUM), write("b", **second))
    assert told in pair.reason and pair.num_images == 0 and not pair.differs


def test_predictions_of_other_sets_alone_are_no_predictions_of_the_test(write: Write) -> None:
    folder = write("b", [True] * NUM)
    file = folder / "evaluate" / "predictions-student.parquet"
    table = pq.read_table(file)
    pq.write_table(table.filter(pa.compute.equal(table["variant"], "fog/3")), file)
    (pair,) = pairs(write("a", [True] * NUM), folder)
    assert "the second holds no predictions" in pair.reason


def test_few_runs_are_compared_each_with_each_and_many_with_the_first(write: Write) -> None:
    folders = [write(name, None) for name in "abcdefghi"]
    assert [(pair.first, pair.second) for pair in pairs(*folders[:3])] == [(0, 1), (0, 2), (1, 2)]
    assert [(pair.first, pair.second) for pair in pairs(*folders)] == [(0, other) for other in range(1, 9)]


def test_the_command_reads_pairs_and_renders(write: Write) -> None:
    first, second = answers(30, 60)
    page = compare_runs([write("a", first), write("b", second)])
    assert "+3.00 (+1.1" in page.markdown and "the second is better" in page.markdown


def test_a_run_that_is_given_twice_is_refused(write: Write) -> None:
    folder = write("a", None)
    with pytest.raises(UserError, match=r"a: is given twice; give each run once$"):
        compare_runs([folder, folder / ".." / "a"])


def test_damaged_predictions_are_told_and_not_passed_over(write: Write) -> None:
    folder = write("a", [True] * NUM)
    (folder / "evaluate" / "predictions-student.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="no predictions can be read from it"):
        compare_runs([folder, write("b", None)])
