"""When a generic stage is stopped because its loss shows that the teacher cannot teach, and what is said of one that is not."""

import pytest

from g2sd_deploy.settings import LossBandSettings
from g2sd_deploy.training.loss_band import loss_band_problem, loss_band_verdict
from g2sd_deploy.training.record import Row

BAND = LossBandSettings(start=(0.15, 0.5), below=0.1, after=0.3)
Rows = list[Row]


def rows_of(*losses: float, every: int = 10) -> Rows:
    return [{"step": every * i, "loss": loss} for i, loss in enumerate(losses)]


def problems(rows: Rows, num_steps: int, band: LossBandSettings = BAND) -> dict[int | float, str]:
    """What is said at each step of a run, where anything is."""
    told = {row["step"]: loss_band_problem(rows[: i + 1], num_steps, band) for i, row in enumerate(rows)}
    return {step: problem for step, problem in told.items() if problem}


@pytest.mark.parametrize("loss", [0.15, 0.247, 0.5])
def test_a_first_loss_inside_the_band_is_no_problem(loss: float) -> None:
    assert loss_band_problem(rows_of(loss), 100, BAND) == ""


@pytest.mark.parametrize("loss", [0.0, 0.149, 0.501, 30.0, float("nan"), float("inf")])
def test_a_first_loss_outside_the_band_says_where_it_is_and_what_is_probably_wrong(loss: float) -> None:
    problem = loss_band_problem(rows_of(loss), 100, BAND)
    assert problem.startswith(f"the first loss is {loss:.3f}, outside generic.loss_band.start [0.15, 0.5] (predicting nothing costs 0.247)")
    assert "most likely" in problem and "\n" not in problem


@pytest.mark.parametrize(("num_steps", "due"), [(95, 30), (100, 30), (101, 40)])
def test_progress_is_judged_once_at_the_first_logged_step_that_has_the_share_behind_it(num_steps: int, due: int) -> None:
    rows = rows_of(*[0.2] * 11)  # steps 0, 10, ..., 100
    assert list(problems(rows, num_steps)) == [due]
    assert problems(rows_of(*[0.2] * 3, *[0.05] * 8), num_steps) == {}


def test_the_last_step_counts_where_the_share_lies_behind_the_last_tenth_one() -> None:
    rows = [*rows_of(0.2, 0.2), {"step": 13, "loss": 0.2}]
    assert list(problems(rows, 14, BAND.model_copy(update={"after": 0.9}))) == [13]  # 12.6 steps are due


@pytest.mark.parametrize(("steps", "num_steps", "after"), [([0], 1, 0.3), ([0, 4], 5, 0.9), ([0], 1, 0.001)])
def test_a_run_too_short_to_reach_its_share_is_not_judged_and_says_so(steps: list[int], num_steps: int, after: float) -> None:
    band = BAND.model_copy(update={"after": after})
    rows = [{"step": step, "loss": 0.25} for step in steps]
    assert problems(rows, num_steps, band) == {}
    verdict = loss_band_verdict(rows, num_steps, band)
    assert verdict["verdict"] == "not_run"
    assert verdict["reason"].startswith("the run was too short: no loss was logged at ")


def test_a_loss_under_the_bound_is_no_problem_and_one_at_or_above_it_is() -> None:
    good = rows_of(0.25, 0.2, 0.15, 0.0994)
    assert problems(good, 100) == {}
    passed = {"verdict": "passed", "reason": "the loss was 0.099 after 30% of the steps, under 0.1"}
    assert loss_band_verdict(good, 100, BAND) == passed
    assert loss_band_verdict([*good, {"step": 40, "loss": 0.5}], 100, BAND) == passed, "what comes later is not judged"
    for last in (0.1, 0.2):
        problem = problems(rows_of(0.25, 0.2, 0.15, last), 100)[30]
        assert problem.startswith(f"after 30% of the steps the loss is {last:.3f}, not under generic.loss_band.below 0.1")
        assert (
            "the teacher's decoder was never trained" in problem and "generic.loss_band=null trains on" in problem and "\n" not in problem
        )


def test_a_loss_that_is_not_a_number_is_not_under_the_bound() -> None:
    assert 30 in problems(rows_of(0.2, 0.2, 0.2, float("nan")), 100)


def test_the_mean_of_the_last_tenth_before_the_point_is_judged_and_nothing_before_it() -> None:
    rows = [{"step": step, "loss": 0.25 if step < 270 else 0.05} for step in range(0, 301, 10)]
    assert problems(rows, 1000) == {}
    assert loss_band_verdict(rows, 1000, BAND)["reason"].startswith("the loss was 0.050 ")
    rows[-1]["loss"] = 0.35  # the mean of 0.05, 0.05, 0.05 and 0.35 is 0.125
    assert "the loss is 0.125" in problems(rows, 1000)[300]
