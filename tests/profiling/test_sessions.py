"""Candidates of all kinds become rows, case by case."""

import time
from dataclasses import replace

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import Candidate, Case, Opened, refused
from g2sd_deploy.profiling.sessions import Plan, time_candidates
from g2sd_deploy.settings.profile import RuntimeName

SHORT = Plan(seconds=0.05, reference=False)


class Ticks:
    """Keeps the progress that was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, note: str) -> None:
        self.told.append((done, total, note))


def candidate(model: str = "a", runtime: RuntimeName = "torch", opened: list[Case] | None = None) -> Candidate:
    def open_(case: Case) -> Opened:
        if opened is not None:
            opened.append(case)
        return Opened(lambda: time.sleep(0.001), "1.2", "quick")

    return Candidate(model, runtime, "fp32", open_, digest="ab", file_bytes=7)


def test_every_case_has_a_row_of_every_candidate() -> None:
    ticks, opened = Ticks(), list[Case]()
    plan = replace(SHORT, batches=(1, 4), threads=(1, 2))
    timed = time_candidates([candidate("a", opened=opened), candidate("b")], plan, ticks)
    cases = [(batch, threads) for batch in (1, 4) for threads in (1, 2)]
    assert [(row["batch"], row["threads"], row["model"]) for row in timed.rows] == [(*case, name) for case in cases for name in "ab"]
    assert opened == [Case(*case) for case in cases]
    for row in timed.rows:
        assert (row["version"], row["provider"], row["digest"], row["file_bytes"]) == ("1.2", "quick", "ab", 7)
        assert row["min_ms"] >= 1.0 and row["ratio"] is None and row["images_per_s"] <= 1000 * row["batch"]
    assert timed.conditions["num_rounds"] >= len(cases)
    done = [one for one, _, _ in ticks.told]
    assert done == sorted(done) and done[-1] <= ticks.told[-1][1] and "batch 4, 2 threads" in ticks.told[-1][2]


def test_a_gpu_is_timed_with_one_number_of_threads() -> None:
    timed = time_candidates([candidate(), candidate("b", "tensorrt")], replace(SHORT, threads=(1, 2)), Ticks())
    assert [(row["model"], row["threads"]) for row in timed.rows] == [("a", 1), ("b", None), ("a", 2)]


def test_what_cannot_run_has_a_row_with_its_reason_and_no_numbers() -> None:
    def refuse(case: Case) -> Opened:
        raise UserError(f"its batch is fixed at 4, not {case.batch}")

    fixed = replace(candidate("b"), open=refuse)
    timed = time_candidates([candidate(), fixed, refused("c", "tensorrt", "no GPU")], SHORT, Ticks())
    assert [(row["verdict"], row["reasons"]) for row in timed.rows[1:]] == [
        ("not_run", ["its batch is fixed at 4, not 1"]),
        ("not_run", ["no GPU"]),
    ]
    assert all("p50_ms" not in row for row in timed.rows[1:]) and "p50_ms" in timed.rows[0]


def test_nothing_that_can_run_is_an_error_with_every_reason() -> None:
    candidates = [refused("c", "tensorrt", "no GPU"), refused("d", "openvino", "not installed")]
    with pytest.raises(UserError, match=r"^nothing can be timed here: c on tensorrt: no GPU; d on openvino: not installed$"):
        time_candidates(candidates, replace(SHORT, batches=(1, 2)), Ticks())


def test_a_model_that_is_named_twice_is_refused_before_anything_is_opened() -> None:
    opened = list[Case]()
    with pytest.raises(UserError, match="a torch fp32: is named twice"):
        time_candidates([candidate(opened=opened), candidate(opened=opened)], SHORT, Ticks())
    assert opened == []


def test_the_reference_takes_part_in_the_same_session() -> None:
    timed = time_candidates([candidate()], replace(SHORT, reference=True), Ticks())
    mine, reference = timed.rows
    assert (reference["model"], reference["ratio"]) == ("reference", None)
    assert mine["ratio"]["to"] == "reference" and mine["round_index"] == reference["round_index"]
    assert mine["ratio"]["interval"][0] <= mine["ratio"]["value"] <= mine["ratio"]["interval"][1]


def test_each_scenario_has_its_rows_and_only_a_single_stream_has_ratios() -> None:
    plan = Plan(seconds=0.2, scenarios=("single_stream", "offline", "server"), rate_per_s=50.0, streams=2)
    timed = time_candidates([candidate(), refused("c", "tensorrt", "no GPU")], plan, Ticks())
    assert [(row["model"], row["scenario"]) for row in timed.rows] == [
        ("a", "single_stream"),
        ("reference", "single_stream"),
        ("c", "single_stream"),
        ("a", "offline"),
        ("c", "offline"),
        ("a", "server"),
        ("c", "server"),
    ]
    by = {row["scenario"]: row for row in timed.rows if row["model"] == "a"}
    assert (by["offline"]["streams"], by["server"]["streams"], by["server"]["server"]["rate_per_s"]) == (2, 2, 50.0)
    assert by["offline"]["ratio"] is None
